"""A VM in memory with one raw disk whose image is a real file, to be converted."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.fakes.definitions import FakeDefinitions
from tests.support.fakes.disk import FakeDisk
from tests.support.fakes.hypervisor import FakeHypervisor
from tests.support.fakes.images import FakeImageTool
from tests.support.fakes.observer import RecordingObserver
from tests.support.read_qcow2 import read_layers
from vm_babysitter.adapters.conversion_files import LocalConversionFiles
from vm_babysitter.adapters.fingerprint import fingerprint
from vm_babysitter.adapters.qemu.own_images import FileImages
from vm_babysitter.adapters.real_path import real_path
from vm_babysitter.domain.errors import HypervisorUnreachable
from vm_babysitter.domain.space import Room
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.conversion import Converted, ConvertTools
from vm_babysitter.engine.convert import Convert
from vm_babysitter.engine.convert_back import ConvertBack
from vm_babysitter.engine.pace import Pace
from vm_babysitter.ports import DiskSource

BLOCK = 65536
GONE = HypervisorUnreachable("x", "gone")


class Killed(BaseException):
    """Our process was killed."""


class Files(LocalConversionFiles):
    """The real thing with as much room as a test says, and files found where it says."""

    free = 1 << 40

    def __init__(self) -> None:
        super().__init__(lambda path: real_path(self.elsewhere.get(path, path)))
        self.elsewhere: dict[str, str] = {}

    def room(self, path: str) -> Room:
        return Room(self.free, 1 << 40, 1)


class House:
    """A VM that is off, with one raw disk in a folder."""

    def __init__(self, folder: Path) -> None:
        self.raw = folder / "vdisk1.img"
        self.content = bytes(BLOCK) + b"x" * BLOCK + bytes(BLOCK) + b"y" * 1000 + bytes(536)
        self.raw.write_bytes(self.content)
        self.hypervisor = FakeHypervisor()
        disk = FakeDisk(size=len(self.content), path=str(self.raw), format="raw")
        self.vm = self.hypervisor.add("vm", disk)
        self.vm.state = PowerState.OFF
        self.definitions = FakeDefinitions(self.hypervisor)
        self.files = Files()
        self.images = FakeImageTool()
        self.observer = RecordingObserver()
        self.cancel = Cancel()
        self.clock = FakeClock()
        self.folder = folder
        self.new = folder / "vdisk1.qcow2"
        self.note_path = folder / "vdisk1.qcow2.vmb-convert.json"

    def tools(self) -> ConvertTools:
        return ConvertTools(
            hypervisor=self.hypervisor,
            definitions=self.definitions,
            files=self.files,
            images=self.images,
            own_images=FileImages(),
            fingerprint=fingerprint,
            clock=self.clock,
            observer=self.observer,
            cancel=self.cancel,
            pace=Pace(None, self.cancel),
            priority=nullcontext,
        )

    def convert(self) -> Converted:
        return Convert(self.tools()).run("vm", "vda")

    def back(self, *, lose_changes: bool = False) -> Converted:
        return ConvertBack(self.tools()).run("vm", "vda", lose_changes=lose_changes)

    @property
    def source(self) -> DiskSource | None:
        return self.definitions.disk_source(self.vm.uuid, "vda")

    def assert_raw(self, *left: Path) -> None:
        """The definition names the raw image, and only these files lie beside it."""
        assert self.source == DiskSource(str(self.raw), "raw")
        assert set(self.folder.iterdir()) == {self.raw, *left}

    def assert_new(self) -> None:
        assert self.source == DiskSource(str(self.new), "qcow2")
        assert set(self.folder.iterdir()) == {self.raw, self.new, self.note_path}
        assert read_layers([self.new]) == self.content
        assert self.raw.read_bytes() == self.content

    def at(self, step: str, do: Callable[[], object]) -> None:
        self.observer.at[step] = lambda: (do(), None)[1]

    def die_at(self, step: str) -> None:
        """Be killed there: nothing of ours goes on, the definitions are out of reach."""
        done = dict(self.definitions.fail)

        def die() -> None:
            self.definitions.fail["disk_source"] = GONE
            raise Killed

        self.observer.at[step] = die
        with pytest.raises(Killed):
            self.convert()
        self.definitions.fail = done
        self.observer.at.clear()
