"""A VM of the chaos ring: what it is expected to be, and what its disks hold now."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

from lxml import etree

from tests.chaos.words import Skip
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import named, run
from tests.support.vm import DiskSpec, TestVm, create_image, run_qemu_img

KIB = 1024
MIB = 1024 * KIB
OFF, PAUSED, RUNNING = "shutoff", "paused", "running"


class Machine:
    """One VM, the power state it was left in, and the images it has."""

    def __init__(
        self, host: PrivateLibvirtd, folder: Path, name: str, disks: tuple[DiskSpec, ...]
    ) -> None:
        folder.mkdir()
        self.host = host
        self.folder = folder
        self.vm = TestVm(host, folder, name, disks)
        self.power = OFF
        self.below: dict[str, list[tuple[Path, DiskSpec]]] = {}
        """By target: the layers below the active one, the lowest first."""
        self.kept: dict[str, list[str]] = {}
        """By target: the internal snapshots of its image."""
        self.earlier: dict[str, tuple[DiskSpec, Path, Path]] = {}
        """By target: what a disk was, where it lay, and a copy of its image."""
        self.images = set(self.vm.paths.values())
        """All images there ever were."""
        self.renamed = self.layers_made = self.disks_made = 0

    @property
    def uuid(self) -> str:
        return self.vm.uuid

    @property
    def on(self) -> bool:
        return self.power != OFF

    def need(self, *, on: bool) -> None:
        """Skip the action unless the VM is in this state."""
        if self.on is not on:
            raise Skip

    def need_no_job(self) -> None:
        """Skip what libvirt refuses, after half a minute, while a killed backup's job is there."""
        if self.on and self.host.call("job", self.vm.name) != 0:
            raise Skip

    def start(self, *, running: bool) -> None:
        self.vm.start(running=running)
        self.power = RUNNING if running else PAUSED

    def any_disk(self, chance: Random, *, format: str = "") -> str:
        """Choose a disk, or skip the action if there is none of this format."""
        fitting = sorted(t for t, d in self.vm.disks.items() if format in {"", d.format})
        if not fitting:
            raise Skip
        return chance.choice(fitting)

    def plain(self, target: str) -> None:
        """Skip the action if a disk has several layers."""
        if self.below.get(target):
            raise Skip

    def new_image(self, target: str, spec: DiskSpec) -> Path:
        """Make an empty image of a name that none had."""
        self.disks_made += 1
        path = self.folder / f"{target}, no. {self.disks_made}.{spec.format}"
        create_image(path, spec)
        self.images.add(path)
        return path

    def use(self, target: str, path: Path, spec: DiskSpec) -> None:
        """Note what a disk's active image is now."""
        self.vm.paths[target], self.vm.disks[target] = path, spec
        self.images.add(path)
        self.measure(target)

    def measure(self, target: str) -> None:
        """Note a disk's size as its image has it."""
        spec = self.vm.disks[target]
        info = image_info(self.vm.paths[target], spec.format)
        self.vm.disks[target] = replace(spec, size=cast(int, info["virtual-size"]))

    def defined_source(self, target: str) -> tuple[Path, str]:
        """Path and format of a disk's image in the VM's definition."""
        domain = etree.fromstring(cast(str, self.host.call("xml", self.vm.name, True)))
        for disk in domain.iterfind("devices/disk"):
            name, source, driver = (disk.find(tag) for tag in ("target", "source", "driver"))
            if name is None or source is None or driver is None or name.get("dev") != target:
                continue
            return Path(source.get("file", "")), driver.get("type", "")
        raise LookupError(target)

    def bitmaps(self) -> dict[str, set[str]]:
        """Our bitmaps by disk, in whatever layer."""
        if not self.on:
            images = {t: image_info(p, self.vm.disks[t].format) for t, p in self.vm.paths.items()}
            return {t: _ours(_in_info(info)) for t, info in images.items()}
        with self.vm.monitor() as qmp:
            nodes = cast(list[dict[str, Any]], qmp.execute("query-named-block-nodes"))
        layers = {
            t: [path, *(p for p, _ in self.below.get(t, ()))] for t, path in self.vm.paths.items()
        }
        return {
            target: _ours(
                bitmap["name"]
                for node in nodes
                if node["drv"] == "qcow2" and any(str(p) in node["file"] for p in paths)
                for bitmap in node.get("dirty-bitmaps", [])
            )
            for target, paths in layers.items()
        }


def image_info(path: Path, format: str) -> dict[str, object]:
    """What QEMU says of an image, in use or not."""
    text = run("qemu-img", "info", "-U", "--output=json", named(path, format))
    return cast(dict[str, object], json.loads(text))


def _in_info(info: dict[str, Any]) -> Iterator[str]:
    data = info.get("format-specific", {}).get("data", {})
    yield from (bitmap["name"] for bitmap in data.get("bitmaps", []))


def _ours(names: Iterator[str]) -> set[str]:
    return {name for name in names if name.startswith("vmb-")}


@contextmanager
def refusing() -> Iterator[None]:
    """What QEMU or libvirt refuses here does not apply."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise Skip from error


def qemu_img(*arguments: str) -> None:
    """Run qemu-img; what it refuses does not apply."""
    with refusing():
        run_qemu_img(*arguments)
