"""Sees to it that backups go where they were set up to go, and only while there is room."""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from vm_babysitter.config.forms import space_in_bytes
from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.space import Room
from vm_babysitter.domain.store_standing import Standing, standing, why_not
from vm_babysitter.lib.units import format_bytes
from vm_babysitter.ports import Clock, FindStore
from vm_babysitter.service.configuration import Configuration

Tell = Callable[[Event], None]
_log = logging.getLogger(__name__)
_GONE = ("store-away", "store-other", "store-failed")
_BACK, _ROOM = "store-back", "store-room"
_SLACK = 1.1
"""How much more than the limit has to be free for want of space to be over: who writes there next
to it would else be told of each time it is crossed."""
_WAYS_OUT = {
    "store-away": "Mount its disk, or choose another folder: Settings, VM Babysitter.",
    "store-other": (
        "Mount the right disk. If backups are to go to what lies there now, `vm-babysitter status` "
        "says how."
    ),
}


class StoreGuard:
    """Looks at the backup folder of the settings."""

    def __init__(
        self,
        configuration: Configuration,
        find: FindStore,
        room: Callable[[Path], Room],
        clock: Clock,
        grace: timedelta = timedelta(0),
    ) -> None:
        """``grace`` is for how long at first a folder may be away before that is told.

        Disks of Unassigned Devices, and shares of other hosts, come after the array.
        """
        self.tell: Tell = lambda _: None
        """Who is told what happens to it."""
        self._configuration = configuration
        self._find = find
        self._room = room
        self._clock = clock
        self._grace, self._begun = grace, clock.now()
        self._lock = threading.Lock()
        self._told: set[str] = set()
        """Codes of what is so."""
        self._open: set[str] = set()
        """Codes of what was told, and of which was not said that it is over: it is told once."""
        self._about: Path | None = None
        """The folder that it was told of."""

    @property
    def path(self) -> Path | None:
        """The backup folder; None if none is set up."""
        path = self._configuration.settings.store.path
        return Path(path) if path else None

    def hindrance(self) -> str:
        """Return why there can be no backups now, as a part of a sentence; empty if there can."""
        path = self.path
        self._turn_to(path)
        if path is None:
            return "no backup folder is set up"
        known = self._configuration.settings.store
        try:
            found = standing(known.id, known.filesystem, self._find(path))
        except BabysitterError as error:
            self._gone_is("store-failed")
            subject = "The backup folder cannot be used"
            self._once("store-failed", Severity.ALERT, subject, error.lines)
            return error.message.rstrip(".")
        reason = why_not(found, str(path))
        code = f"store-{found}" if reason or found is Standing.RENEWED else ""
        self._gone_is(code)
        if reason:
            words = f"{reason[0].upper()}{reason[1:]}. Backups wait for it.\n{_WAYS_OUT[code]}"
            if found is Standing.OTHER or not self._may_still_come():
                self._once(code, Severity.ALERT, "The backup folder is not there", words)
            else:
                self._is_so(code)
        elif found is Standing.RENEWED:
            self._begin_anew(path)
        return reason

    def note(self) -> None:
        """Note which folder it is, once it is one. Never fails: a backup may depend on it."""
        path, known = self.path, self._configuration.settings.store
        if path is None:
            return
        try:
            found = self._find(path)
            if not found.id or (found.id, found.filesystem) == (known.id, known.filesystem):
                return
            if known.id and found.id != known.id:
                return  # another folder has come there meanwhile: whoever looks next will tell
            self._configuration.change(
                {("store", "id"): found.id, ("store", "filesystem"): found.filesystem},
                still=lambda now: now.store == known,
            )
        except BabysitterError as error:
            _log.warning("Which backup folder it is was not noted: %s", error)

    def _begin_anew(self, path: Path) -> None:
        """Take a folder that was emptied for a new one on the same file system, and tell so."""
        text = (
            f"{str(path)!r} has lost what marks it as the backup folder, as if somebody had "
            "emptied it. Backups go on in it.\nIf it was not you, look who did: what lay there "
            "can be restored no more."
        )
        known = self._configuration.settings.store
        self._once("store-renewed", Severity.ALERT, "The backup folder was emptied", text)
        try:
            # Now: the next backup makes another mark, which else would be that of another folder.
            self._configuration.change({("store", "id"): ""}, still=lambda now: now.store == known)
        except BabysitterError as error:
            _log.warning("That the backup folder was emptied was not noted: %s", error)
            return
        self._end("store-renewed")

    def lack_of_room(self) -> str:
        """Return that no backup begins for want of space, as a part of a sentence; else empty.

        Whoever listens is told once, and before it comes to that.
        """
        path, space = self.path, self._configuration.settings.space
        self._turn_to(path)
        if path is None:
            return ""
        try:
            room = self._room(path)
        except OSError as error:
            return f"the space in {str(path)!r} cannot be told: {error.strerror or error}"
        stop = space_in_bytes(space.stop_free, room.total)
        warn = space_in_bytes(space.warn_free, room.total)
        words = f"{str(path)!r} has {format_bytes(room.free)} free of {format_bytes(room.total)}."
        if room.free < stop:
            text = (
                f"{words} No backup begins until there are {format_bytes(stop)}.\nFree some space "
                "there, or choose another folder: Settings, VM Babysitter."
            )
            self._once("store-full", Severity.ALERT, "The backup folder is full", text)
            return f"space in the backup folder: {format_bytes(stop)} have to be free"
        self._over("store-full")
        if room.free < warn:
            text = f"{words}\nFree some space there; below {format_bytes(stop)} no backup begins."
            self._once("store-low", Severity.WARNING, "The backup folder fills up", text)
        else:
            self._over("store-low")
        limits = {"store-full": stop, "store-low": warn}
        if self._end(*(code for code, least in limits.items() if room.free >= least * _SLACK)):
            subject = "The backup folder has room again"
            self._event(_ROOM, Severity.NORMAL, subject, f"{words} Nothing is left to do.")
        return ""

    def troubles(self) -> tuple[str, ...]:
        """Return the codes of what was told and is still so."""
        with self._lock:
            return tuple(sorted(self._told))

    def _turn_to(self, path: Path | None) -> None:
        """Forget what was told of another folder."""
        with self._lock:
            if path != self._about:
                self._about = path
                self._told.clear()
                self._open.clear()

    def _may_still_come(self) -> bool:
        return timedelta(0) <= self._clock.now() - self._begun < self._grace

    def _is_so(self, code: str) -> None:
        with self._lock:
            self._told.add(code)

    def _once(self, code: str, severity: Severity, subject: str, text: str) -> None:
        with self._lock:
            self._told.add(code)
            if code in self._open:
                return
            self._open.add(code)
        self._event(code, severity, subject, text)

    def _over(self, *codes: str) -> None:
        with self._lock:
            self._told -= set(codes)

    def _end(self, *codes: str) -> bool:
        """Have it told again if it comes again; return whether it was told of any of them."""
        self._over(*codes)
        with self._lock:
            known = self._open & set(codes)
            self._open -= known
        return bool(known)

    def _gone_is(self, code: str) -> None:
        """Note for which reason the folder cannot be used, and tell if there is none any more."""
        ended = self._end(*(other for other in _GONE if other != code))
        if ended and not code:
            text = f"Backups go on in {str(self.path)!r}. Nothing is left to do."
            self._event(_BACK, Severity.NORMAL, "The backup folder can be used again", text)

    def _event(self, code: str, severity: Severity, subject: str, text: str) -> None:
        self.tell(Event(self._clock.now(), code, severity, subject, text, code=code))
