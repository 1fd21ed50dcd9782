"""The demonstration: a private PostgreSQL, real data, the real sidecar, every promise tried and measured.

Takes: a folder, or none for a temporary one.  Gives: a Report of what held and what was measured.
"""

from ruvector.demo.report import Report
from ruvector.demo.show import run_demo

__all__ = ["Report", "run_demo"]
