"""Arrays schedules no work: its functions only compute."""

from ruvector.surface import Job

JOBS: tuple[Job, ...] = ()
