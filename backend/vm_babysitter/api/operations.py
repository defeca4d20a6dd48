"""Operations: a path and a method, what they take and return. Flask and OpenAPI are told both."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from vm_babysitter.api.problems import refused
from vm_babysitter.api.reading import read_body, read_query
from vm_babysitter.views import as_json

JSON = "application/json"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""The text format of Prometheus."""
Handler = Callable[..., Any]
_CONVERTERS = {"vm": "name", "job": "number"}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with headers of its own."""

    document: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that the API does."""

    method: str
    path: str
    """As OpenAPI has it: ``/vms/{vm}/plan``."""
    handler: Handler
    """Takes what is in the path, and ``query``, ``body`` and ``if_match`` where it has them."""
    returns: Any
    """The type of the document; None for plain text."""
    status: HTTPStatus = HTTPStatus.OK
    query: Any = None
    """A Struct type, or None."""
    body: Any = None
    """A type, or None."""
    if_match: bool = False
    """Whether it says in a header what version it changes."""
    sends: Mapping[str, str] = field(default_factory=dict)
    """Headers of the answer, with what they mean."""

    @property
    def name(self) -> str:
        """What it is called in Flask and OpenAPI."""
        return self.handler.__name__

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        return (inspect.getdoc(self.handler) or "").split("\n")[0]

    @property
    def description(self) -> str:
        """What else is to be known of it."""
        _, _, more = (inspect.getdoc(self.handler) or "").partition("\n\n")
        return more

    def call(self, **in_path: Any) -> Response:
        """Serve a request."""
        taken = dict(in_path)
        query = read_query(request.args, self.query or _NoQuery)
        if self.query is not None:
            taken["query"] = query
        if self.body is not None:
            taken["body"] = read_body(_json_body(), self.body)
        if self.if_match:  # last: RFC 9110 has what is wrong anyway told first
            taken["if_match"] = _wanted_version()
        found = self.handler(**taken)
        reply = found if isinstance(found, Reply) else Reply(found, {})
        if self.returns is None:
            response = Response(reply.document, self.status, content_type=TEXT)
        else:
            response = Response(as_json(reply.document), self.status, content_type=JSON)
        response.headers.extend(reply.headers)
        return response


class Routes:
    """A blueprint and its operations."""

    def __init__(self, name: str) -> None:
        self.blueprint = Blueprint(name, __name__)
        self.operations: list[Operation] = []

    def get(self, path: str, returns: Any, **more: Any) -> Callable[[Handler], Handler]:
        """Register what answers a GET; ``more`` are fields of ``Operation``."""
        return self._add("GET", path, returns, more)

    def post(self, path: str, returns: Any, **more: Any) -> Callable[[Handler], Handler]:
        """Register what answers a POST; ``more`` are fields of ``Operation``."""
        return self._add("POST", path, returns, more)

    def _add(
        self, method: str, path: str, returns: Any, more: dict[str, Any]
    ) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            operation = Operation(method, path, handler, returns, **more)
            self.operations.append(operation)
            rule = re.sub(r"\{(\w+)\}", lambda m: f"<{_CONVERTERS[m[1]]}:{m[1]}>", path)
            self.blueprint.add_url_rule(
                rule,
                operation.name,
                operation.call,
                methods=[method],
                provide_automatic_options=False,
            )
            return handler

        return register


class _NoQuery(msgspec.Struct):
    """No parameters."""


def _json_body() -> bytes:
    if request.mimetype != JSON:
        detail = f"The body has to be {JSON}, it is {request.mimetype or 'of no type'}."
        raise refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
    return request.get_data(cache=False)


def _wanted_version() -> str | None:
    """Return the version that is to be changed, None for any."""
    given = request.if_match
    if "If-Match" not in request.headers:
        detail = "The header If-Match is missing: it says which version is to be changed."
        hint = "Get the settings first, and send their ETag."
        raise refused(HTTPStatus.PRECONDITION_REQUIRED, "precondition-required", detail, hint)
    if given.star_tag:
        return None
    tags = list(given.as_set())
    if len(tags) != 1:
        detail = "The header If-Match has to be the ETag of the settings, in quotes."
        raise refused(HTTPStatus.PRECONDITION_FAILED, "precondition-failed", detail)
    return tags[0]
