"""What has become of each VM in a run, in files: implements ``ports.RunMarks``.

`<folder>/<run>/<UUID>` holds one word, see ``Mark``; `finished` is there once all were dealt with,
`held` says why nothing was started. `scripts/autostart-guard` keeps the same files: whoever makes
the file of a VM first, starts it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from vm_babysitter.domain.autostart import RUN_ID, Mark
from vm_babysitter.domain.errors import InvalidInput, SystemFailed
from vm_babysitter.ports import RunRecord

_FINISHED, _HELD, _SERVICE = "finished", "held", "service"
_MOST_BYTES = 4096
_KEPT = 5
"""Runs whose record stays: they are in RAM."""


class MarkFiles:
    """Implements ``ports.RunMarks``."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is in RAM: a boot forgets it."""
        self._folder = folder

    def open(self, run: str, service: str) -> bool:
        """See the port."""
        folder = self._of(run)
        with _told():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            # The script makes the folder before it tells us of the run.
            new = _create(folder / _SERVICE, service)
        if new:
            self._forget_old(run)
        return new

    def read(self, run: str) -> RunRecord | None:
        """See the port."""
        folder = self._of(run)
        with _told():
            service = folder / _SERVICE
            if not service.exists():
                return None
            marks, marked = {}, {}
            for path in folder.iterdir():
                if "." in path.name or "-" not in path.name:
                    continue
                with suppress(FileNotFoundError):
                    marks[path.name], marked[path.name] = _mark_in(path), _changed(path)
            held = _text(folder / _HELD)
            finished = (folder / _FINISHED).exists()
            return RunRecord(run, _changed(service), _text(service), finished, held, marks, marked)

    def latest(self) -> RunRecord | None:
        """See the port."""
        with _told():
            runs = self._runs()
        return self.read(runs[-1].name) if runs else None

    def claim(self, run: str, uuid: str) -> bool:
        """See the port."""
        with _told():
            return _create(self._of(run) / _name(uuid), Mark.BEGUN)

    def mark(self, run: str, uuid: str, mark: Mark) -> None:
        """See the port."""
        folder, name = self._of(run), _name(uuid)
        with _told():
            _replace(folder / name, mark)

    def hold(self, run: str, reason: str) -> None:
        """See the port."""
        with _told():
            _replace(self._of(run) / _HELD, reason)
        self.finish(run)

    def finish(self, run: str) -> None:
        """See the port."""
        with _told():
            _create(self._of(run) / _FINISHED, "")

    def _of(self, run: str) -> Path:
        if not RUN_ID.fullmatch(run):
            rule = "must be 1 to 64 letters, digits and dashes"
            raise InvalidInput("run", run, rule)
        return self._folder / run

    def _runs(self) -> list[Path]:
        """Return the folders of runs, the oldest first."""
        if not self._folder.is_dir():
            return []
        found = [path / _SERVICE for path in self._folder.iterdir() if path.is_dir()]
        there = [(path.stat().st_mtime_ns, path.parent) for path in found if path.exists()]
        return [folder for _, folder in sorted(there)]

    def _forget_old(self, run: str) -> None:
        with suppress(OSError):
            for folder in self._runs()[:-_KEPT]:
                if folder.name != run:
                    shutil.rmtree(folder, ignore_errors=True)


def _name(uuid: str) -> str:
    name = uuid.lower()
    if "/" in name or "." in name or "-" not in name:
        raise InvalidInput("uuid", uuid, "is no UUID")
    return name


def _create(path: Path, word: str) -> bool:
    """Make a file with a word; returns False if there is one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, f"{word}\n".encode())
    finally:
        os.close(descriptor)
    return True


def _replace(path: Path, word: str) -> None:
    new = path.with_name(f".{path.name}.tmp")
    new.write_text(f"{word}\n")
    new.replace(path)


def _text(path: Path) -> str:
    with suppress(FileNotFoundError), path.open("rb") as file:
        return file.read(_MOST_BYTES).decode(errors="replace").strip()
    return ""


def _mark_in(path: Path) -> Mark:
    """Return a mark; whoever made a file and wrote nothing died at the start."""
    word = _text(path)
    return Mark(word) if word in list(Mark) else Mark.BEGUN


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SystemFailed(f"{error.filename}: {error.strerror or error}") from error
