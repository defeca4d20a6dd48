"""The OpenAPI document, made from the operations and their types."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vm_babysitter import __version__
from vm_babysitter.api.operations import JSON, Operation
from vm_babysitter.api.parameters import JobNumber, VmName
from vm_babysitter.api.problems import CONTENT_TYPE, Problem

PREFIX = "/api/v1"
_REFERENCE = "#/components/schemas/{name}"
_IN_PATH: Mapping[str, Any] = {"vm": VmName, "job": JobNumber}
Document = dict[str, Any]


def openapi(operations: Sequence[Operation]) -> Document:
    """Return the document that describes these operations (OpenAPI 3.1)."""
    types = _types(operations)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, Document] = {}
    for operation in operations:
        described = _operation(operation, schema_of, components)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    for operation in operations:
        if operation.query is not None:
            components.pop(_component(schema_of[repr(operation.query)]), None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "VM Babysitter",
            "version": __version__,
            "description": "Served on a unix socket, to root only.",
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "servers": [{"url": PREFIX}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _types(operations: Sequence[Operation]) -> list[Any]:
    """Return each type once: in an answer, in a body, or in a path."""
    found = [Problem, *_IN_PATH.values()]
    for operation in operations:
        found += [t for t in (operation.returns, operation.body, operation.query) if t is not None]
    return list({repr(each): each for each in found}.values())


def _operation(
    operation: Operation, schema_of: Mapping[str, Document], components: Mapping[str, Document]
) -> Document:
    described: Document = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [
            *_in_path(operation, schema_of),
            *_in_query(operation, schema_of, components),
            *_in_headers(operation),
        ],
        "responses": _responses(operation, schema_of),
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body is not None:
        content = {JSON: {"schema": schema_of[repr(operation.body)]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _in_path(operation: Operation, schema_of: Mapping[str, Document]) -> list[Document]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": schema_of[repr(_IN_PATH[name])],
        }
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]


def _in_query(
    operation: Operation, schema_of: Mapping[str, Document], components: Mapping[str, Document]
) -> list[Document]:
    if operation.query is None:
        return []
    name = _component(schema_of[repr(operation.query)])
    return [
        {"name": key, "in": "query", "required": False, "schema": _given(schema)}
        for key, schema in components[name]["properties"].items()
    ]


def _component(schema: Document) -> str:
    """Return the name of the component that a schema refers to."""
    return str(schema["$ref"]).rpartition("/")[2]


def _given(schema: Document) -> Document:
    """Return the schema of a parameter that is there: in a query nothing is null."""
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return kinds[0] if kinds else schema


def _in_headers(operation: Operation) -> list[Document]:
    if not operation.if_match:
        return []
    return [
        {
            "name": "If-Match",
            "in": "header",
            "required": True,
            "description": "The ETag of what is changed; `*`: whatever it is now.",
            "schema": {"type": "string"},
        }
    ]


def _responses(operation: Operation, schema_of: Mapping[str, Document]) -> Document:
    if operation.returns is None:
        content: Document = {"text/plain": {"schema": {"type": "string"}}}
    else:
        content = {JSON: {"schema": schema_of[repr(operation.returns)]}}
    good: Document = {"description": operation.status.phrase, "content": content}
    if operation.sends:
        good["headers"] = {
            name: {"description": meaning, "required": True, "schema": {"type": "string"}}
            for name, meaning in operation.sends.items()
        }
    problem = {CONTENT_TYPE: {"schema": schema_of[repr(Problem)]}}
    return {
        str(int(operation.status)): good,
        "4XX": {
            "description": "The request is wrong, or cannot be served now.",
            "content": problem,
        },
        "5XX": {"description": "Something else is wrong.", "content": problem},
    }
