"""The log of the service: a file of bounded size, and the system's log beside it."""

import contextlib
import logging
import logging.handlers
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vm_babysitter.adapters.secrets import Secrets

ROOT = "vm_babysitter"
"""Name of the logger that all of ours are below."""
SYSLOG = Path("/dev/log")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How much is logged."""

    level: int = logging.INFO
    size: int = 1024 * 1024
    """Bytes of one file."""
    files: int = 5
    """Files that are kept, the one being written included."""


class SafeFormatter(logging.Formatter):
    """Time (UTC), level, job and text of a record on lines of their own, without secrets."""

    def __init__(self, secrets: Secrets, *, time: bool = True) -> None:
        super().__init__()
        self._secrets = secrets
        self._time = time

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and those of a traceback."""
        number = getattr(record, "job", 0)
        words = [record.levelname.lower(), *([f"job {number}"] if number else [])]
        text = record.getMessage().replace("\r", "\\r").replace("\n", "\n    ")
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if self._time:
            at = datetime.fromtimestamp(record.created, UTC)
            words.insert(0, at.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z"))
        return self._secrets.hide(f"{' '.join(words)}: {text}")


class _File(logging.handlers.RotatingFileHandler):
    """A log file that is begun anew when it is full. What cannot be written is let go."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Have the next record open the file again: a full disk must not stop a backup."""
        with contextlib.suppress(OSError):
            self.close()


class _SystemLog(logging.handlers.SysLogHandler):
    ident = "vm-babysitter: "
    socket: socket.socket

    def _connect_unixsocket(self, address: str) -> None:
        """Wait for nobody: if the system's log takes no more now, a frozen guest waits with us."""
        super()._connect_unixsocket(address)  # type: ignore[misc]
        self.socket.setblocking(False)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Let the record go."""


class MainLog:
    """Sends what is logged to a file, and if wished to the system's log."""

    def __init__(self, path: Path, secrets: Secrets, *, syslog: Path | None = None) -> None:
        """``syslog`` is the socket of the system's log; None leaves it alone."""
        self._path = path
        self._secrets = secrets
        self._syslog = syslog
        self._handlers: list[logging.Handler] = []
        self._logger = logging.getLogger(ROOT)

    def open(self, settings: LogSettings) -> None:
        """Log from now on, or otherwise than before. Never fails: what cannot be, is told."""
        self.close()
        # Logs of jobs tell what they do, whatever this one leaves out.
        self._logger.setLevel(min(settings.level, logging.INFO))
        problems = []
        try:
            self._add(self._file(settings), SafeFormatter(self._secrets), settings)
        except OSError as error:
            problems.append(f"There is no log file: {error}.")
        try:
            if self._syslog is not None:
                system = _SystemLog(str(self._syslog))
                self._add(system, SafeFormatter(self._secrets, time=False), settings)
        except OSError as error:
            problems.append(f"The system's log cannot be reached: {error}.")
        for problem in problems:
            _log.warning("%s", problem)

    def close(self) -> None:
        """Log nowhere any more, and close the file."""
        for handler in self._handlers:
            self._logger.removeHandler(handler)
            handler.close()
        self._handlers = []

    def _file(self, settings: LogSettings) -> logging.Handler:
        return _File(
            self._path,
            maxBytes=settings.size,
            backupCount=max(1, settings.files - 1),  # with none, the file would grow for ever
            encoding="utf-8",
            errors="replace",
        )

    def _add(
        self, handler: logging.Handler, formatter: logging.Formatter, settings: LogSettings
    ) -> None:
        handler.setLevel(settings.level)
        handler.setFormatter(formatter)
        self._logger.addHandler(handler)
        self._handlers.append(handler)
