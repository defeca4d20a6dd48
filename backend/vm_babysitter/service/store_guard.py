"""Sees to it that backups go where they were set up to go, and only while there is room."""

import threading
from collections.abc import Callable
from pathlib import Path

from vm_babysitter.config.forms import space_in_bytes
from vm_babysitter.domain.errors import BabysitterError, NotEnoughSpace, StoreFailed
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.space import Room
from vm_babysitter.domain.store_standing import Standing, standing, why_not
from vm_babysitter.lib.units import format_bytes
from vm_babysitter.ports import Clock, FindStore
from vm_babysitter.service.configuration import Configuration

Tell = Callable[[Event], None]


class StoreGuard:
    """Looks at the backup folder of the settings."""

    def __init__(
        self,
        configuration: Configuration,
        find: FindStore,
        room: Callable[[Path], Room],
        clock: Clock,
    ) -> None:
        self.tell: Tell = lambda _: None
        """Who is told what happens to it."""
        self._configuration = configuration
        self._find = find
        self._room = room
        self._clock = clock
        self._lock = threading.Lock()
        self._told: set[str] = set()
        """Codes of what was told and is still so: it is told once."""

    @property
    def path(self) -> Path | None:
        """The backup folder; None if none is set up."""
        path = self._configuration.settings.store.path
        return Path(path) if path else None

    def standing(self) -> Standing | None:
        """Return what lies there; None if none is set up. Raises StoreFailed, UnsupportedFormat."""
        path, known = self.path, self._configuration.settings.store
        return None if path is None else standing(known.id, known.filesystem, self._find(path))

    def hindrance(self) -> str:
        """Return why there can be no backups now, as a part of a sentence; empty if there can."""
        try:
            found = self.standing()
        except BabysitterError as error:
            return error.message
        if found is None:
            return "no backup folder is set up"
        reason = why_not(found, str(self.path))
        code = f"store-{found}"
        if found in {Standing.AWAY, Standing.OTHER}:
            self._once(code, Severity.ALERT, "The backup folder is not there", f"{reason}.")
        else:
            self._over("store-away", "store-other")
        return reason

    def note(self) -> None:
        """Note which folder it is, once it is one; tell if it was emptied."""
        path, known = self.path, self._configuration.settings.store
        if path is None:
            return
        found = self._find(path)
        if not found.id or (found.id, found.filesystem) == (known.id, known.filesystem):
            return
        if known.id and known.id != found.id:
            text = (
                f"{str(path)!r} had lost what marked it as the backup folder, as if somebody had "
                "emptied it. Backups go on in it."
            )
            self._event("store-renewed", Severity.ALERT, "The backup folder was emptied", text)
        self._configuration.change(
            {("store", "id"): found.id, ("store", "filesystem"): found.filesystem}
        )

    def check_room(self) -> None:
        """Refuse to begin a backup where there is too little space; warn before that.

        Raises:
            NotEnoughSpace, StoreFailed.
        """
        path, space = self.path, self._configuration.settings.space
        if path is None:
            return
        try:
            room = self._room(path)
        except OSError as error:
            raise StoreFailed(str(path), error.strerror or str(error)) from error
        stop = space_in_bytes(space.stop_free, room.total)
        warn = space_in_bytes(space.warn_free, room.total)
        words = f"{str(path)!r} has {format_bytes(room.free)} free of {format_bytes(room.total)}."
        if room.free < stop:
            text = f"{words} No backup begins until there are {format_bytes(stop)}."
            self._once("store-full", Severity.ALERT, "The backup folder is full", text)
            raise NotEnoughSpace(str(path), room.free, stop)
        self._over("store-full")
        if room.free < warn:
            self._once("store-low", Severity.WARNING, "The backup folder fills up", words)
        else:
            self._over("store-low")

    def troubles(self) -> tuple[str, ...]:
        """Return the codes of what was told and is still so."""
        with self._lock:
            return tuple(sorted(self._told))

    def _once(self, code: str, severity: Severity, subject: str, text: str) -> None:
        with self._lock:
            if code in self._told:
                return
            self._told.add(code)
        self._event(code, severity, subject, text)

    def _over(self, *codes: str) -> None:
        with self._lock:
            self._told -= set(codes)

    def _event(self, code: str, severity: Severity, subject: str, text: str) -> None:
        self.tell(Event(self._clock.now(), code, severity, subject, text, code=code))
