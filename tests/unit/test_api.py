"""The API: what is asked of the daemon, and how answers and mistakes look."""

import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from openapi_spec_validator import validate
from werkzeug.test import TestResponse

from tests.support.fakes.services import NAME, FakeServices
from tests.unit.test_errors import ERRORS, make
from vm_babysitter.api.app import create_app
from vm_babysitter.api.problems import status_of
from vm_babysitter.domain.errors import BabysitterError, Busy, HypervisorUnreachable
from vm_babysitter.domain.job import JobKind, JobState

V1 = "/api/v1"
ODD_PATHS = [
    "/api/v1/vms/..%2f..%2fetc%2fpasswd",
    "/api/v1/vms/../../../etc/passwd",
    "/api/v1/vms//plan",
    "/api/v1/vms/%00",
    "/api/v1/vms/a%0ab",
    "/api/v1/vms/" + "x" * 300,
    "/api/v1/vms/%ff%fe/plan/more",
    "/api/v1/jobs/0",
    "/api/v1/jobs/-1",
    "/api/v1/jobs/1e3",
    "/api/v1/jobs/9007199254740992",
    "/api/v1/jobs/99999999999999999999999999",
    "/api/v1/jobs/٣",
    "/api/v1/nothing",
    "/static/app.py",
    "//",
    "/",
]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> FakeServices:
    return FakeServices.around(tmp_path_factory.mktemp("store"))


@pytest.fixture
def services(shown: FakeServices) -> FakeServices:
    return shown.anew()


@pytest.fixture
def client(services: FakeServices) -> FlaskClient:
    return create_app(services).test_client()


def problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Judge that a response is a problem as RFC 9457 has it; return it."""
    found = json.loads(response.data)
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    assert (found["status"], found["code"]) == (status, code)
    assert found["type"] == f"urn:vm-babysitter:problem:{code}"
    assert found["title"]
    assert found["detail"]
    return dict(found)


# --- reading


@pytest.mark.parametrize(
    "path",
    [
        "/vms",
        "/vms/{vm}",
        "/vms/{vm}/health",
        "/vms/{vm}/plan",
        "/vms/{vm}/chains",
        "/vms/{vm}/points",
        "/points",
        "/health",
        "/jobs",
        "/jobs/1",
        "/jobs/1/progress",
        "/jobs/1/log",
        "/status",
        "/system",
        "/events",
        "/settings",
        "/schedules",
        "/openapi.json",
    ],
)
def test_everything_that_can_be_read_is_json_that_nobody_keeps(
    client: FlaskClient, services: FakeServices, path: str
) -> None:
    services.submit(JobKind.BACKUP, NAME, {})
    for vm in (services.uuid, NAME):
        response = client.get(V1 + path.format(vm=vm))
        assert (response.status_code, response.mimetype) == (200, "application/json")
        assert response.json
        assert response.headers["Cache-Control"] == "no-store"
        assert client.head(V1 + path.format(vm=vm)).status_code == 200


def test_answers_have_the_shape_of_json_on_the_command_line(
    client: FlaskClient, services: FakeServices
) -> None:
    plan = client.get(f"{V1}/vms/{services.uuid}/plan?full=true").json
    assert plan is not None
    assert ("plan", services.uuid, True, False) in services.asked
    assert plan["disks"][0]["method"] == "bitmap"
    assert "unchanged_since" not in plan
    assert plan["diagnosis"]["health"] == "good"
    points = client.get(f"{V1}/points").json
    assert [p["manifest"]["seq"] for p in points or ()] == [0, 1]


def test_a_name_that_is_not_utf_8_breaks_no_reader(
    client: FlaskClient, services: FakeServices
) -> None:
    broken = type(services.health_view)
    values = {name: getattr(services.health_view, name) for name in broken.__slots__}
    services.health_view = broken(**{**values, "lost": ("a\udc80\ud83d",)})
    text = client.get(f"{V1}/health").data.decode()
    assert json.loads(text)[0]["lost"] == ["a\ufffd\ufffd"]


def test_metrics_are_what_prometheus_reads(client: FlaskClient) -> None:
    response = client.get(f"{V1}/metrics")
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert response.data.decode().splitlines() == [
        "# HELP vm_babysitter_age_seconds Age\\nof",
        "# TYPE vm_babysitter_age_seconds gauge",
        'vm_babysitter_age_seconds{vm="it\'s a \\"{VM}\\" 猫"} 1.5',
        'vm_babysitter_age_seconds{vm="?\\n"} 2',
        "# HELP vm_babysitter_jobs_total Jobs.",
        "# TYPE vm_babysitter_jobs_total counter",
        "vm_babysitter_jobs_total 3",
    ]


def test_lists_are_narrowed_by_the_query(client: FlaskClient, services: FakeServices) -> None:
    query = f"vm={services.uuid}&state=queued&state=running&limit=3&before=9"
    assert client.get(f"{V1}/jobs?{query}").status_code == 200
    wanted = (JobState.QUEUED, JobState.RUNNING)
    assert client.get(f"{V1}/jobs").status_code == 200
    assert client.get(f"{V1}/events?vm=null&job=1").status_code == 200
    assert services.asked == [
        ("jobs", services.uuid, wanted, 3, 9),
        ("jobs", None, (), 50, None),
        ("events", "null", 1, 50),
    ]


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ("stat=running", ["stat"]),
        ("state=runing", ["state"]),
        ("limit=0", ["limit"]),
        ("limit=501", ["limit"]),
        ("limit=1&limit=2", ["limit"]),
        ("limit=", ["limit"]),
        ("limit=%201", ["limit"]),
        ("limit=1e1", ["limit"]),
        ("limit=٣", ["limit"]),
        ("limit=" + "9" * 4000, ["limit"]),
        ("before=9007199254740992", ["before"]),
        ("vm=", ["vm"]),
        ("vm=a%00b", ["vm"]),
        ("vm=a%0a", ["vm"]),
        ("limit=x&before=y", ["limit", "before"]),
    ],
)
def test_a_query_that_is_wrong_is_told_all_at_once(
    client: FlaskClient, query: str, paths: list[str]
) -> None:
    found = problem(client.get(f"{V1}/jobs?{query}"), 422, "invalid-input")
    assert [error["path"] for error in found["errors"]] == paths
    assert all(len(error["value"]) < 100 for error in found["errors"])


@pytest.mark.parametrize("value", ["True", "1", "yes", "", "null"])
def test_a_yes_or_no_is_true_or_false(
    client: FlaskClient, services: FakeServices, value: str
) -> None:
    problem(client.get(f"{V1}/vms/{services.uuid}/plan?full={value}"), 422, "invalid-input")


def test_a_log_is_read_piece_by_piece(client: FlaskClient, services: FakeServices) -> None:
    services.submit(JobKind.BACKUP, NAME, {})
    first = client.get(f"{V1}/jobs/1/log?limit=9").json or {}
    assert (first["text"], first["complete"]) == ("line one\n", False)
    second = client.get(f"{V1}/jobs/1/log?offset={first['next_offset']}").json or {}
    assert (second["text"], second["complete"]) == ("übung\n", True)
    problem(client.get(f"{V1}/jobs/1/log?limit=1048577"), 422, "invalid-input")
    problem(client.get(f"{V1}/jobs/2/log"), 404, "job-not-found")


# --- what is wrong


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.code)
def test_every_error_of_ours_is_a_problem_with_what_the_command_line_needs(
    client: FlaskClient, services: FakeServices, kind: type[BabysitterError]
) -> None:
    services.error = error = make(kind, "naïve 猫")
    found = problem(client.get(f"{V1}/vms"), int(status_of(error)), error.code)
    assert found["detail"] == error.message
    assert found["hint"] == error.hint
    assert found["exit_code"] == int(error.exit_code)
    assert found["fields"] == error.fields
    assert found["status"] >= 400
    assert found["status"] != 500, "that is what a bug is"


def test_statuses_say_whose_turn_it_is() -> None:
    found = {kind.code: int(status_of(make(kind, "x"))) for kind in ERRORS}
    assert (
        found
        | {
            "invalid-input": 422,
            "vm-not-found": 404,
            "job-not-found": 404,
            "busy": 409,
            "damaged": 409,
            "settings-changed": 412,
            "hypervisor-unreachable": 503,
            "hypervisor-error": 502,
            "not-enough-space": 507,
        }
        == found
    )


def test_a_bug_is_told_without_its_insides_and_logged_with_them(
    client: FlaskClient, services: FakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    services.error = RuntimeError("secret 7")
    response = client.get(f"{V1}/vms")
    problem(response, 500, "bug")
    assert b"secret" not in response.data
    assert "secret 7" in caplog.text
    services.error = None
    assert client.get(f"{V1}/vms").status_code == 200


@pytest.mark.parametrize("path", ODD_PATHS)
def test_odd_paths_lead_nowhere(client: FlaskClient, services: FakeServices, path: str) -> None:
    problem(client.get(path), 404, "not-found")
    assert services.asked == []


@pytest.mark.parametrize("vm", ["..", ".", "-x", "%2e%2e", "a b", "%F0%9F%90%88", "%ff", "x" * 256])
def test_any_other_text_is_looked_up_as_a_name(
    client: FlaskClient, services: FakeServices, vm: str
) -> None:
    problem(client.get(f"{V1}/vms/{vm}"), 404, "vm-not-found")
    assert len(services.asked) == 1


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_refused_and_the_right_ones_named(
    client: FlaskClient, method: str
) -> None:
    response = client.open(f"{V1}/jobs", method=method)
    problem(response, 405, "method-not-allowed")
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert client.post(f"{V1}/vms").status_code == 405


# --- orders

ORDERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"kind": "backup"}, {}),
    ({"kind": "backup", "options": {"full": False}}, {}),
    (
        {"kind": "backup", "options": {"full": True, "compress": False, "limit": 65536}},
        {"full": True, "compress": False, "limit": 65536},
    ),
    ({"kind": "verify"}, {}),
    (
        {"kind": "verify", "options": {"point": "latest", "structure": True}},
        {"point": "latest", "structure": True},
    ),
    ({"kind": "repair"}, {}),
    ({"kind": "release"}, {}),
    ({"kind": "release", "options": {"any_folder": True}}, {"any_folder": True}),
    (
        {
            "kind": "restore",
            "options": {"point": "c/000001", "to": "/mnt/x y", "disks": ["vda"], "format": "raw"},
        },
        {"point": "c/000001", "to": "/mnt/x y", "disks": ["vda"], "format": "raw"},
    ),
    (
        {"kind": "convert", "options": {"disk": "vda", "undo": True, "lose_changes": True}},
        {"disk": "vda", "undo": True, "lose_changes": True},
    ),
]


@pytest.mark.parametrize(("order", "options"), ORDERS)
def test_an_order_becomes_a_job(
    client: FlaskClient, services: FakeServices, order: dict[str, Any], options: dict[str, Any]
) -> None:
    response = client.post(f"{V1}/jobs", json={"vm": NAME, **order})
    assert response.status_code == 202
    assert ("submit", JobKind(order["kind"]), NAME, options) in services.asked
    made = response.json or {}
    assert (made["kind"], made["uuid"], made["state"]) == (order["kind"], services.uuid, "queued")
    assert made["options"] == options
    location = response.headers["Location"]
    assert location == f"{V1}/jobs/1"
    assert client.get(location).json == made
    cancelled = client.post(f"{location}/cancel")
    assert cancelled.status_code == 202
    assert (cancelled.json or {})["state"] == "cancelled"


@pytest.mark.parametrize(
    ("order", "paths"),
    [
        ({}, ["kind"]),
        ({"kind": "format"}, ["kind"]),
        ({"kind": ["backup"]}, ["kind"]),
        ({"kind": "backup"}, ["vm"]),
        ({"kind": "backup", "vm": ""}, ["vm"]),
        ({"kind": "backup", "vm": 7}, ["vm"]),
        ({"kind": "backup", "vm": "a\n"}, ["vm"]),
        ({"kind": "backup", "vm": "a\0"}, ["vm"]),
        ({"kind": "backup", "vm": "x" * 257}, ["vm"]),
        ({"kind": "backup", "vm": "x", "extra": 1}, ["extra"]),
        ({"kind": "backup", "vm": "x", "options": []}, ["options"]),
        ({"kind": "backup", "vm": "x", "options": {"full": "yes"}}, ["options.full"]),
        ({"kind": "backup", "vm": "x", "options": {"full": 1}}, ["options.full"]),
        ({"kind": "backup", "vm": "x", "options": {"limit": 1}}, ["options.limit"]),
        ({"kind": "backup", "vm": "x", "options": {"limit": None}}, ["options.limit"]),
        ({"kind": "backup", "vm": "x", "options": {"remove_lost": True}}, ["options.remove_lost"]),
        (
            {"kind": "backup", "options": {"full": 1, "limit": "5M", "x": 0}},
            ["options.full", "options.limit", "options.x", "vm"],
        ),
        ({"kind": "restore", "vm": "x"}, ["options"]),
        ({"kind": "restore", "vm": "x", "options": {}}, ["options.point", "options.to"]),
        (
            {"kind": "restore", "vm": "x", "options": {"point": "../x", "to": "x"}},
            ["options.point", "options.to"],
        ),
        (
            {
                "kind": "restore",
                "vm": "x",
                "options": {"point": "latest", "to": "/x\0", "disks": ["../vda"], "format": "vmdk"},
            },
            ["options.to", "options.disks", "options.format"],
        ),
        (
            {"kind": "convert", "vm": "x", "options": {"disk": "vda", "lose_changes": True}},
            ["options.lose_changes"],
        ),
    ],
)
def test_an_order_that_is_wrong_is_told_all_at_once(
    client: FlaskClient, services: FakeServices, order: dict[str, Any], paths: list[str]
) -> None:
    found = problem(client.post(f"{V1}/jobs", json=order), 422, "invalid-input")
    assert sorted(error["path"] for error in found["errors"]) == sorted(paths)
    assert found["exit_code"] == 2
    assert services.taken == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed"),
        (b"{", 400, "malformed"),
        (b"\xff", 400, "malformed"),
        (b'{"kind":"\xff"}', 400, "malformed"),
        (b'{"vm":"\\ud800"}', 400, "malformed"),
        (b"[" * 100_000, 400, "malformed"),
        (b"NaN", 400, "malformed"),
        (b'{"vm":1e999}', 400, "malformed"),
        (b"[]", 422, "invalid-input"),
        (b"null", 422, "invalid-input"),
        (b'"x"', 422, "invalid-input"),
        (b"1" * 5000, 400, "malformed"),
        (b'{"' + b"x" * 100_000 + b'":1}', 422, "invalid-input"),
        (b" " * ((1 << 20) + 1), 413, "request-entity-too-large"),
    ],
)
@pytest.mark.parametrize("path", ["jobs", "settings/check"])
def test_bodies_of_nonsense_are_told(
    client: FlaskClient, services: FakeServices, path: str, body: bytes, status: int, code: str
) -> None:
    if path == "settings/check" and b"x" * 9 in body:
        status = 200
    response = client.post(f"{V1}/{path}", data=body, content_type="application/json")
    if status == 200:
        assert response.status_code == 200
        return
    problem(response, status, code)
    assert len(response.data) < 2000
    assert services.asked == []


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "a/b/c"])
def test_a_body_that_is_not_called_json_is_refused(client: FlaskClient, kind: str) -> None:
    response = client.post(f"{V1}/jobs", data=b"{}", content_type=kind)
    problem(response, 415, "unsupported-media-type")


def test_a_job_for_nobody_and_a_busy_daemon(client: FlaskClient, services: FakeServices) -> None:
    order = {"kind": "backup", "vm": "nobody"}
    assert problem(client.post(f"{V1}/jobs", json=order), 404, "vm-not-found")["exit_code"] == 10
    services.error = Busy("VM 'x'", "it moves")
    assert problem(client.post(f"{V1}/jobs", json=order), 409, "busy")["exit_code"] == 11
    services.error = HypervisorUnreachable("qemu:///system", "gone")
    problem(client.get(f"{V1}/status"), 503, "hypervisor-unreachable")


# --- settings


def test_settings_are_saved_if_nobody_changed_them_meanwhile(
    client: FlaskClient, services: FakeServices
) -> None:
    first = client.get(f"{V1}/settings")
    tag = first.headers["ETag"]
    assert (first.json or {})["tag"] == tag.strip('"')
    new = {"version": 1, "more": "é"}
    saved = client.post(f"{V1}/settings", json=new, headers={"If-Match": tag})
    assert saved.status_code == 200
    assert (saved.json or {})["settings"] == services.raw == new
    assert (saved.json or {})["notes"] == [{"path": "more", "text": "is unknown"}]
    assert saved.headers["ETag"] == client.get(f"{V1}/settings").headers["ETag"] != tag
    late = client.post(f"{V1}/settings", json={}, headers={"If-Match": tag})
    problem(late, 412, "settings-changed")
    assert services.raw == new
    forced = client.post(f"{V1}/settings", json={"version": 1}, headers={"If-Match": "*"})
    assert forced.status_code == 200
    assert services.asked[-1] == ("save", None)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 428, "precondition-required"),
        ({"If-Match": ""}, 412, "precondition-failed"),
        ({"If-Match": '"a", "b"'}, 412, "precondition-failed"),
        ({"If-Match": "W/{tag}"}, 412, "precondition-failed"),
        ({"If-Match": '"old"'}, 412, "settings-changed"),
    ],
)
def test_settings_are_not_saved_without_saying_which_are_changed(
    client: FlaskClient, services: FakeServices, headers: dict[str, str], status: int, code: str
) -> None:
    given = {name: value.format(tag=f'"{services.tag}"') for name, value in headers.items()}
    response = client.post(f"{V1}/settings", json={"version": 2}, headers=given)
    problem(response, status, code)
    assert services.raw == {"version": 1}


def test_all_that_is_wrong_with_settings_is_told(
    client: FlaskClient, services: FakeServices
) -> None:
    headers = {"If-Match": f'"{services.tag}"'}
    refused = client.post(f"{V1}/settings", json={"bad": 1}, headers=headers)
    errors = problem(refused, 422, "invalid-input")["errors"]
    assert [(e["path"], e["rule"]) for e in errors] == [
        ("bad.0", "must be good"),
        ("bad.1", "must be good"),
    ]
    assert services.raw == {"version": 1}
    checked = client.post(f"{V1}/settings/check", json={"bad": 1})
    assert (checked.status_code, (checked.json or {})["errors"]) == (200, errors)


# --- the description


def test_the_description_is_valid_and_names_every_operation(
    client: FlaskClient, services: FakeServices
) -> None:
    document = client.get(f"{V1}/openapi.json").json
    assert document is not None
    validate(document)
    app = create_app(services)
    served = {
        (str(rule).replace("<name:", "{").replace("<number:", "{").replace(">", "}"), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
        if not str(rule).endswith("openapi.json")
    }
    told = {
        (V1 + path, method.upper())
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert told == served
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"].endswith(".")
    referred = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert referred == set(document["components"]["schemas"])
