"""What went wrong, told the same way whether this process or the daemon met it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from vm_babysitter.domain.errors import BabysitterError, Exit, SystemFailed
from vm_babysitter.views import FieldErrorView, JobView


@dataclass(frozen=True, slots=True)
class Failure:
    """What is told to people and programs, and how the process ends."""

    code: str
    message: str
    hint: str = ""
    exit_code: int = int(Exit.FAILED)
    fields: dict[str, int | str] = field(default_factory=dict)
    errors: tuple[FieldErrorView, ...] = ()
    """Each value that breaks a rule; empty where it is about no values."""

    @classmethod
    def of(cls, error: BabysitterError) -> Self:
        """Tell an error of ours."""
        fields = {k: v if isinstance(v, int | str) else str(v) for k, v in error.fields.items()}
        return cls(error.code, error.message, error.hint, int(error.exit_code), fields)

    @classmethod
    def of_job(cls, job: JobView) -> Self:
        """Tell why a job has ended badly."""
        code = job.code or str(job.state)
        ended = job_exit(job)
        return cls(code, job.summary or f"It ended: {job.state}.", job.hint, ended, {"job": job.id})

    def data(self, hint: str) -> dict[str, Any]:
        """Return what programs are told."""
        told = {
            "code": self.code,
            "message": self.message,
            "hint": hint,
            "fields": self.fields,
        }
        return {**told, "errors": msgspec.to_builtins(self.errors)} if self.errors else told


class Refused(Exception):
    """The daemon did not do what it was asked for; carries what it said."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class _Problem(msgspec.Struct):
    """A problem document, as much of it as is needed."""

    detail: str
    code: str
    hint: str = ""
    exit_code: int = int(Exit.FAILED)
    fields: dict[str, int | str] = {}
    errors: tuple[FieldErrorView, ...] = ()


def refused(status: int, body: bytes) -> Refused:
    """Return what is raised where the daemon answered that something is wrong."""
    try:
        said = msgspec.json.decode(body, type=_Problem)
    except msgspec.MsgspecError:
        return Refused(Failure("daemon-failed", f"The daemon answered with HTTP status {status}."))
    return Refused(
        Failure(said.code, said.detail, said.hint, said.exit_code, said.fields, said.errors)
    )


def as_ours(error: OSError) -> SystemFailed:
    """Return an error of the operating system as one of ours."""
    about = "" if error.filename is None else f": {error.filename!r}"
    return SystemFailed(f"{error.strerror or error}{about}")


def job_exit(job: JobView) -> int:
    """Return the exit code that says how a job has ended."""
    match job.result or job.state:
        case "ok" | "nothing":
            return int(Exit.OK)
        case "warnings":
            return int(Exit.WARNINGS)
        case "cancelled":
            return int(Exit.CANCELLED)
    return int(_EXITS.get(job.code, Exit.FAILED))


def _kinds(kind: type[BabysitterError]) -> Iterator[type[BabysitterError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


_EXITS = {kind.code: kind.exit_code for kind in _kinds(BabysitterError)}
