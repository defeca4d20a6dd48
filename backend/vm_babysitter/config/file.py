"""The file of the settings: on a flash drive, so it is written only when something changed."""

import os
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from vm_babysitter.config.check import Checked, check
from vm_babysitter.config.context import Context
from vm_babysitter.config.document import Document, decode, encode, put, tag_of
from vm_babysitter.config.migrate import VERSION, migrate
from vm_babysitter.config.settings import Settings
from vm_babysitter.domain.errors import (
    Damaged,
    InvalidSettings,
    SettingsChanged,
    SettingsFailed,
    UnsupportedFormat,
)
from vm_babysitter.lib.atomicfile import write_atomically

_MOST_BYTES = 4 << 20
_MAKE_WAY = "Move it away; then all settings are as they are by default until you save some."
_NEW: Document = {"version": VERSION}
_MOVED = {"id": "", "filesystem": ""}


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings that hold."""

    settings: Settings
    document: Document
    """As the file has them, with what this version does not know."""
    tag: str
    """Changes with every change."""
    checked: Checked
    is_set_up: bool
    """Whether a backup folder is set up."""


class SettingsFile:
    """Loads and saves the settings. Safe for threads; one process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def load(self, known: Context | None = None) -> Loaded:
        """Read the settings. Without a file all are as they are by default, and nothing is set up.

        Raises:
            Damaged, UnsupportedFormat: it is no file of settings of ours, or of a newer version.
            InvalidSettings: values in it break rules.
            SettingsFailed: it cannot be read.
        """
        document = self._document()
        checked = check(document, known)
        if checked.settings is None:
            words = " ".join(map(str, checked.errors))
            raise InvalidSettings(str(self.path), len(checked.errors), words)
        tag = tag_of(document)
        is_set_up = bool(checked.settings.store.path)
        return Loaded(checked.settings, document, tag, checked, is_set_up)

    def tag(self) -> str:
        """Return the tag of what the file says, right or wrong; empty if it is damaged.

        Raises:
            UnsupportedFormat, SettingsFailed.
        """
        try:
            return tag_of(self._document())
        except Damaged:
            return ""

    def save(self, raw: object, tag: str | None, known: Context | None = None) -> Checked:
        """Save settings if they are right; else nothing is changed, and all errors are returned.

        Args:
            raw: the whole document.
            tag: that of the settings which were changed; None: whatever they are now.
            known: the VMs that there are; None if that is not known now.

        Raises:
            SettingsChanged: the file does not have that tag any more.
            UnsupportedFormat: the file is of a newer version, and stays.
            SettingsFailed: it cannot be written; the old one stays.
            Damaged: something else has its place, or it is far too large to be kept.
        """
        checked = check(raw, known)
        if checked.settings is None:
            return checked
        with self._lock:
            try:
                old: Document | None = self._document()
            except Damaged:
                old = None
            if tag is not None and tag != ("" if old is None else tag_of(old)):
                raise SettingsChanged(str(self.path))
            document = checked.document if old is None else _moved(old, checked.document)
            if document is not checked.document:
                checked = check(document, known)
            self._write(document, old)
        return checked

    def change(self, values: Mapping[tuple[str, ...], object]) -> Checked:
        """Change single values, those that the program itself fills in.

        Raises:
            Damaged, UnsupportedFormat, SettingsFailed, SettingsChanged.
        """
        document = self._document()
        tag = tag_of(document)
        for where, value in values.items():
            document = put(document, where, value)
        return self.save(document, tag)

    def export(self) -> bytes:
        """Return the settings as a text that ``take_in`` takes, here or on another host.

        Raises:
            Damaged, UnsupportedFormat, SettingsFailed.
        """
        return encode(self._document())

    def take_in(self, content: bytes, tag: str | None, known: Context | None = None) -> Checked:
        """Replace all settings by exported ones, or none of them if one is wrong.

        Raises:
            Damaged, UnsupportedFormat: the text is not of settings, or of a newer version.
            SettingsChanged, SettingsFailed: as ``save``.
        """
        where = "the imported settings"
        if len(content) > _MOST_BYTES:
            raise Damaged(where, "they are too large", "Is this another file?")
        return self.save(migrate(decode(content, where), where), tag, known)

    def _document(self) -> Document:
        content = self._content()
        if content is None:
            return dict(_NEW)
        try:
            return migrate(decode(content, str(self.path)), str(self.path))
        except UnsupportedFormat as error:
            kept = self._kept(VERSION)
            if not kept.exists():
                raise
            way_out = f", or put {kept.name}, kept beside it, in its place"
            raise UnsupportedFormat(error.path, error.found, error.known, way_out) from error

    def _content(self) -> bytes | None:
        """Read the file; None if there is none."""
        try:
            # A pipe of that name would keep us waiting without O_NONBLOCK.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise Damaged(str(self.path), "it is no file", _MAKE_WAY)
                if found.st_size > _MOST_BYTES:
                    raise Damaged(str(self.path), "it is too large for settings", _MAKE_WAY)
                with open(descriptor, "rb", closefd=False) as file:
                    return file.read()
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsFailed(str(self.path), error.strerror or str(error)) from error

    def _write(self, document: Document, old: Document | None) -> None:
        if old is not None and self.path.exists() and tag_of(old) == tag_of(document):
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            before = self._content()
            if before is not None:
                self._keep(before, damaged=old is None)
            write_atomically(self.path, encode(document))
        except OSError as error:
            raise SettingsFailed(str(self.path), error.strerror or str(error)) from error

    def _keep(self, content: bytes, *, damaged: bool) -> None:
        """Keep beside the new what could not be read, or what an older version reads."""
        if damaged:
            digest = blake3(content).hexdigest()[:8]
            aside = self.path.with_name(f"{self.path.name}.damaged-{digest}")
        else:
            version = decode(content, str(self.path)).get("version")
            if type(version) is not int or not 0 < version < VERSION:
                return
            aside = self._kept(version)
        write_atomically(aside, content)

    def _kept(self, version: int) -> Path:
        """Return where settings of an older version are kept once they were rewritten."""
        return self.path.with_name(f"{self.path.name}.version-{version}")


def _moved(old: Document, new: Document) -> Document:
    """Forget what was noted about the backup folder if another one is named."""
    before, after = old.get("store"), new.get("store")
    if not isinstance(before, dict) or not isinstance(after, dict):
        return new
    if before.get("path", "") == after.get("path", ""):
        return new
    stale = {key: "" for key in _MOVED if after.get(key) and after.get(key) == before.get(key)}
    return {**new, "store": {**after, **stale}} if stale else new
