"""Unraid's own notifications, by way of its script ``notify``.

The script keeps each message as a file in its archive, named by event and second: a second one of
the same event in the same second it drops without a word. It says nothing of what it did, so the
archive is looked at: each message of ours has a mark in it that no other has.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from vm_babysitter.adapters.process import execute
from vm_babysitter.domain.errors import CommandFailed, NotifyFailed, ProgramMissing
from vm_babysitter.domain.message import Message, one_line

_SCRIPT = "usr/local/emhttp/webGui/scripts/notify"
_SETTINGS = (
    "usr/local/emhttp/plugins/dynamix/default.cfg",
    "boot/config/plugins/dynamix/dynamix.cfg",
)
_EVENT = "VM Babysitter"
_FILES = "VM_Babysitter_*.notify"
_FOLDER = "tmp/notifications"
_LONGEST = 20_000
"""Characters of the long text: agents get it as one argument of a command."""
_MOST_FILES = 500
"""Of ours that are looked through, the newest."""
_MOST_BYTES = 1 << 20
_UNSAFE = str.maketrans({"<": "(", ">": ")", '"': "'", "\\": "/", "\0": " "})
"""The pages of the host show texts as HTML, and its files hold them in quotes."""
_CUTTING = str.maketrans({";": " \u2013", "#": "\uff03", "=": ":"})
"""Where Unraid writes its files without quotes (at least up to 7.1), a text that is shown ends
there: for its pages at a second equals sign, for its API at what begins a comment."""
_log = logging.getLogger(__name__)


class UnraidChannel:
    """Implements ``ports.Channel``."""

    name = "unraid"

    def __init__(self, root: Path = Path("/"), wait: Callable[[float], None] = time.sleep) -> None:
        """``root`` is where the host's file system begins."""
        self._root = root
        self._script = root / _SCRIPT
        self._wait = wait
        self._last = 0
        """The second in which the script last began."""

    def missing(self) -> str:
        """See the port."""
        return "" if self._script.exists() else f"this host has no {str(self._script)!r}"

    def send(self, message: Message, within: float) -> None:
        """See the port."""
        self._await_a_second_of_its_own()
        try:
            # To its end even if we are killed: half of it might be an e-mail that is never sent.
            done = execute(self._argv(message), timeout=within, finish=True)
        except (CommandFailed, ProgramMissing, OSError) as error:
            raise NotifyFailed(self.name, str(error).rstrip(".")) from error
        finally:
            self._last = int(time.time())
        if done.status != 0:
            words = one_line(done.stderr or done.stdout, 300) or "it says nothing"
            raise NotifyFailed(self.name, f"notify ended with status {done.status}: {words}")

    def was_sent(self, message: Message) -> bool:
        """See the port: whether the archive has it."""
        mark = _mark(message).encode()
        return any(mark in _content(path) for path in self._files())

    def _argv(self, message: Message) -> list[str]:
        words = {
            "-e": _EVENT,
            "-s": one_line(message.subject, 250),
            "-d": one_line(message.text, 500),
            "-i": str(message.severity),
            "-m": f"{_long(message.details or message.text)}\\n({_mark(message)})",
            "-l": message.link,
        }
        argv = [str(self._script)]
        for option, value in words.items():
            argv += [option, value if option == "-m" else _safe(value).translate(_CUTTING)]
        return argv

    def _await_a_second_of_its_own(self) -> None:
        """Wait until neither this process nor one before it has told anything in this second."""
        for _ in range(5):
            now = time.time()
            taken = self._archive() / f"VM_Babysitter_{int(now)}.notify"
            if int(now) != self._last and not taken.exists():
                break
            self._wait(int(now) + 1.05 - now)
        # The script takes its second when it has begun, which is a moment later.
        late = time.time() % 1
        if late > 0.9:  # noqa: PLR2004
            self._wait(1.05 - late)

    def _files(self) -> list[Path]:
        try:
            found = sorted(self._archive().glob(_FILES), key=lambda path: path.name)
        except OSError as error:
            _log.debug("the archive of notifications cannot be read: %s", error)
            return []
        return found[-_MOST_FILES:]

    def _archive(self) -> Path:
        folder = _FOLDER
        for name in _SETTINGS:
            folder = _path_in(self._root / name) or folder
        return self._root / folder.lstrip("/") / "archive"


def _mark(message: Message) -> str:
    return f"Notification {message.key}"


def _safe(text: str) -> str:
    return text.translate(_UNSAFE)


def _long(text: str) -> str:
    """Return lines as the script takes them: with a backslash and an n between them."""
    lines = (_safe(" ".join(line.split())) for line in text.splitlines())
    whole = "\\n".join(lines)
    return whole if len(whole) <= _LONGEST else f"{whole[:_LONGEST].rstrip(chr(92))}…"


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError:
        return b""


def _path_in(path: Path) -> str:
    """Return the folder of notifications that a file of settings names; empty if it names none."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    section = ""
    for line in map(str.strip, lines):
        if line.startswith("["):
            section = line.strip("[]")
        elif section == "notify" and line.partition("=")[0].strip() == "path":
            return line.partition("=")[2].strip().strip("\"'")
    return ""
