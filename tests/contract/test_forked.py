"""Commands that are forked instead of started: what tests rely on is as with any process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.forked import Forked
from tests.support.world import environment

MODULE = "tests.support.faulty"
PATIENCE = 30.0


def forked(*arguments: str, cwd: Path, **changes: str) -> Forked:
    given = [str(cwd / "runtime"), "[]", *arguments]
    env = environment() | changes
    return Forked(MODULE, given, env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd)


@pytest.mark.parametrize("words", [["--version"], ["nonsense"], ["--standalone", "points", "-x"]])
def test_it_says_and_returns_what_a_new_interpreter_does(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", MODULE, str(tmp_path / "runtime"), "[]", *words]
    other = subprocess.run(
        command, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    with forked(*words, cwd=tmp_path) as process:
        said = process.communicate(timeout=PATIENCE)
    assert said == (other.stdout, other.stderr)
    assert process.returncode == other.returncode
    assert any(said)


def test_its_folder_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    words = ["--standalone", "--uri", "test:///default", "--store", "store", "points"]
    with forked(*words, cwd=tmp_path) as process:
        assert Path(f"/proc/{process.pid}/cwd").readlink() == tmp_path
        _, err = process.communicate(timeout=PATIENCE)
    assert "it is empty" in (err or "")
    assert Path.cwd() != tmp_path


def test_its_environment_is_its_own(tmp_path: Path) -> None:
    said = []
    for columns in ("40", "79"):
        with forked("--help", cwd=tmp_path, COLUMNS=columns) as process:
            said.append(process.communicate(timeout=PATIENCE)[0] or "")
    narrow, wide = (max(map(len, text.splitlines())) for text in said)
    assert narrow < wide


def test_a_signal_ends_it_and_is_told(tmp_path: Path) -> None:
    process = forked("--standalone", "--uri", "test:///default", cwd=tmp_path)
    os.kill(process.pid, signal.SIGSTOP)
    process.send_signal(signal.SIGKILL)
    with process:
        assert process.wait(PATIENCE) == -signal.SIGKILL
    assert process.poll() == -signal.SIGKILL
    _gone(process.pid)


def test_it_has_no_files_of_others(tmp_path: Path) -> None:
    with (
        (tmp_path / "ours").open("w"),
        forked("--version", cwd=tmp_path),
        forked("--standalone", "--uri", "test:///default", "backup", "x", cwd=tmp_path) as one,
    ):
        os.kill(one.pid, signal.SIGSTOP)
        files = [str(f.readlink()) for f in Path(f"/proc/{one.pid}/fd").iterdir()]
        os.kill(one.pid, signal.SIGCONT)
        one.communicate(timeout=PATIENCE)
    # Stopped early, it may still have the socket through which it told that it is there.
    kinds = [name.partition(":")[0] for name in files]
    assert kinds.count("socket") <= 1
    assert kinds.count("pipe") == 2
    assert len(files) <= 4, files


def _gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
