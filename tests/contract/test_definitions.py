"""Which images definitions name, and the exchange of one: the fake and libvirt alike."""

from dataclasses import replace

import pytest

from tests.support.bench import TWO_DISKS, Bench, FakeBench, RealBench
from vm_babysitter.domain.errors import Busy, VmNotFound
from vm_babysitter.ports import DiskSource, ImageUse

NOBODY = "6e1ad8b4-0c9e-4c11-9b1a-000000000000"
ODD = "/somewhere/a 'b' \"c\" <d>&, ü:.qcow2"


class DefinitionsContract:
    """The suite; subclasses say whose."""

    @pytest.fixture
    def bench(self) -> Bench:
        raise NotImplementedError

    def test_every_disk_of_every_vm_is_named(self, bench: Bench) -> None:
        vms = [bench.vm("one", TWO_DISKS), bench.vm("two")]
        vms[1].start()
        wanted = {
            ImageUse(vm.uuid, vm.name, disk.target, disk.source)
            for made in vms
            for vm in [bench.hypervisor.vm(made.uuid)]
            for disk in vm.disks
        }
        assert len(wanted) == 3
        assert set(bench.definitions.image_uses()) == wanted

    def test_a_disk_gets_another_image_and_its_own_back(self, bench: Bench) -> None:
        vm = bench.vm(disks=TWO_DISKS)
        definitions = bench.definitions
        old, other = (definitions.disk_source(vm.uuid, t) for t in ("vdb", "vda"))
        assert old is not None
        assert (old.format, old.bound) == ("raw", ())
        new = DiskSource(ODD, "qcow2")
        before = bench.hypervisor.definition(vm.uuid)
        definitions.switch_disk(vm.uuid, "vdb", old, new)
        assert definitions.disk_source(vm.uuid, "vdb") == new
        assert definitions.disk_source(vm.uuid, "vda") == other
        definitions.switch_disk(vm.uuid, "vdb", new, old)
        assert bench.hypervisor.definition(vm.uuid) == before

    def test_only_the_image_that_is_expected_is_exchanged(self, bench: Bench) -> None:
        vm = bench.vm()
        old = bench.definitions.disk_source(vm.uuid, "vda")
        assert old is not None
        for wrong in (replace(old, file="/else"), replace(old, format="raw")):
            with pytest.raises(Busy):
                bench.definitions.switch_disk(vm.uuid, "vda", wrong, DiskSource(ODD, "qcow2"))
        with pytest.raises(Busy):
            bench.definitions.switch_disk(vm.uuid, "vdz", old, DiskSource(ODD, "qcow2"))
        assert bench.definitions.disk_source(vm.uuid, "vda") == old
        assert bench.definitions.disk_source(vm.uuid, "vdz") is None

    def test_a_vm_that_runs_goes_on_with_what_it_was_started_with(self, bench: Bench) -> None:
        vm = bench.vm()
        definitions, new = bench.definitions, DiskSource(ODD, "qcow2")
        old = definitions.disk_source(vm.uuid, "vda")
        assert old is not None
        assert definitions.disk_source(vm.uuid, "vda", running=True) is None
        vm.start()
        definitions.switch_disk(vm.uuid, "vda", old, new)
        running = definitions.disk_source(vm.uuid, "vda", running=True)
        assert running is not None
        assert running.file == old.file
        assert definitions.disk_source(vm.uuid, "vda") == new

    def test_a_vm_that_is_not_there_is_unknown(self, bench: Bench) -> None:
        for ask in (bench.definitions.snapshots, lambda u: bench.definitions.disk_source(u, "vda")):
            with pytest.raises(VmNotFound):
                ask(NOBODY)
        assert bench.definitions.snapshots(bench.vm().uuid) == ()


class TestFake(DefinitionsContract):
    @pytest.fixture
    def bench(self, fake_bench: FakeBench) -> Bench:
        return fake_bench


class TestLibvirt(DefinitionsContract):
    @pytest.fixture
    def bench(self, libvirtd_bench: RealBench) -> Bench:
        return libvirtd_bench
