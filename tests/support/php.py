"""A web server that runs the plugin's PHP, without the webGUI around it."""

import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tests.support.unraid_host import UnraidHost

_BRIDGE = "/plugins/vm-babysitter/include/api.php"
PAGE = "/Settings/VMBabysitter.php"
_PAGE = """<?php $docroot = $_SERVER['DOCUMENT_ROOT']; function autov($file) { echo $file; } ?>
<!doctype html><meta charset="utf-8"><title>VM Babysitter</title>
<style>html { font-size: 62.5%; } body { font-family: sans-serif; margin: 2rem; }</style>
<script>var csrf_token = "token";</script>
<?php include "$docroot/plugins/vm-babysitter/include/page.php"; ?>
"""


@dataclass(frozen=True)
class Got:
    """An answer."""

    status: int
    headers: dict[str, str]
    """By name in small letters."""
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Web:
    """What a browser does, on a port of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.page = f"http://127.0.0.1:{port}{PAGE}"

    def request(self, verb: str, path: str = _BRIDGE, fields: object = None) -> Got:
        """Send a form to a path; ``fields`` are pairs or a table."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = urlencode(fields) if fields else None  # type: ignore[arg-type]
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        connection.request(verb, path, body, kind)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        got = Got(answer.status, headers, answer.read().decode())
        connection.close()
        return got

    def ask(self, method: str, path: str, body: object = None, match: str = "") -> Got:
        """Ask the daemon for something, as pages do."""
        fields = {"method": method, "path": path}
        if body is not None:
            fields["body"] = body if isinstance(body, str) else json.dumps(body)
        if match:
            fields["if_match"] = match
        return self.request("POST", fields=fields)


@contextmanager
def php(host: UnraidHost) -> Iterator[Web]:
    """Serve what is installed on a host, with PHP's own web server; the page is at ``PAGE``."""
    page = host.root / "usr/local/emhttp" / PAGE[1:]
    page.parent.mkdir(exist_ok=True)
    page.write_text(_PAGE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = host.root / "php.log"
    # As Unraid has it: nothing that PHP complains about is shown, so it has to be in the log.
    settings = ["-d", "display_errors=0", "-d", "log_errors=1", "-d", "error_reporting=32767"]
    settings += ["-d", "opcache.enable=0"]  # tests change files
    with log.open("wb") as written:
        process = subprocess.Popen(
            ["php", *settings, "-S", f"127.0.0.1:{port}", "-t", host.root / "usr/local/emhttp"],
            env={**os.environ, **host.environment()},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        )
    try:
        deadline = time.monotonic() + 20
        while process.poll() is None and "started" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield Web(port)
        complaints = [line for line in log.read_text().splitlines() if "PHP " in line]
        assert [line for line in complaints if "Development Server" not in line] == []
    finally:
        process.terminate()
        process.wait(20)
