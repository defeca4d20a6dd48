"""VMs whose definition names a file system in user space, and a QEMU that has the file beneath.

Unraid's emulator is a script that rewrites the paths of disks on its command line; so is ours.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.bench import SIZE, RealBench, RealVm
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.shares import UnraidMounts, emulator_below, unraid_mounts
from tests.support.vm import EMULATOR, DiskSpec
from vm_babysitter.adapters.libvirt.connection import Connection
from vm_babysitter.adapters.libvirt.hypervisor import LibvirtHypervisor
from vm_babysitter.adapters.qemu.img import info
from vm_babysitter.domain.backup_plan import plan_backup
from vm_babysitter.domain.vm import Disk, judge_disk
from vm_babysitter.ports import Hypervisor


@pytest.fixture
def unraid(tmp_path: Path) -> Iterator[UnraidMounts]:
    base = tmp_path / "mnt, of: x"
    with ExitStack() as stack:
        (base / "cache" / "dom ains").mkdir(parents=True)
        # What libvirtd, which does not see our mounts, finds at that place.
        (base / "user").mkdir()
        (base / "user" / "dom ains").symlink_to("../cache/dom ains")
        yield stack.enter_context(unraid_mounts(base))


@pytest.fixture
def image(unraid: UnraidMounts) -> Path:
    return unraid.cache / "dom ains" / "vdisk 1.img"


@pytest.fixture
def vm(libvirtd_bench: RealBench, unraid: UnraidMounts, image: Path) -> RealVm:
    """A VM whose image says nothing of where it lies."""
    vm = libvirtd_bench.vm(disks=[DiskSpec(size=SIZE, path=image)])
    script = emulator_below(unraid.base / "qemu", unraid.user, unraid.cache)
    vm.vm.paths["vda"] = unraid.shown(image)
    own = vm.vm.xml().replace(EMULATOR, str(script))
    vm.vm.define(own.replace("</name>", f"</name><uuid>{vm.uuid}</uuid>", 1))
    return vm


def disk_of(hypervisor: Hypervisor, vm: RealVm) -> Disk:
    (listed,) = (found for found in hypervisor.vms() if found.uuid == vm.uuid)
    assert listed == hypervisor.vm(vm.uuid)
    (disk,) = listed.disks
    return disk


def planned_path(hypervisor: Hypervisor, vm: RealVm) -> str:
    """Return the path that the next backup, a full one, would name in its manifest."""
    states = {state.target: state for state in hypervisor.disk_states(vm.uuid)}
    verdict = judge_disk(disk_of(hypervisor, vm))
    (plan,) = plan_backup([verdict], states, None).disks
    assert plan.track
    return plan.path


def test_disk_is_told_by_its_real_path_off_and_running(
    libvirtd: PrivateLibvirtd,
    libvirtd_bench: RealBench,
    unraid: UnraidMounts,
    vm: RealVm,
    image: Path,
) -> None:
    with Connection(libvirtd.uri) as connection:
        hypervisor = LibvirtHypervisor(connection, info, resolve=unraid.resolve)
        plain = libvirtd_bench.hypervisor
        shown = unraid.shown(image)
        for running in (False, True):
            if running:
                vm.start(running=False)
            unraid.locate(image, "disk1")  # where it is not
            disk = disk_of(hypervisor, vm)
            assert (disk.source, disk.path, disk.direct) == (str(shown), str(shown), False)
            assert disk_of(plain, vm).direct is False
            unraid.locate(image)
            disk = disk_of(hypervisor, vm)
            assert (disk.source, disk.path, disk.direct) == (str(shown), str(image), True)
            assert disk.virtual_size == SIZE
        # Whether it can be found beneath or not, it is one image for every backup.
        assert planned_path(plain, vm) == planned_path(hypervisor, vm) == str(image)
