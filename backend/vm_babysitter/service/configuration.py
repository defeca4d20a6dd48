"""The settings that hold now, and who is told when they change."""

import logging
import threading
from collections.abc import Callable, Mapping

from vm_babysitter.config.check import Checked
from vm_babysitter.config.context import Context
from vm_babysitter.config.file import Loaded, SettingsFile
from vm_babysitter.config.settings import Settings
from vm_babysitter.domain.errors import BabysitterError

_DEFAULTS = Settings()
_log = logging.getLogger(__name__)


class Configuration:
    """Holds the settings. Safe for threads."""

    def __init__(self, file: SettingsFile) -> None:
        self.file = file
        self.problem: BabysitterError | None = None
        """Why the file cannot be used; then nothing is done by schedule."""
        self._loaded: Loaded | None = None
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._telling = threading.RLock()
        """Listeners hear of one change after the other, or the older one might be heard last."""

    @property
    def settings(self) -> Settings:
        """What holds: what was right last, at first the defaults, with which nothing is set up."""
        loaded = self._loaded
        return _DEFAULTS if loaded is None else loaded.settings

    @property
    def loaded(self) -> Loaded | None:
        """The file as it was read last; None if it never could be."""
        return self._loaded

    def on_change(self, told: Callable[[], None]) -> None:
        """Have ``told`` called after each change."""
        self._listeners.append(told)

    def load(self) -> None:
        """Read the file. What is wrong with it is kept in ``problem``; never fails."""
        with self._lock:
            self._read()
        self._tell()

    def refresh(self) -> None:
        """Read the file again; listeners hear of it if it was changed by other means."""
        with self._lock:
            before = self._mark()
            self._read()
            changed = self._mark() != before
        if changed:
            self._tell()

    def save(self, raw: object, tag: str | None, known: Context | None) -> Checked:
        """Save settings if they are right, see ``SettingsFile.save``."""
        with self._lock:
            checked = self.file.save(raw, tag, known)
        if not checked.errors:
            self.load()
        return checked

    def change(
        self,
        values: Mapping[tuple[str, ...], object],
        still: Callable[[Settings], bool] = lambda _: True,
    ) -> None:
        """Change what the program itself fills in; a file that is wrong is left alone.

        ``still`` says of the settings that hold whether the change is one of them still: what was
        found out may be about settings that were replaced meanwhile.

        Raises:
            SettingsFailed, SettingsChanged, Damaged, UnsupportedFormat.
        """
        with self._lock:
            before = self._mark()
            self._read()
            if self.problem is None and still(self.settings):
                self.file.change(values)
                self._read()
            changed = self._mark() != before
        if changed:
            self._tell()

    def _read(self) -> None:
        try:
            self._loaded, self.problem = self.file.load(), None
        except BabysitterError as error:
            self.problem = error

    def _mark(self) -> tuple[str, str]:
        tag = "" if self._loaded is None else self._loaded.tag
        return tag, "" if self.problem is None else str(self.problem)

    def _tell(self) -> None:
        with self._telling:
            for told in self._listeners:
                try:
                    told()
                except Exception:  # noqa: BLE001 - what is saved holds, whoever stumbles over it
                    _log.exception("Not all parts took over the settings.")
