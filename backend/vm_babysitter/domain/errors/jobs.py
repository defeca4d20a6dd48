"""Errors about jobs and the journal that keeps them."""

from dataclasses import dataclass
from typing import ClassVar

from vm_babysitter.domain.errors.base import BabysitterError, Exit


@dataclass(eq=False)
class JobNotFound(BabysitterError):
    """There is no such job."""

    code: ClassVar[str] = "job-not-found"
    exit_code: ClassVar[Exit] = Exit.NOT_FOUND
    template: ClassVar[str] = "There is no job {job}."
    hint_template: ClassVar[str] = (
        "`vm-babysitter jobs` lists those there are; old ones are removed after a while."
    )
    job: int


@dataclass(eq=False)
class JobStalled(BabysitterError):
    """A job did not get on, and was ended."""

    code: ClassVar[str] = "job-stalled"
    template: ClassVar[str] = "Nothing moved for {quiet} (step: {step}), so it was ended."
    hint_template: ClassVar[str] = (
        "Something does not answer: libvirt, the VM's QEMU, its disks or the backup folder."
    )
    transient: ClassVar[bool] = True
    quiet: str
    step: str


@dataclass(eq=False)
class JobTooLong(BabysitterError):
    """A job took longer than it may."""

    code: ClassVar[str] = "job-too-long"
    template: ClassVar[str] = "It was ended after {longest}, the longest that a job may take."
    hint_template: ClassVar[str] = (
        "If it needs that long, raise the limit (backup.longest); a first backup reads all."
    )
    longest: str


@dataclass(eq=False)
class JournalFailed(BabysitterError):
    """The journal of jobs and events cannot be used."""

    code: ClassVar[str] = "journal-failed"
    template: ClassVar[str] = "The journal {path!r} cannot be used: {reason}."
    hint_template: ClassVar[str] = (
        "See to the disk that it lies on, and its space. Backups go on; until this is put right, "
        "what they did is kept in memory only."
    )
    transient: ClassVar[bool] = True
    path: str
    reason: str
