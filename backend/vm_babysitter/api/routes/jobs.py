"""Jobs: the one way to have something done."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from msgspec import Meta, Struct

from vm_babysitter.api.operations import Reply, Routes
from vm_babysitter.api.orders import Order, mistake_in, options_of
from vm_babysitter.api.parameters import LARGEST, Count, JobNumber, VmName
from vm_babysitter.api.reading import invalid
from vm_babysitter.api.services import Services
from vm_babysitter.domain.job import JobState
from vm_babysitter.views import FieldErrorView, JobLogView, JobView, ProgressView

MOST_LOG = 1 << 20


class JobsQuery(Struct, frozen=True):
    """Which jobs."""

    vm: VmName | None = None
    state: tuple[JobState, ...] = ()
    limit: Count = 50
    before: JobNumber | None = None


class LogQuery(Struct, frozen=True):
    """Which piece of a log."""

    offset: Annotated[int, Meta(ge=0, le=LARGEST, description="Where it begins, in bytes.")] = 0
    limit: Annotated[int, Meta(ge=1, le=MOST_LOG, description="Its most bytes.")] = 64 << 10


def job_routes(services: Services) -> Routes:
    """Return the operations on jobs."""
    routes = Routes("jobs")

    @routes.get("/jobs", list[JobView], query=JobsQuery)
    def list_jobs(query: JobsQuery) -> Sequence[JobView]:
        """List jobs, the youngest first.

        `before` is the number of the last job of the page before.
        """
        return services.jobs(
            vm=query.vm, states=query.state, limit=query.limit, before=query.before
        )

    @routes.post(
        "/jobs",
        JobView,
        status=HTTPStatus.ACCEPTED,
        body=Order,
        sends={"Location": "Where the job is to be asked for."},
    )
    def submit_job(body: Order) -> Reply:
        """Have something done.

        The answer is the job, which is queued. If the same is queued already, it is that one.
        """
        mistake = mistake_in(body)
        if mistake is not None:
            raise invalid([FieldErrorView(mistake[0], "", mistake[1])])
        job = services.submit(body.kind, body.vm, options_of(body))
        return Reply(job, {"Location": f"/api/v1/jobs/{job.id}"})

    @routes.get("/jobs/{job}", JobView)
    def get_job(job: int) -> JobView:
        """Return a job."""
        return services.job(job)

    @routes.get("/jobs/{job}/progress", ProgressView)
    def get_progress(job: int) -> ProgressView:
        """Say how far a job is."""
        found = services.job(job)
        return ProgressView(
            found.id,
            found.kind,
            found.vm,
            found.uuid,
            found.state,
            found.step,
            found.done_bytes,
            found.total_bytes,
        )

    @routes.get("/jobs/{job}/log", JobLogView, query=LogQuery)
    def get_log(job: int, query: LogQuery) -> JobLogView:
        """Return a piece of the log of a job.

        Ask again from `next_offset` until it is `complete`.
        """
        return services.job_log(job, query.offset, query.limit)

    @routes.post("/jobs/{job}/cancel", JobView, status=HTTPStatus.ACCEPTED)
    def cancel_job(job: int) -> JobView:
        """Have a job end; harmless if it has ended."""
        return services.cancel(job)

    return routes
