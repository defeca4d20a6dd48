"""QEMU under a user of its own, as on any host that is not Unraid."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_trust import Silent
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import MIB, TestVm, run_qemu_img, vms_on
from vm_babysitter.bootstrap import Standalone
from vm_babysitter.domain.point import Method
from vm_babysitter.engine.app import Place
from vm_babysitter.engine.cancel import Cancel


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that others may pass through, but not look into."""
    with tempfile.TemporaryDirectory(prefix="vmb", dir="/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def test_a_vm_of_an_unprivileged_qemu_is_backed_up(root: Path) -> None:
    host = PrivateLibvirtd(root, user="libvirt-qemu")
    host.start()
    try:
        disks = root / "disks"
        disks.mkdir(mode=0o755)
        with vms_on(host, disks) as make:
            vm = make("unprivileged")
            without_kvm(vm)
            vm.start()
            vm.write("vda", 0, MIB, 0x11)
            (root / "store").mkdir(mode=0o700)
            place = Place(host.uri, root / "store", allow_ram_store=True, runtime=root / "vmb")
            app = Standalone(place, Silent(), Cancel())
            methods = []
            for _ in range(2):
                with app.backup() as work:
                    methods += [d.method for d in work.run(vm.name).point.disks]
            assert methods == [Method.FULL, Method.BITMAP]
            reference = vm.reference("vda", root / "reference.raw")
            app.restore(root / "restored").run(vm.name, "latest")
            run_qemu_img("compare", str(root / "restored" / "vda.qcow2"), str(reference))
            assert not list((root / "vmb").iterdir())
    finally:
        host.close()


def without_kvm(vm: TestVm) -> None:
    """Only root may open /dev/kvm on some hosts; let QEMU make its monitor's socket, too."""
    vm.undefine()
    vm.define(vm.xml().replace('type="kvm"', 'type="qemu"', 1))
    next(vm.host.root.glob("qmp*")).chmod(0o777)
