"""The process: builds each object once, starts and stops mirrors and the endpoint.

Takes: a connection string and a data directory.  Gives: a running sidecar.
"""

from ruvector.sidecar.process import Sidecar, SidecarSettings

__all__ = ["Sidecar", "SidecarSettings"]
