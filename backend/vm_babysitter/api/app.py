"""The Flask application."""

from flask import Flask, Response
from werkzeug.routing import BaseConverter, IntegerConverter

from vm_babysitter.api import problems
from vm_babysitter.api.openapi import PREFIX, openapi
from vm_babysitter.api.operations import JSON
from vm_babysitter.api.parameters import LARGEST
from vm_babysitter.api.routes import all_routes
from vm_babysitter.api.services import Services
from vm_babysitter.views import as_json

MOST_BODY = 1 << 20
"""Bytes of a request's body."""


class _Name(BaseConverter):
    """UUID or name of a VM: any text that a name can be, but for slashes.

    QEMU's driver of libvirt admits none of these in a name; whatever has one is reached by UUID.
    """

    regex = r"[^/\x00-\x1f\x7f]{1,256}"


class _Number(IntegerConverter):
    """Number of a job."""

    regex = r"[0-9]{1,16}"

    def __init__(self, *args: object) -> None:
        super().__init__(args[0], min=1, max=LARGEST)  # type: ignore[arg-type]


def create_app(services: Services) -> Flask:
    """Return the application that serves the API with these services."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BODY
    app.url_map.merge_slashes = False
    app.url_map.converters |= {"name": _Name, "number": _Number}
    problems.install(app)
    routes = all_routes(services)
    for each in routes:
        app.register_blueprint(each.blueprint, url_prefix=PREFIX)
    description = as_json(openapi([o for each in routes for o in each.operations]))

    def get_openapi() -> Response:
        return Response(description, content_type=JSON)

    app.add_url_rule(
        f"{PREFIX}/openapi.json", "openapi", get_openapi, provide_automatic_options=False
    )
    app.after_request(_careful)
    return app


def _careful(response: Response) -> Response:
    """Have nobody keep an answer, or guess at its type."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response
