"""Commands of the user, as real processes."""

import logging
import time
from pathlib import Path

import pytest

from vm_babysitter.adapters.commands import run_command
from vm_babysitter.domain.errors import Cancelled, CommandFailed, ProgramMissing


def script(folder: Path, text: str) -> str:
    path = folder / "my hook; rm -rf $HOME.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def go_on() -> None:
    return None


def test_it_gets_its_arguments_and_the_environment(tmp_path: Path) -> None:
    out = tmp_path / "out"
    name = '-My "VM" & co\n$(id)=ü'
    path = script(tmp_path, 'printf "%s|%s" "$VMB_VM" "$1" > "$2"')
    run_command([path, "a b", str(out)], {"VMB_VM": name}, 10, go_on)
    assert out.read_text() == f"{name}|a b"


def test_what_it_says_on_stderr_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="the database is away"):
        run_command([script(tmp_path, "echo the database is away >&2; exit 3")], {}, 10, go_on)


def test_gigabytes_on_stdout_are_not_kept(tmp_path: Path) -> None:
    run_command([script(tmp_path, "head -c 300000000 /dev/zero")], {}, 60, go_on)


@pytest.mark.parametrize("path", ["/nonexistent", "/etc/passwd"])
def test_what_cannot_be_run(path: str) -> None:
    with pytest.raises(ProgramMissing):
        run_command([path], {}, 10, go_on)


def test_no_program(tmp_path: Path) -> None:
    path = tmp_path / "none"
    path.write_bytes(b"\x7fELF nonsense")
    path.chmod(0o755)
    with pytest.raises(CommandFailed):
        run_command([str(path)], {}, 10, go_on)


def test_one_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    path = script(tmp_path, f"trap '' TERM; sleep 300 & echo $$ $! > {pids}; wait; sleep 300")
    began = time.monotonic()
    with pytest.raises(CommandFailed, match=r"did not end within 0\.5 seconds"):
        run_command([path], {}, 0.5, go_on)
    assert time.monotonic() - began < 10
    for pid in pids.read_text().split():
        while runs(pid):
            assert time.monotonic() - began < 10


def runs(pid: str) -> bool:
    """Whether it does; what has ended may still wait to be reaped by the host's first process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_stopped_by_the_user(tmp_path: Path) -> None:
    def stop() -> None:
        raise Cancelled

    began = time.monotonic()
    with pytest.raises(Cancelled):
        run_command([script(tmp_path, "sleep 300")], {}, 300, stop)
    assert time.monotonic() - began < 10


def test_a_path_that_looks_like_a_variable_is_run(tmp_path: Path) -> None:
    folder = tmp_path / "a=b"
    folder.mkdir()
    with pytest.raises(CommandFailed, match="it ran"):
        run_command([script(folder, "echo it ran >&2; exit 3")], {"VMB_VM": "x"}, 10, go_on)


def test_a_script_that_names_no_shell_is_run(tmp_path: Path) -> None:
    path = tmp_path / "hook"
    path.write_text(f"echo $VMB_VM > {tmp_path}/out\n")
    path.chmod(0o755)
    run_command([str(path)], {"VMB_VM": "x"}, 10, go_on)
    assert (tmp_path / "out").read_text() == "x\n"


def test_neither_arguments_nor_secrets_that_it_prints_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "vm_babysitter")
    path = script(tmp_path, "echo password=hunter21 >&2; exit 3")
    with pytest.raises(CommandFailed) as caught:
        run_command([path, "-phunter22"], {}, 10, go_on)
    assert "password=***" in str(caught.value)
    assert path in caplog.text
    assert "hunter2" not in caplog.text + str(caught.value)
