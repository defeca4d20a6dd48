"""What backups wait for, from the files of an Unraid server."""

import os
from pathlib import Path

import pytest

from vm_babysitter.adapters.unraid.host_state import UnraidState
from vm_babysitter.domain.host_state import HostState, Waits, waited_for

BOTH, NEITHER = Waits(parity=True, mover=True), Waits(parity=False, mover=False)
OURS = "our own"
IDLE = 'version="7.1.4"\nfsState="Started"\nmdResync="0"\nmdResyncPos="0"\nmdResyncDt="0"\n'


def server(root: Path, *lines: str, mover: str | None = None) -> UnraidState:
    folder = root / "var" / "local" / "emhttp"
    folder.mkdir(parents=True)
    (folder / "var.ini").write_text(IDLE + "".join(f"{line}\n" for line in lines))
    if mover is not None:
        (root / "var" / "run").mkdir()
        # Not in a parameter: tests are called the same in each process.
        text = f"{os.getpid()}\n" if mover == OURS else mover
        (root / "var" / "run" / "mover.pid").write_text(text)
        (root / "proc" / str(os.getpid())).mkdir(parents=True)
    return UnraidState(root)


@pytest.mark.parametrize(
    ("lines", "mover", "expected"),
    [
        ((), None, HostState("Started")),
        (('fsState="Stopped"',), None, HostState("Stopped")),
        (('mdResyncPos="7"', 'mdResyncDt="3"', 'mdResyncAction="check P"'), None,
         HostState("Started", "a parity check")),
        (('mdResyncPos="7"', 'mdResyncDt="0"', 'mdResyncAction="check P"'), None,
         HostState("Started")),  # it is paused
        (('mdResyncPos="7"', 'mdResyncDt="3"', 'mdResyncAction="recon D2"'), None,
         HostState("Started", "the rebuild of a disk")),
        (('mdResyncPos="7"', 'mdResyncDt="3"', 'mdResyncAction=""'), None,
         HostState("Started", "a check or rebuild of the array")),
        (('mdResyncPos="-7"', 'mdResyncDt="x"'), None, HostState("Started")),
        ((), OURS, HostState("Started", mover=True)),
        ((), "999999999", HostState("Started")),  # it was killed
        ((), "", HostState("Started")),
        ((), "0", HostState("Started")),
    ],
)  # fmt: skip
def test_what_the_server_does(
    tmp_path: Path, lines: tuple[str, ...], mover: str | None, expected: HostState
) -> None:
    assert server(tmp_path, *lines, mover=mover)() == expected


def test_elsewhere_nothing_is_under_way(tmp_path: Path) -> None:
    assert UnraidState(tmp_path)() == HostState()
    assert waited_for(HostState(), BOTH) == ""


def test_a_file_that_is_no_text_and_one_that_is_no_file(tmp_path: Path) -> None:
    state = server(tmp_path)
    path = tmp_path / "var" / "local" / "emhttp" / "var.ini"
    path.write_bytes(b"\xff\xfe\0=\0\nfsState=Started\n===\n")
    assert state() == HostState("Started")
    path.unlink()
    os.mkfifo(path)
    assert state() == HostState()


@pytest.mark.parametrize(
    ("state", "waits", "expected"),
    [
        (HostState("Started"), BOTH, ""),
        (HostState("Stopping"), NEITHER, "the array is not started (it is stopping)"),
        (HostState("Started", "a parity check"), BOTH, "a parity check is under way"),
        (HostState("Started", "a parity check", mover=True), NEITHER, ""),
        (HostState("Started", mover=True), BOTH, "the mover is at work"),
        (HostState("Started", mover=True), Waits(parity=True, mover=False), ""),
    ],
)
def test_what_is_waited_for(state: HostState, waits: Waits, expected: str) -> None:
    assert waited_for(state, waits) == expected
