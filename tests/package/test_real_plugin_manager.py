"""The package as Unraid's own plugin manager and Slackware's package tools treat it.

``VMB_WEBGUI`` and ``VMB_WEBGUI_HARNESS`` as in tests/webgui; ``VMB_PKGTOOLS`` names a folder with
``installpkg``, ``upgradepkg`` and ``removepkg``, which the harness puts in place.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from build import documents, release
from build.release import Publisher
from tests.package.conftest import Built
from tests.support import next_version

HARNESS = os.environ.get("VMB_WEBGUI_HARNESS", "")
CHECKOUTS = [Path(each) for each in os.environ.get("VMB_WEBGUI", "").split(":") if each]
pytestmark = [
    pytest.mark.skipif(
        not HARNESS or not CHECKOUTS or not os.environ.get("VMB_PKGTOOLS"),
        reason="VMB_WEBGUI names no webGUI, or VMB_PKGTOOLS no package tools",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts"),
]
_PLAY = r"""
"$PYTHON" -m http.server "$WEB" --bind 127.0.0.1 --directory /srv >/dev/null 2>&1 & web=$!
until curl -s -o /dev/null "http://127.0.0.1:$WEB/"; do sleep 0.1; done
mkdir -p /tmp/plugins /boot/config/pools; touch /boot/config/pools/cache.cfg
url=http://127.0.0.1:$WEB/vm-babysitter.plg
flash=/boot/config/plugins
runs() { /etc/rc.d/rc.vm-babysitter status | tr '\n' ' '; }
state() {
  echo "$1: rc=$2 version=$(vm-babysitter --version 2>/dev/null | grep -o '[0-9.]*$')" \
    "packages=$(ls /var/lib/pkgtools/packages) flash=$(ls $flash/vm-babysitter | tr '\n' ' ')" \
    "$(runs)"
}
modes() { stat -c %a%u%g /usr /usr/local{,/sbin} /etc /etc/rc.d/ /usr/local/emhttp/plugins; }
modes >/tmp/modes
cp /srv/old.plg /srv/vm-babysitter.plg
plugin install $url >/tmp/said 2>&1; state install $?
echo "said: $(tail -n 6 /tmp/said | tr "\n" " ")"
modes | cmp -s - /tmp/modes; echo "modes: $?"
plugin install $url >/tmp/said 2>&1; state again $?
cp /srv/new.plg /srv/vm-babysitter.plg
plugin check vm-babysitter.plg >/dev/null
plugin update vm-babysitter.plg >/tmp/said 2>&1; state update $?
cp /srv/old.plg /srv/vm-babysitter.plg
plugin install $url >/tmp/said 2>&1; state older $?
echo "page: $(curl -s "http://127.0.0.1:$PORT/Settings/VMBabysitter" | grep -c 'id="vmb"')"
listed=$(curl -s "http://127.0.0.1:$PORT/plugins/dynamix.plugin.manager/include/ShowPlugins.php?check=0")
echo "listed: $(grep -o 'vid-vm-babysitter::[0-9]*' <<<"$listed")"
kill $web
/etc/rc.d/rc.vm-babysitter stop >/dev/null
rm -rf /usr/local/vm-babysitter /usr/local/emhttp/plugins/vm-babysitter /etc/rc.d/rc.vm-babysitter \
  /usr/local/sbin/vm-babysitter /var/log/plugins/* /var/lib/pkgtools/packages/* /run/vm-babysitter
plugin install $flash/vm-babysitter.plg >/tmp/said 2>&1; state boot $?
plugin remove vm-babysitter.plg >/tmp/said 2>&1; echo "remove: $?"
echo "stays: $(grep -c 'all backups' /tmp/said)"
find / -xdev \( -path /proc -o -path /tmp -o -path /srv -o -path "$HERE" \) -prune -o \
  -name '*vm-babysitter*' -print 2>/dev/null | sed 's/^/left: /'
"""


def played(folder: Path, disk: Path, checkout: Path, web: int) -> list[tuple[str, str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = subprocess.run(
        ["bash", HARNESS, checkout, "-", str(port), "--", "bash", "-c", _PLAY],
        env={
            **os.environ,
            "EXTRA_BIND": f"{folder}:/srv {disk}:/mnt/cache",
            "PKGTOOLS": os.environ["VMB_PKGTOOLS"],
            "PYTHON": sys.executable,
            "HERE": str(Path(__file__).parents[2]),
            "WEB": str(web),
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    lines = (line.partition(": ") for line in done.stdout.splitlines())
    return [(name, value.strip()) for name, _, value in lines]


@pytest.mark.parametrize("checkout", CHECKOUTS, ids=lambda path: path.name)
def test_installed_updated_booted_and_removed(checkout: Path, built: Built, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        web = free.getsockname()[1]
    address = f"http://127.0.0.1:{web}"
    plugin_url = f"{address}/vm-babysitter.plg"
    publisher = Publisher(plugin_url=plugin_url, package_url=address, support=address)
    folder, disk = tmp_path / "srv", tmp_path / "disk"
    (disk / "system").mkdir(parents=True)
    newer = next_version.make(built.package, tmp_path / "next", publisher)
    folder.mkdir()
    for package in (built.package, *newer.parent.glob("*.txz")):
        shutil.copy(package, folder)
    digest = hashlib.sha256(built.package.read_bytes()).hexdigest()
    old = release.version()
    rendered = documents.render(documents.Package(old, digest), publisher, "")
    (folder / "old.plg").write_text(rendered[documents.PLG])
    shutil.copy(newer, folder / "new.plg")

    def state(version: str, code: int = 0) -> str:
        return (
            f"rc={code} version={version} packages=vm-babysitter-{version}-x86_64-1"
            f" flash=vm-babysitter-{version}-x86_64-1.txz vm-babysitter.cron"
            "  VM Babysitter is running."
        )

    found = played(folder, disk, checkout, web)
    said = dict(found)
    assert said["install"] == state(old), found
    assert said["modes"] == "0"
    assert said["again"] == state(old, 1)  # "not re-installing the same version"
    assert said["update"] == state(next_version.VERSION)
    assert said["older"] == state(next_version.VERSION, 1)
    assert said["page"] == "1"
    assert said["listed"] == f"vid-vm-babysitter::{next_version.VERSION.replace('.', '')}"
    assert said["boot"] == state(next_version.VERSION)
    assert (said["remove"], said["stays"]) == ("0", "1")
    left = {value for name, value in found if name == "left"}
    # What the plugin manager and the package tools keep of all that is removed.
    left = {path for path in left if not path.startswith("/var/log/pkgtools/removed_")}
    assert left == {"/boot/config/plugins-removed/vm-babysitter.plg"}
