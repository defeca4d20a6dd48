"""What converting a disk needs of the files beside it."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from vm_babysitter.domain.conversion import ImageFile, Note
from vm_babysitter.domain.space import Room


@dataclass(frozen=True, slots=True)
class DiskSource:
    """The image that a definition gives a disk."""

    file: str
    """The path as written; empty where it is no file."""
    format: str
    bound: tuple[str, ...] = ()
    """What else the definition says that is true of this image only, such as ``encryption``."""


@dataclass(frozen=True, slots=True)
class ImageUse:
    """A file or block device that a definition names as a disk, or as beneath one."""

    vm_uuid: str
    vm: str
    target: str
    source: str
    """The path as written."""


class Definitions(Protocol):
    """The definitions that libvirt has of VMs. VMs are named by their UUID."""

    def image_uses(self) -> tuple[ImageUse, ...]:
        """Return what the definitions of all VMs name, persistent, running and transient ones."""

    def snapshots(self, uuid: str) -> tuple[str, ...]:
        """Return the names of the snapshots that libvirt keeps of a VM."""

    def disk_source(self, uuid: str, target: str, *, running: bool = False) -> DiskSource | None:
        """Return the image that the persistent definition gives a disk; None without such a disk.

        ``running``: that of the definition the VM runs with; None if it does not run.
        """

    def switch_disk(self, uuid: str, target: str, old: DiskSource, new: DiskSource) -> None:
        """Have the persistent definition give a disk another image; all else stays.

        A VM that runs goes on with what it has.

        Raises:
            Busy: the definition does not give it ``old`` any more.
            HypervisorError.
        """


class ConversionFiles(Protocol):
    """Image files of VMs that are off, and the notes beside them.

    All methods raise ConversionFailed where the file system does not do what is asked.
    """

    def real_path(self, path: str) -> str:
        """Return the file that QEMU opens for a path in a definition."""

    def look(self, path: str) -> ImageFile | None:
        """Describe what has this name, links not followed; None if nothing has."""

    def room(self, path: str) -> Room:
        """Return the file system of the folder that a file lies in."""

    def writer(self, path: str) -> str:
        """Return who has a file open for writing, in a user's words; empty if nobody has."""

    def claim(self, name: str) -> AbstractContextManager[None]:
        """Be the only one on this machine to work on something; raises Busy."""

    def fence(self, path: str) -> AbstractContextManager[None]:
        """Keep QEMU from beginning to write an image, for moments; raises Busy if one does.

        A VM that is started meanwhile fails to start: better than one whose definition is
        exchanged between its being read and its being noticed that it runs.
        """

    def dress(self, path: str, like: str) -> None:
        """Give a new file the owner, group and mode of another, and have it on stable storage."""

    def place(self, path: str, final: str) -> None:
        """Give a file its final name; overwrites nothing."""

    def remove(self, path: str) -> None:
        """Remove a plain file that is ours; one that is not there is fine."""

    def read_note(self, path: str) -> Note | None:
        """Read a note; None if there is none. Raises Damaged, UnsupportedFormat."""

    def write_note(self, path: str, note: Note) -> None:
        """Write or replace a note, whole or not at all."""
