"""Cutover schedules no work: a step is one transaction."""

from ruvector.surface import Job

JOBS: tuple[Job, ...] = ()
