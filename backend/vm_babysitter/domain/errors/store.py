"""Errors about the backup folder and what lies in it."""

from dataclasses import dataclass
from typing import ClassVar

from vm_babysitter.domain.errors.base import BabysitterError, Exit


@dataclass(eq=False)
class StoreRefused(BabysitterError):
    """The backup folder is not fit for use."""

    code: ClassVar[str] = "store-refused"
    template: ClassVar[str] = "The backup folder {path!r} cannot be used: {reason}."
    hint_template: ClassVar[str] = "{way_out}"
    path: str
    reason: str
    way_out: str = ""


@dataclass(eq=False)
class StoreNotSetUp(BabysitterError):
    """The settings name no backup folder."""

    code: ClassVar[str] = "store-not-set-up"
    template: ClassVar[str] = "No backup folder is set up."
    hint_template: ClassVar[str] = (
        "Name one under Settings, VM Babysitter, or by "
        "`vm-babysitter settings set store.path FOLDER`."
    )


@dataclass(eq=False)
class StoreAway(BabysitterError):
    """The backup folder that is set up is not there, or another one lies in its place."""

    code: ClassVar[str] = "store-away"
    template: ClassVar[str] = "The backups cannot be reached: {reason}."
    hint_template: ClassVar[str] = "`vm-babysitter status` says what to do."
    reason: str


@dataclass(eq=False)
class StoreTaken(BabysitterError):
    """Another host writes to the backup folder."""

    code: ClassVar[str] = "store-taken"
    template: ClassVar[str] = (
        "The backup folder {path!r} belongs to the host {host!r}, since {since}: only one host "
        "writes to it."
    )
    hint_template: ClassVar[str] = (
        "If that host is not to back up into it any more, give it to this one: {command}. "
        "Reading and restoring work as it is."
    )
    path: str
    host: str
    """Its name."""
    since: str
    command: str
    """What gives it to this host."""


@dataclass(eq=False)
class StoreFailed(BabysitterError):
    """The backup folder failed while it was used (disk full, read-only, gone)."""

    code: ClassVar[str] = "store-failed"
    template: ClassVar[str] = "Using {path!r} failed: {reason}."
    hint_template: ClassVar[str] = (
        "See to its disk and the space there. Earlier restore points are unharmed; the next backup "
        "goes on."
    )
    path: str
    reason: str


@dataclass(eq=False)
class PointNotFound(BabysitterError):
    """The store has no such restore point."""

    code: ClassVar[str] = "point-not-found"
    exit_code: ClassVar[Exit] = Exit.NOT_FOUND
    template: ClassVar[str] = "There is no restore point {point!r} of VM {vm!r}."
    hint_template: ClassVar[str] = "`vm-babysitter points` lists the restore points there are."
    vm: str
    point: str


@dataclass(eq=False)
class PointDamaged(BabysitterError):
    """A file of one restore point is not what was written."""

    code: ClassVar[str] = "point-damaged"
    exit_code: ClassVar[Exit] = Exit.INTEGRITY
    template: ClassVar[str] = "Restore point {point} of VM {vm!r} is damaged: {reason}."
    hint_template: ClassVar[str] = "{way_out}"
    vm: str
    point: str
    seq: int
    reason: str
    way_out: str = "Other restore points may be whole: `verify` tells which."


@dataclass(eq=False)
class UnsupportedFormat(BabysitterError):
    """Written by a newer version of this program."""

    code: ClassVar[str] = "unsupported-format"
    exit_code: ClassVar[Exit] = Exit.INTEGRITY
    template: ClassVar[str] = "{path!r} has format {found}; this version reads up to {known}."
    hint_template: ClassVar[str] = (
        "Install a newer version of VM Babysitter{way_out}. Nothing was changed."
    )
    path: str
    found: int
    known: int
    way_out: str = ""


@dataclass(eq=False)
class Damaged(BabysitterError):
    """Something stored is not what was written."""

    code: ClassVar[str] = "damaged"
    exit_code: ClassVar[Exit] = Exit.INTEGRITY
    template: ClassVar[str] = "{path!r} is damaged: {reason}."
    hint_template: ClassVar[str] = "{way_out}"
    path: str
    reason: str
    way_out: str = ""


@dataclass(eq=False)
class StoreNotGiven(BabysitterError):
    """It was not said where the backups are."""

    code: ClassVar[str] = "store-not-given"
    exit_code: ClassVar[Exit] = Exit.USAGE
    template: ClassVar[str] = "No backup folder is given."
    hint_template: ClassVar[str] = "Name it with --store, before the command."
