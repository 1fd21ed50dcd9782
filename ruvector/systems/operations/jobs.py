"""Operations schedules no work of its own: it reports what the mirror measures."""

from ruvector.surface import Job

JOBS: tuple[Job, ...] = ()
