"""The daemon as a process: how it ends, and that it is alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.nbd_server import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the API is for root only")
_SERVE = """
import sys
import threading
from pathlib import Path
from vm_babysitter import bootstrap_daemon as daemon
from vm_babysitter.cli.main import run

class Hanging(daemon.SqliteJournal):
    def close(self):
        threading.Event().wait()

if sys.argv.pop(1) == "hangs":
    daemon.SqliteJournal = Hanging
    daemon._END_SECONDS = 3.0
run(daemon.Standalone, serve=daemon.serve)
"""


@contextmanager
def serving(
    folder: Path, socket: str = "a", how: str = "works"
) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "state").mkdir(exist_ok=True)
    where = folder / socket / "api.socket"
    argv = [
        *(sys.executable, "-c", _SERVE, how, "serve", "--uri", "test:///default"),
        *("--settings", str(folder / "settings.json"), "--state", str(folder / "state")),
        *("--socket", str(where), "--runtime", str(folder / "run")),
    ]
    with (folder / f"{socket}.stderr").open("wb") as stderr:
        process = subprocess.Popen(argv, stderr=stderr)
    try:
        wait_until(lambda: where.exists() or process.poll() is not None)
        yield process
    finally:
        process.kill()
        process.wait()


def test_it_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(20) == 0


def test_a_disk_that_hangs_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    with serving(tmp_path, how="hangs") as daemon:
        began = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(20) == 1
        assert time.monotonic() - began > 2


def test_another_daemon_does_not_get_the_same_state(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        with serving(tmp_path, "b") as second:
            assert second.wait(20) == 11
        told = (tmp_path / "b.stderr").read_text()
        assert "another daemon keeps its journal there" in told
        assert first.poll() is None
    with serving(tmp_path, "b") as third:
        assert third.poll() is None, "the first was killed, and is not in the way"
