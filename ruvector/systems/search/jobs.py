"""Search schedules no work of its own: the mirror keeps its index current."""

from ruvector.surface import Job

JOBS: tuple[Job, ...] = ()
