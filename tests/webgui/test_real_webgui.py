"""The page inside the real webGUI of Unraid, where one is at hand: it may not be kept here.

``VMB_WEBGUI`` names checkouts of github.com/unraid/webgui, separated by colons;
``VMB_WEBGUI_HARNESS`` a program that serves one: ``HARNESS CHECKOUT PLUGIN PORT -- COMMAND…`` runs
a command meanwhile, in a root of its own, with the token in ``CSRF_TOKEN`` and what ``EXTRA_BIND``
(from:to) names.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.served import short_folder
from tests.support.unraid_host import UnraidHost

HARNESS = os.environ.get("VMB_WEBGUI_HARNESS", "")
CHECKOUTS = [Path(each) for each in os.environ.get("VMB_WEBGUI", "").split(":") if each]
pytestmark = [
    pytest.mark.skipif(not HARNESS or not CHECKOUTS, reason="VMB_WEBGUI names no webGUI"),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts"),
]
_LOOK = r"""
base=http://127.0.0.1:$PORT bridge=/plugins/vm-babysitter/include/api.php
ask() { curl -s -o /tmp/answer -w '%{http_code} ' "$@"; head -c 400 /tmp/answer; echo; }
echo "page: $(curl -s "$base/Settings/VMBabysitter" | grep -c 'id="vmb"')"
echo "settings: $(curl -s "$base/Settings" | grep -c 'vm-babysitter.png')"
for file in css/page.css js/common.js js/settings.js js/page.js images/vm-babysitter.png; do
  echo "$file: $(ask "$base/plugins/vm-babysitter/$file" | head -c 3)"
done
echo "get: $(ask "$base$bridge?method=GET&path=/status" | head -c 3)"
echo "no token: $(ask -d method=GET -d path=/status "$base$bridge" | tail -n 1 | grep -c fine)"
echo "wrong: $(ask -d csrf_token=x -d method=GET -d path=/status "$base$bridge" | grep -c fine)"
echo "token: $(ask -d csrf_token=$CSRF_TOKEN -d method=GET -d path=/status "$base$bridge")"
echo "log: $(cat /var/log/phplog 2>/dev/null)"
"""


@pytest.fixture(scope="module")
def host() -> Iterator[UnraidHost]:
    with short_folder() as folder:
        host = UnraidHost(folder / "r")
        host.array("Started")
        with host.disks():
            assert host.rc("start").code == 0
            host.answers()
            yield host
            host.rc("stop")


def looked_at(checkout: Path, host: UnraidHost, bind: str) -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = subprocess.run(
        ["bash", HARNESS, checkout, host.plugin, str(port), "--", "bash", "-c", _LOOK],
        env={**os.environ, "EXTRA_BIND": bind},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    lines = (line.partition(": ") for line in done.stdout.splitlines())
    return {name: value.strip() for name, _, value in lines}


@pytest.mark.parametrize("checkout", CHECKOUTS, ids=lambda path: path.name)
def test_the_page_is_served_and_the_token_is_asked_for(checkout: Path, host: UnraidHost) -> None:
    found = looked_at(checkout, host, f"{host.runtime}:/run/vm-babysitter")
    assert (found["page"], found["settings"]) == ("1", "1"), found
    scripts = (f"js/{name}.js" for name in ("common", "settings", "page"))
    for file in ("css/page.css", *scripts, "images/vm-babysitter.png"):
        assert found[file] == "200"
    assert found["get"] == "405"
    assert (found["no token"], found["wrong"]) == ("0", "0")
    assert found["token"].startswith('200 {"fine"')
    assert found["log"] == ""


@pytest.mark.parametrize("checkout", CHECKOUTS[-1:], ids=lambda path: path.name)
def test_without_a_daemon_there_is_an_answer(checkout: Path, host: UnraidHost) -> None:
    found = looked_at(checkout, host, "")
    assert found["page"] == "1"
    assert found["token"].startswith("502 ")
    assert "daemon-down" in found["token"]
