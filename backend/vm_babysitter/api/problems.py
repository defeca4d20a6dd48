"""Problems: what the API answers when something is wrong (RFC 9457)."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from vm_babysitter.domain.errors import BabysitterError, Exit
from vm_babysitter.views import FieldErrorView, as_json

CONTENT_TYPE = "application/problem+json"
TYPE = "urn:vm-babysitter:problem:"
_log = logging.getLogger(__name__)
_BY_CODE = {
    "hypervisor-missing": HTTPStatus.SERVICE_UNAVAILABLE,
    "hypervisor-unreachable": HTTPStatus.SERVICE_UNAVAILABLE,
    "invalid-settings": HTTPStatus.CONFLICT,
    "not-enough-space": HTTPStatus.INSUFFICIENT_STORAGE,
    "settings-changed": HTTPStatus.PRECONDITION_FAILED,
    "store-away": HTTPStatus.SERVICE_UNAVAILABLE,
    "store-not-set-up": HTTPStatus.SERVICE_UNAVAILABLE,
    "store-refused": HTTPStatus.SERVICE_UNAVAILABLE,
    "store-taken": HTTPStatus.CONFLICT,
    "vm-not-eligible": HTTPStatus.CONFLICT,
}
_WORDS = {
    HTTPStatus.NOT_FOUND: "There is nothing at this path.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This cannot be done at this path.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body of the request is too large.",
}
_BY_EXIT = {
    Exit.USAGE: HTTPStatus.UNPROCESSABLE_ENTITY,
    Exit.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Exit.BUSY: HTTPStatus.CONFLICT,
    Exit.INTEGRITY: HTTPStatus.CONFLICT,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong."""

    type: str
    """``urn:vm-babysitter:problem:`` and the code."""
    title: str
    """The same for every problem of that code."""
    status: int
    detail: str
    """What is wrong this time, in a sentence."""
    code: str
    hint: str = ""
    """What to do about it; empty where nothing is to be said."""
    exit_code: int = int(Exit.FAILED)
    """What the command line ends with because of it."""
    fields: dict[str, str | int] = field(default_factory=dict)
    """What the sentence is made from."""
    errors: tuple[FieldErrorView, ...] = ()
    """Each value that breaks a rule, with its path."""


class Refused(Exception):
    """A request is not served; carries the problem that is the answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def refused(
    status: HTTPStatus,
    code: str,
    detail: str,
    hint: str = "",
    errors: Sequence[FieldErrorView] = (),
) -> Refused:
    """Return what is raised where a request is wrong in itself."""
    exit_code = int(Exit.USAGE if status < HTTPStatus.INTERNAL_SERVER_ERROR else Exit.FAILED)
    title = status.phrase
    found = Problem(
        TYPE + code, title, int(status), detail, code, hint, exit_code, errors=tuple(errors)
    )
    return Refused(found)


def problem_of(error: BabysitterError) -> Problem:
    """Return an error of ours as a problem."""
    title = (inspect.getdoc(type(error)) or error.code).split("\n")[0].rstrip(".")
    return Problem(
        type=TYPE + error.code,
        title=title,
        status=int(status_of(error)),
        detail=error.message,
        code=error.code,
        hint=error.hint,
        exit_code=int(error.exit_code),
        fields={k: v if isinstance(v, int | str) else str(v) for k, v in error.fields.items()},
    )


def status_of(error: BabysitterError) -> HTTPStatus:
    """Return the HTTP status of an error of ours.

    What is neither the client's mistake nor a conflict is the failure of something that we
    depend on: an image, a program, libvirt. A 500 is always a bug.
    """
    found = _BY_CODE.get(error.code) or _BY_EXIT.get(error.exit_code)
    return found or HTTPStatus.BAD_GATEWAY


def answer(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem as the answer to a request."""
    response = Response(as_json(problem), problem.status, content_type=CONTENT_TYPE)
    response.headers.extend(headers or {})
    return response


def install(app: Flask) -> None:
    """Have all that goes wrong answered with a problem."""
    app.register_error_handler(Refused, lambda error: answer(error.problem))
    app.register_error_handler(BabysitterError, lambda error: answer(problem_of(error)))
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _bug)


def _http(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    code = status.phrase.lower().replace(" ", "-")
    detail = _WORDS.get(status) or error.description or status.phrase
    found = refused(status, code, detail)
    kept = {name: value for name, value in error.get_headers() if name in {"Allow", "Retry-After"}}
    return answer(found.problem, kept)


def _bug(error: Exception) -> Response:
    _log.error("a request failed because of a bug", exc_info=error)
    detail = "The daemon failed to answer. Its log says more."
    hint = "Please report it, with the log."
    return answer(refused(HTTPStatus.INTERNAL_SERVER_ERROR, "bug", detail, hint).problem)
