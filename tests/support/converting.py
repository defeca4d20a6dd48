"""A VM with a raw disk that is off, to be converted again and again."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

from lxml import etree

from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import named, run
from tests.support.vm import MIB, DiskSpec
from tests.support.world import World

SPEC = DiskSpec("vda", "raw", size=12 * MIB)
OTHER = DiskSpec("vdb", "qcow2", size=8 * MIB)


class RawWorld(World):
    """A world whose disk ``vda`` is raw; ``held`` is a copy of what it holds."""

    def __init__(self, host: PrivateLibvirtd, folder: Path, name: str = "- 'raw' ü: {x}") -> None:
        super().__init__(host, folder, name, disks=(SPEC, OTHER))
        self.vm.stop()
        self.raw = self.vm.paths["vda"]
        self.held = self.copies()["vda"]
        self.original = self.definition()

    @property
    def new(self) -> Path:
        """Where the new image goes."""
        return self.raw.with_suffix(".qcow2")

    @property
    def note(self) -> Path:
        return Path(f"{self.new}.vmb-convert.json")

    def definition(self) -> str:
        """The persistent definition."""
        return cast(str, self.host.call("xml", self.vm.name, True))

    def source(self) -> tuple[Path, str]:
        """Path and format that the persistent definition gives vda; the test VM follows it."""
        disk = etree.fromstring(self.definition()).findall("devices/disk")[0]
        found = disk.find("source"), disk.find("driver")
        assert found[0] is not None
        assert found[1] is not None
        path, format = Path(found[0].get("file", "")), found[1].get("type", "")
        self.vm.paths["vda"] = path
        self.vm.disks["vda"] = replace(SPEC, format=format)
        return path, format

    def convert(self, *options: str, expect: int = 0) -> str:
        """Run the command; return what it said."""
        done = self.call("convert", *options, "--", self.vm.name, "vda", expect=expect)
        return done.stdout + done.stderr

    def undo(self, *options: str, expect: int = 0) -> str:
        return self.convert("--undo", *options, expect=expect)

    def left(self) -> set[str]:
        """The files beside the disks, but for the images the VM was made with."""
        ours = {self.raw.name, "vdb.qcow2"}
        return {path.name for path in self.disks.iterdir()} - ours

    def assert_data(self, content: Path | None = None) -> None:
        """The image that the definition names has all that was written, and the VM starts."""
        path, format = self.source()
        run("qemu-img", "compare", named(path, format), named(content or self.held, "raw"))
        self.vm.start()
        self.vm.stop()

    def assert_raw(self) -> None:
        """All is as if nothing had been."""
        assert self.definition() == self.original
        assert self.left() == set()
        run("qemu-img", "compare", named(self.raw, "raw"), named(self.held, "raw"))

    def assert_converted(self) -> None:
        """The VM has the new image, the old one is kept, and nothing else is left."""
        assert self.source() == (self.new, "qcow2")
        assert self.left() == {self.new.name, self.note.name}
        run("qemu-img", "compare", named(self.raw, "raw"), named(self.held, "raw"))
        run("qemu-img", "check", named(self.new))
        self.assert_data()

    def reset(self) -> None:
        """Have it raw again, whatever happened, for the next test."""
        if self.vm.state != "shutoff":
            self.vm.stop()
        self.vm.define(self.original)
        for name in self.left():
            (self.disks / name).unlink()
        shutil.copyfile(self.held, self.raw)
        self.source()
