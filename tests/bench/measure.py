"""Measures one command with all its descendants; also run as a program of its own, by path.

    python measure.py RESULT SYNC… -- COMMAND…

Descendants that outlive their parent become children of this process, so their processor time
counts too. Memory is sampled: of the resident pages of all processes together (a page that two
of them share counts twice) the greatest sum that was seen; no less than the most that any one of
them ever had by the kernel's own account.

The clock runs until the command has ended and the files in the folders SYNC are on the disk.
"""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_INTERVAL = 0.04
_KIB = 1024


class CommandFailed(Exception):
    """A command that was to be measured did not succeed."""


def measure(
    command: Sequence[str | Path],
    folder: Path,
    sync: Sequence[Path],
    environment: Mapping[str, str] | None = None,
) -> tuple[float, float, int]:
    """Run a command that must succeed, its notes going to ``folder``.

    Returns seconds, seconds of processor time, and bytes of memory at most (0 where the command
    was too short to look at). Raises CommandFailed.
    """
    result, log = folder / "measured.json", folder / "output.log"
    # A bare interpreter: what it has in memory when it starts the command must not matter.
    program = [sys.executable, "-I", "-S", __file__, str(result), *map(str, sync), "--"]
    with log.open("wb") as output:
        done = subprocess.run(
            [*program, *map(str, command)],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
        )
    if done.returncode:
        last = log.read_text(errors="replace")[-2000:]
        raise CommandFailed(f"{list(map(str, command))} ended with {done.returncode}:\n{last}")
    found = json.loads(result.read_text())
    return found["seconds"], found["cpu_seconds"], found["peak_rss_bytes"]


def sync_all(paths: Sequence[Path]) -> None:
    """Have these files, and all files in these folders, on the disk."""
    for path in paths:
        for file in [path, *path.rglob("*")]:
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


class Sampler(threading.Thread):
    """Watches the memory of all descendants of this process until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stopped = threading.Event()
        self._peak = 0

    def run(self) -> None:
        while not self._stopped.is_set():
            most = [_memory(pid) for pid in _descendants(os.getpid())]
            together = sum(now for now, _ in most)
            self._peak = max(self._peak, together, *(ever for _, ever in most), 0)
            self._stopped.wait(_INTERVAL)

    def stop(self) -> int:
        """Stop; return the greatest sum that was seen, in bytes."""
        self._stopped.set()
        self.join()
        return self._peak


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - runs 25 times a second
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(name))
    found, waiting = [], [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Bytes that are resident now, and the most that ever were; none of a process that ended."""
    now = ever = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                ever = int(line.split()[1]) * _KIB
            elif line.startswith("VmRSS:"):
                now = int(line.split()[1]) * _KIB
    return now, ever


def _wait_for(pid: int) -> int:
    """Bury children until this one has ended. Returns its exit code."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    split = sys.argv.index("--")
    result, *sync = map(Path, sys.argv[1:split])
    command = sys.argv[split + 1 :]
    sampler = Sampler()
    sampler.start()
    started = time.monotonic()
    code = _wait_for(os.posix_spawnp(command[0], command, os.environ))
    sync_all([path for path in sync if path.exists()])
    seconds = time.monotonic() - started
    with contextlib.suppress(ChildProcessError):  # those that outlive the command a little
        while True:
            os.wait()
    used = os.times()
    found = {
        "seconds": seconds,
        "cpu_seconds": used.children_user + used.children_system,
        "peak_rss_bytes": sampler.stop(),
    }
    result.write_text(json.dumps(found))
    raise SystemExit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
