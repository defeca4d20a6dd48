"""The way of pages to the daemon: real PHP, the real daemon, and what may not be asked for."""

import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.php import Web, php
from tests.support.unraid_host import REPOSITORY, UnraidHost

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
ODD_NAMES = ("<script>alert(1)</script>", "a b/../c?x=1&y#z", "日本 ü ' \" $(touch x)", "-x\\n%2e")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnraidHost]:
    host = UnraidHost(tmp_path_factory.mktemp("b") / "r")
    host.array("Started")
    with host.disks():
        assert host.rc("start").code == 0
        host.answers()
        (host.pool / "backups").mkdir()
        host.api.configure(store={"path": str(host.pool / "backups")})
        yield host
        host.rc("stop")


@pytest.fixture(scope="module")
def web(host: UnraidHost) -> Iterator[Web]:
    with php(host) as web:
        yield web


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[UnraidHost, Web]]:
    """A server on which no daemon runs."""
    host = UnraidHost(tmp_path / "r")
    host.array("Started")
    with php(host) as web:
        yield host, web


@pytest.mark.parametrize("path", ["/status", "/system", "/settings", "/schedules", "/jobs?limit=5"])
def test_a_page_gets_what_it_needs(host: UnraidHost, web: Web, path: str) -> None:
    got = web.ask("GET", path)
    assert got.status == 200
    assert type(got.json) is type(host.api.get(path))
    assert got.headers["content-type"].startswith("application/json")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("verb", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_only_posts_are_served(web: Web, verb: str) -> None:
    # The webGUI asks for its token in POSTs only.
    got = web.request(
        verb, "/plugins/vm-babysitter/include/api.php?method=POST&path=/daemon/start", None
    )
    assert got.status == 405
    assert got.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/vms"),
        ("GET", "/points"),
        ("POST", "/status"),
        ("PUT", "/settings"),
        ("DELETE", "/jobs/1"),
        ("get", "/status"),
        ("GET ", "/status"),
        ("GET", "/status\n"),
        ("GET", "/status "),
        ("GET", "status"),
        ("GET", "//status"),
        ("GET", "/../status"),
        ("GET", "/jobs/1/../../metrics"),
        ("GET", "/jobs/1/log?offset=0&limit=9"),
        ("GET", "/jobs/%31"),
        ("GET", "/jobs?limit=1&state=failed"),
        ("GET", "/status?x"),
        ("GET", "/status#x"),
        ("GET", "/status\r\nX: y"),
        ("GET\r\nX: y", "/status"),
        ("POST", "/jobs/0/cancel"),
        ("POST", "/jobs/٣/cancel"),
        ("GET", "@evil.example/status"),
        ("GET", ""),
        ("", "/status"),
    ],
)
def test_nothing_else_passes(web: Web, method: str, path: str) -> None:
    got = web.ask(method, path)
    assert (got.status, got.json["code"]) == (403, "not-allowed")


@pytest.mark.parametrize(
    "order",
    [
        {"kind": "release", "vm": "x"},
        {"kind": "repair", "vm": "x", "options": {"remove_lost": True}},
        {"kind": "restore", "vm": "x", "options": {"point": "latest", "to": "/mnt/x"}},
        {"kind": "convert", "vm": "x", "options": {"disk": "vda"}},
        {"vm": "x"},
        {"kind": ["backup"], "vm": "x"},
        [{"kind": "backup", "vm": "x"}],
        '{"kind": "backup", "vm": "x", "kind": "release"}',
        '{"kind": "backup", "vm": "x", "\\u006bind": "release"}',
        "{",
        "",
    ],
)
def test_pages_order_nothing_but_backups(web: Web, order: object) -> None:
    got = web.ask("POST", "/jobs", order)
    assert (got.status, got.json["code"]) == (403, "not-allowed")


@pytest.mark.parametrize("field", ["method[]", "path[]", "body[]", "if_match[x]"])
def test_a_field_that_is_a_table_is_refused(web: Web, field: str) -> None:
    fields = {"method": "GET", "path": "/status", "body": "", "if_match": ""}
    fields.pop(re.sub(r"\[.*", "", field))
    got = web.request("POST", fields=[*fields.items(), (field, "x")])
    assert got.status == 400


def test_what_is_too_large_is_refused(web: Web) -> None:
    assert web.ask("POST", "/settings/check", "x" * (256 * 1024)).status == 400, "it arrived"
    assert web.ask("POST", "/settings/check", "x" * (256 * 1024 + 1)).status == 413


@pytest.mark.parametrize("match", ["*", "x", '"x"\r\nHost: y', '"x", "y"', 'W/"x"'])
def test_only_a_tag_may_be_named(web: Web, match: str) -> None:
    assert web.ask("POST", "/settings", {}, match).status == 400


def test_settings_are_changed_and_what_is_wrong_is_told(host: UnraidHost, web: Web) -> None:
    old = web.ask("GET", "/settings").json
    new = {**old["settings"], "schedules": [{"name": "Backup", "when": "30 2 * * *"}]}
    assert web.ask("POST", "/settings", new).status == 428, "no tag"
    saved = web.ask("POST", "/settings", new, f'"{old["tag"]}"')
    assert saved.status == 200
    assert web.ask("POST", "/settings", new, f'"{old["tag"]}"').status == 412
    assert [each["words"] for each in web.ask("GET", "/schedules").json] == ["every day at 02:30"]
    wrong = {**new, "store": {"path": "here"}}
    refused = web.ask("POST", "/settings", wrong, f'"{saved.json["tag"]}"')
    assert refused.status == 422
    assert [error["path"] for error in refused.json["errors"]] == ["store.path"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_vms_may_be_called_anything(host: UnraidHost, web: Web, name: str) -> None:
    old = web.ask("GET", "/settings").json
    new = {**old["settings"], "vms": {"ignored": [name]}}
    assert web.ask("POST", "/settings", new, f'"{old["tag"]}"').status == 200
    assert web.ask("GET", "/settings").json["settings"]["vms"] == {"ignored": [name]}
    assert host.api.get("/settings")["settings"]["vms"] == {"ignored": [name]}
    order = {"kind": "backup", "vm": name}
    got = web.ask("POST", "/jobs", order)
    assert got.json == host.api.call("POST", "/jobs", order, expect=got.status)
    assert not (host.root / "x").exists()


def test_what_is_no_json_is_refused_by_the_daemon(web: Web) -> None:
    assert web.ask("POST", "/settings/check", "{").status == 400
    assert web.ask("POST", "/settings/check", b"\xff\x00".decode("latin-1")).status == 400


def test_no_daemon(alone: tuple[UnraidHost, Web]) -> None:
    _, web = alone
    got = web.ask("GET", "/status")
    assert got.status == 502
    assert got.json["code"] == "daemon-down"
    assert "does not run, so no VM is backed up" in got.json["detail"]
    assert got.headers["x-content-type-options"] == "nosniff"


def test_a_daemon_that_speaks_no_http(alone: tuple[UnraidHost, Web]) -> None:
    host, web = alone
    host.api.socket.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(host.api.socket))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            connection.recv(65536)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        assert web.ask("GET", "/status").status == 502
        thread.join(20)


def test_the_self_check_says_why(alone: tuple[UnraidHost, Web]) -> None:
    host, web = alone
    found = web.ask("GET", "/self-check").json
    assert not found["running"]
    checks = {check["name"]: check for check in found["checks"]}
    assert list(checks) == ["python", "libvirt", "socket", "state", "settings"]
    assert {check["state"] for check in checks.values()} <= {"ok", "waits", "warning", "failed"}
    assert checks["python"]["state"] == "ok", checks["python"]
    assert checks["libvirt"]["state"] == "waits"
    assert checks["state"]["state"] == "failed"
    assert 'There is no share "system"' in checks["state"]["text"]
    host.array("Stopped")
    assert "Start the array" in web.ask("GET", "/self-check").text


def test_a_python_that_does_not_start_is_told(alone: tuple[UnraidHost, Web]) -> None:
    host, web = alone
    host.have_program(
        "#!/bin/bash\necho 'Traceback…' >&2\necho 'ImportError: <b>no</b>' >&2\nexit 1\n"
    )
    (python, *_) = web.ask("GET", "/self-check").json["checks"]
    assert python["state"] == "failed"
    assert python["text"] == "The program does not start: ImportError: <b>no</b>."
    (host.root / "usr/local/sbin/vm-babysitter").unlink()
    (python, *_) = web.ask("GET", "/self-check").json["checks"]
    assert "not installed completely" in python["text"]


def test_the_page_starts_the_daemon(tmp_path: Path) -> None:
    host = UnraidHost(tmp_path / "r")
    host.array("Started")
    with php(host) as web:
        refused = web.ask("POST", "/daemon/start").json
        assert not refused["started"]
        assert refused["said"].startswith("Not started. There is no share")
        with host.disks():
            assert web.ask("POST", "/daemon/start").json["started"]
            assert web.ask("GET", "/status").status == 200
            assert web.ask("GET", "/self-check").json["running"]
            host.rc("stop")


PHP = sorted((REPOSITORY / "webgui").rglob("*.php"))


def test_pages_are_what_the_webgui_takes_for_pages() -> None:
    (page,) = (REPOSITORY / "webgui").glob("*.page")
    header, mark, body = page.read_text().partition("\n---\n")
    assert mark
    keys = dict(line.split("=", 1) for line in header.splitlines())
    assert keys["Menu"] == '"Utilities"'
    images = REPOSITORY / "plugin/usr/local/emhttp/plugins/vm-babysitter/images"
    assert (images / keys["Icon"].strip('"')).is_file()
    included = re.findall(r"plugins/vm-babysitter/(\S+\.php)", body)
    assert [(REPOSITORY / "webgui" / name).is_file() for name in included] == [True]


@pytest.mark.parametrize("file", PHP, ids=lambda file: file.name)
def test_pages_name_files_that_are_there(file: Path) -> None:
    for name in re.findall(r"\('/plugins/vm-babysitter/([\w./-]+)", file.read_text()):
        assert (REPOSITORY / "webgui" / name).is_file(), name


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "webgui/js").iterdir()), ids=lambda file: file.name
)
def test_what_comes_from_outside_is_never_markup(file: Path) -> None:
    script = file.read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\.html\(|eval\(", script
    )
