"""A log for each job: one file, of bounded size, kept for some days."""

import contextlib
import logging
import re
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vm_babysitter.adapters.main_log import ROOT, SafeFormatter
from vm_babysitter.adapters.secrets import Secrets

_NAME = re.compile(r"job-(\d+)\.log")
_PART = 256 * 1024
"""Bytes that are read of a log at once, at most."""
_CUT = "... the log of this job is full; what follows is in the main log only.\n"
_log = logging.getLogger(__name__)
_job: ContextVar[int] = ContextVar("job", default=0)


@dataclass(frozen=True, slots=True)
class LogPart:
    """A part of a log."""

    text: str
    next: int
    """Where the next part begins, in bytes."""
    more: bool
    """Whether there is more by now."""


class JobLogs:
    """Implements ``ports.JobLogs`` in a folder."""

    def __init__(self, folder: Path, secrets: Secrets, limit: int = 4 * 1024 * 1024) -> None:
        """``limit`` is the most bytes of one log. The folder is made once it is needed."""
        self._folder = folder
        self._secrets = secrets
        self._limit = limit

    @contextlib.contextmanager
    def of(self, job_id: int) -> Iterator[None]:
        """See the port."""
        token = _job.set(job_id)
        handler = self._open(job_id)
        logger = logging.getLogger(ROOT)
        if handler is not None:
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.INFO)
            logger.addHandler(handler)
        try:
            yield
        finally:
            _job.reset(token)
            if handler is not None:
                logger.removeHandler(handler)
                handler.close()

    def read(self, job_id: int, offset: int = 0, most: int = _PART) -> LogPart | None:
        """Return ``most`` bytes of a job's log from one on, whole lines; None if there is none.

        Raises:
            OSError.
        """
        path = self._path(job_id)
        offset = max(0, offset)
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(min(offset, size))
                content = file.read(min(most, _PART))
        except FileNotFoundError:
            return None
        end = content.rfind(b"\n") + 1 or len(content)
        text = content[:end].decode(errors="replace")
        return LogPart(text, min(offset, size) + end, min(offset, size) + end < size)

    def prune(self, before: datetime) -> int:
        """Remove logs that nothing was written to since a moment; return how many."""
        count = 0
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                old = _NAME.fullmatch(path.name) and path.stat().st_mtime < before.timestamp()
                if old:
                    path.unlink(missing_ok=True)
                    count += 1
        return count

    def _path(self, job_id: int) -> Path:
        return self._folder / f"job-{job_id}.log"

    def _open(self, job_id: int) -> "_JobHandler | None":
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            return _JobHandler(self._path(job_id), job_id, self._secrets, self._limit)
        except OSError as error:
            _log.warning("Job %d has no log of its own: %s.", job_id, error)
            return None


class _JobHandler(logging.Handler):
    """Writes what is logged about one job, whatever the level of the main log is."""

    def __init__(self, path: Path, job_id: int, secrets: Secrets, limit: int) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(SafeFormatter(secrets))
        self._id = job_id
        self._left = limit
        self._write = threading.Lock()
        # A number that is used again, after the journal was lost, begins a new log.
        path.unlink(missing_ok=True)
        self._file = path.open("a", encoding="utf-8", errors="replace")

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is about this job."""
        return bool(getattr(record, "job", _job.get()) == self._id)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, as long as there is room. What cannot be written is let go."""
        line = self.format(record) + "\n"
        with self._write, contextlib.suppress(OSError, ValueError):
            if self._left <= 0:
                return
            self._left -= len(line.encode(errors="replace"))
            self._file.write(line if self._left > 0 else _CUT)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()
        super().close()
