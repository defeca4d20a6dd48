"""What a VM has beside its disks: read around the moment of a backup, kept in the point.

Its UEFI variables (NVRAM) and the state of its TPM are written by others while the VM runs and
are no part of libvirt's job. They are read before and after that began; what is the same in two
readings in a row is taken for whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vm_babysitter.domain.point import SavedFile
from vm_babysitter.engine.tools import Sight, Tools
from vm_babysitter.ports import Belongings, PointDraft, SideContent

DEFINITION_FILE = "domain.xml"
MAX_BYTES = 64 << 20
"""What an NVRAM or a TPM state may have at most; real ones have less than one MiB."""
_MORE_TRIES = 3
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Kept:
    """What of it is in the point."""

    files: tuple[SavedFile, ...]
    warnings: tuple[str, ...]
    autostart: bool


@dataclass(frozen=True, slots=True)
class _Item:
    """Something to be kept: a file, or a folder of files."""

    words: str
    path: str
    folder: bool
    name: Callable[[str], str]
    """Returns the name in the point of a file with this name in the folder."""
    format: str = ""


class Beside:
    """What one VM has beside its disks: made before the moment, saved after it."""

    def __init__(self, tools: Tools, uuid: str, *, first: bool) -> None:
        """Read all of it for the first time.

        What can never be read is told in the ``first`` point of a chain only.

        Raises:
            VmNotFound, HypervisorError: libvirt could not tell what there is.
        """
        self._tools = tools
        self._first = first
        self._has = tools.hypervisor.belongings(uuid)
        self._before = [(item, self._read(item)) for item in _items(self._has)]

    def save(self, draft: PointDraft) -> Kept:
        """Read it again, until two readings agree or patience is over, and put it in the point.

        What cannot be read, or does not come to rest, is a warning.

        Raises:
            StoreFailed, Cancelled.
        """
        files: list[SavedFile] = []
        warnings = list(self._has.out_of_reach) if self._first else []
        if self._has.managed_save:
            warnings.append("memory state not included: libvirt holds a saved one (managed save)")
        for item, before in self._before:
            content, settled = self._settle(item, before)
            files += [_save(draft, item, name, data) for name, data in content.files]
            warnings += _complaints(item, content, settled=settled)
        return Kept(tuple(files), tuple(warnings), self._has.autostart)

    def _settle(self, item: _Item, before: SideContent) -> tuple[SideContent, bool]:
        """Return the last reading, and whether the one before it was the same."""
        last, now = before, self._read(item)
        for _ in range(_MORE_TRIES):
            if now == last:
                break
            self._tools.cancel.wait(_PAUSE_SECONDS)
            last, now = now, self._read(item)
        return now, now == last

    def _read(self, item: _Item) -> SideContent:
        return self._tools.side_files.read(item.path, MAX_BYTES, folder=item.folder)


def beside_mark(sight: Sight, uuid: str) -> str:
    """Return a digest of a VM's definition and of all that it has beside its disks, in hex."""
    has, read = sight.hypervisor.belongings(uuid), sight.side_files.read
    contents = [read(item.path, MAX_BYTES, folder=item.folder) for item in _items(has)]
    told = repr((sight.hypervisor.definition(uuid), has, contents))
    return sight.fingerprint(memoryview(told.encode())).hex()


def where_they_belong(files: Sequence[SavedFile]) -> tuple[str, ...]:
    """Say of restored files where on the host they lay."""
    return tuple(f"{file.name} belongs at {file.origin!r}" for file in files if file.origin)


def _items(has: Belongings) -> list[_Item]:
    items = []
    if has.nvram:
        name = "nvram.qcow2" if has.nvram_format == "qcow2" else "nvram.fd"
        items.append(_Item("the NVRAM", has.nvram, False, lambda _: name, has.nvram_format))
    if has.tpm:
        folder = not has.tpm_in_one_file
        items.append(_Item("the TPM state", has.tpm, folder, lambda file: f"tpm-{file or 'state'}"))
    return items


def _save(draft: PointDraft, item: _Item, name: str, data: bytes) -> SavedFile:
    origin = f"{item.path}/{name}" if name else item.path
    return replace(draft.save(item.name(name), data), origin=origin, format=item.format)


def _complaints(item: _Item, content: SideContent, *, settled: bool) -> list[str]:
    how = "is not complete" if content.files else "is not included"
    warnings = [f"{item.words} {how}: {problem}" for problem in content.problems]
    if not settled:
        warnings.append(
            f"{item.words} kept changing while it was read; what is kept may be of no one moment"
        )
    return warnings
