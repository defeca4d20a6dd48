"""Which VMs there are and what a running QEMU tells of them: the fake and libvirt alike."""

from pathlib import Path

import pytest

from tests.support.bench import (
    BROKEN,
    FIRST,
    FOREIGN,
    GOOD,
    PREFIX,
    SIZE,
    TWO_DISKS,
    Bench,
    BenchVm,
    FakeBench,
    RealBench,
    bitmaps,
    tracked,
    whole,
)
from vm_babysitter.domain.errors import HypervisorError, VmNotFound
from vm_babysitter.domain.point import Checkpoint
from vm_babysitter.domain.vm import PowerState, Verdict, judge_disk
from vm_babysitter.ports import Belongings

NAMES = ('My "VM" & co', "-dash", "größe 日本 $(touch x)", "a:b,c'd", "<disk>")
NOBODY = "6e1ad8b4-0c9e-4c11-9b1a-000000000000"


class HypervisorContract:
    """The suite; subclasses say whose."""

    @pytest.fixture
    def bench(self) -> Bench:
        raise NotImplementedError

    @pytest.fixture
    def vm(self, bench: Bench) -> BenchVm:
        """A VM that runs."""
        vm = bench.vm()
        vm.start()
        return vm

    # -- starting them -------------------------------------------------------------------

    def test_a_vm_is_started_once(self, bench: Bench) -> None:
        vm, hypervisor = bench.vm('My "VM" & co'), bench.hypervisor
        assert hypervisor.power(vm.uuid) is PowerState.OFF
        hypervisor.start(vm.uuid)
        begun = hypervisor.started(vm.uuid)
        hypervisor.start(vm.uuid)
        assert hypervisor.power(vm.uuid) is PowerState.RUNNING
        assert hypervisor.started(vm.uuid) == begun
        with pytest.raises(VmNotFound):
            hypervisor.start(NOBODY)

    def test_its_own_autostart_is_told_and_changed(self, bench: Bench) -> None:
        vm, hypervisor = bench.vm("-dash"), bench.hypervisor
        assert hypervisor.own_autostart(vm.uuid) is False
        for on in (True, True, False):
            hypervisor.set_own_autostart(vm.uuid, on=on)
            assert hypervisor.own_autostart(vm.uuid) is on
            assert hypervisor.belongings(vm.uuid).autostart is on
        with pytest.raises(VmNotFound):
            hypervisor.own_autostart(NOBODY)
        with pytest.raises(VmNotFound):
            hypervisor.set_own_autostart(NOBODY, on=True)

    # -- which VMs there are ------------------------------------------------------------

    def test_lists_vms_by_name_whatever_their_names_are(self, bench: Bench) -> None:
        made = {name: bench.vm(name).uuid for name in NAMES}
        assert [vm.name for vm in bench.hypervisor.vms()] == sorted(NAMES)
        assert {vm.name: vm.uuid for vm in bench.hypervisor.vms()} == made
        outlines = bench.hypervisor.outlines()
        assert [(vm.name, vm.uuid) for vm in outlines] == sorted(made.items())
        for vm, known in zip(outlines, bench.hypervisor.vms(), strict=True):
            (disk,), (whole) = vm.disks, known.disks[0]
            assert (disk.target, disk.path, disk.file_id) == (
                whole.target,
                whole.path,
                whole.file_id,
            )
            assert (disk.real_format, disk.virtual_size) == ("", 0)
        for name, uuid in made.items():
            assert bench.hypervisor.vm(name).uuid == uuid
            assert bench.hypervisor.vm(uuid).name == name

    @pytest.mark.parametrize("name", ["nobody", NOBODY, "", "-", "a\nb", "\udcff", "x" * 5000])
    def test_unknown_vm_is_not_found(self, bench: Bench, name: str) -> None:
        with pytest.raises(VmNotFound) as caught:
            bench.hypervisor.vm(name)
        assert caught.value.name == name

    def test_name_that_is_the_uuid_of_another_vm_is_a_name(self, bench: Bench) -> None:
        other = bench.vm("other")
        odd = bench.vm(other.uuid)
        assert bench.hypervisor.vm(other.uuid).uuid == odd.uuid
        assert bench.hypervisor.definition(other.uuid)

    def test_transient_vm_is_no_vm(self, bench: Bench) -> None:
        uuid = bench.transient_vm("passing")
        assert bench.hypervisor.vms() == ()
        for name in ("passing", uuid):
            with pytest.raises(VmNotFound):
                bench.hypervisor.vm(name)

    def test_transient_vm_does_not_hide_one_whose_uuid_is_its_name(self, bench: Bench) -> None:
        vm = bench.vm()
        bench.transient_vm(vm.uuid)
        assert bench.hypervisor.vm(vm.uuid).name == vm.name

    def test_power_state_is_that_of_the_moment(self, bench: Bench) -> None:
        vm = bench.vm()
        assert bench.hypervisor.vm(vm.name).state is PowerState.OFF
        vm.start()
        assert bench.hypervisor.vm(vm.name).state is PowerState.RUNNING
        vm.kill()
        assert bench.hypervisor.vm(vm.name).state is PowerState.OFF
        vm.start(running=False)
        assert bench.hypervisor.vm(vm.name).state is PowerState.PAUSED

    def test_a_run_of_a_vm_is_told_from_the_next(self, bench: Bench) -> None:
        vm = bench.vm()
        runs = [bench.hypervisor.started(vm.uuid)]
        for _ in range(2):
            vm.start(running=False)
            runs.append(bench.hypervisor.started(vm.uuid))
            assert bench.hypervisor.started(vm.uuid) == runs[-1]
            vm.kill()
            assert bench.hypervisor.started(vm.uuid) == runs[0] == ""
        assert len(set(runs)) == 3

    def test_only_a_vm_that_qemu_paused_is_made_to_go_on(self, bench: Bench) -> None:
        vm = bench.vm()
        assert bench.hypervisor.power(vm.uuid) is PowerState.OFF
        bench.hypervisor.resume(vm.uuid)
        assert bench.hypervisor.power(vm.uuid) is PowerState.OFF
        vm.start(running=False)
        bench.hypervisor.resume(vm.uuid)
        assert bench.hypervisor.power(vm.uuid) is PowerState.PAUSED
        assert bench.hypervisor.power(NOBODY) is PowerState.OFF

    def test_everything_about_an_unknown_vm_says_that_it_is_unknown(self, bench: Bench) -> None:
        hypervisor = bench.hypervisor
        for ask in (
            lambda: hypervisor.definition(NOBODY),
            lambda: hypervisor.started(NOBODY),
            lambda: hypervisor.resume(NOBODY),
            lambda: hypervisor.belongings(NOBODY),
            lambda: hypervisor.disk_states(NOBODY),
            lambda: hypervisor.active_job(NOBODY),
            lambda: hypervisor.end_backup(NOBODY),
            lambda: hypervisor.adopt_checkpoint(NOBODY, Checkpoint(FIRST, 1, ("vda",))),
            lambda: hypervisor.begin_backup(NOBODY, bench.request(FIRST, whole("vda"))),
            lambda: hypervisor.forget_checkpoints(NOBODY, PREFIX),
            lambda: hypervisor.remove_bitmaps(NOBODY, FIRST, ["vda"]),
            lambda: hypervisor.agent_missing(NOBODY),
            lambda: hypervisor.freeze(NOBODY),
            lambda: hypervisor.thaw(NOBODY),
        ):
            with pytest.raises(VmNotFound):
                ask()

    def test_disks_are_described_running_or_not(self, bench: Bench) -> None:
        vm = bench.vm(disks=TWO_DISKS)
        off = bench.hypervisor.vm(vm.uuid).disks
        vm.start()
        for disks in (off, bench.hypervisor.vm(vm.uuid).disks):
            verdicts = [(d.target, d.virtual_size, judge_disk(d).verdict) for d in disks]
            assert verdicts == [("vda", SIZE, Verdict.TRACKED), ("vdb", SIZE, Verdict.COMPARED)]

    def test_what_a_disk_takes_grows_with_its_content(self, bench: Bench) -> None:
        vm = bench.vm(disks=TWO_DISKS)
        vm.start()
        for target, offset in (("vda", 0), ("vdb", 0)):
            vm.write(target, offset, b"x" * 131072)
        for disk in bench.hypervisor.vm(vm.uuid).disks:
            assert disk.allocated is not None
            # A qcow2 image has tables besides, of some clusters.
            assert 131072 <= disk.allocated <= 131072 + 9 * 65536
        vm.snapshot("vda")
        first, second = bench.hypervisor.vm(vm.uuid).disks
        assert first.allocated is None  # some of it is in the image below
        assert second.allocated is not None

    # -- what a VM has beside its disks -------------------------------------------------

    def test_vm_without_anything_beside_its_disks_has_nothing(self, bench: Bench) -> None:
        vm = bench.vm()
        assert bench.hypervisor.belongings(vm.uuid) == Belongings()
        vm.start()
        assert bench.hypervisor.belongings(vm.uuid) == Belongings()

    def test_nvram_is_told_running_or_not(self, bench: Bench, tmp_path: Path) -> None:
        nvram = tmp_path / 'it\'s "my" <NVRAM>, ü & co: 日本.fd'
        vm = bench.vm(nvram=nvram)
        assert bench.hypervisor.belongings(vm.uuid) == Belongings(nvram=str(nvram))
        vm.start(running=False)
        assert bench.hypervisor.belongings(vm.uuid) == Belongings(nvram=str(nvram))

    def test_autostart_is_that_of_the_moment(self, bench: Bench) -> None:
        vm = bench.vm()
        for on in (True, False):
            vm.set_autostart(on=on)
            assert bench.hypervisor.belongings(vm.uuid).autostart is on

    def test_saved_memory_is_told_until_it_is_used(self, bench: Bench) -> None:
        vm = bench.vm()
        vm.start(running=False)
        vm.managed_save()
        assert bench.hypervisor.vm(vm.uuid).state is PowerState.OFF
        assert bench.hypervisor.belongings(vm.uuid).managed_save
        vm.start(running=False)
        assert not bench.hypervisor.belongings(vm.uuid).managed_save

    def test_versions_are_numbers_with_dots(self, bench: Bench) -> None:
        versions = bench.hypervisor.versions()
        assert versions.keys() == {"libvirt", "qemu"}
        assert all(v.replace(".", "").isdecimal() and "." in v for v in versions.values())

    # -- what a running QEMU tells ------------------------------------------------------

    def test_state_of_disks_names_layers_and_bitmaps(self, bench: Bench) -> None:
        vm = bench.vm(disks=TWO_DISKS)
        vm.start()
        tracked(bench, vm)
        first, second = bench.hypervisor.disk_states(vm.uuid)
        described = bench.hypervisor.vm(vm.uuid).disks
        assert [s.target for s in (first, second)] == ["vda", "vdb"]
        assert [s.layers[0].path for s in (first, second)] == [d.path for d in described]
        assert bitmaps(first) == [{FIRST: GOOD}]
        assert bitmaps(second) == [{}]
        assert first.identity
        assert first.internal_snapshots == 0

    def test_a_bitmap_tells_how_much_it_has_marked(self, bench: Bench, vm: BenchVm) -> None:
        tracked(bench, vm)
        for length, marked in ((0, 0), (1, 65536), (65537, 2 * 65536)):
            if length:
                vm.write("vda", 5 * 65536, b"x" * length)
            bitmap = bench.hypervisor.disk_states(vm.uuid)[0].layers[0].bitmap(FIRST)
            assert bitmap is not None
            assert bitmap.dirty == marked

    def test_state_of_disks_is_the_same_while_a_job_runs(self, bench: Bench, vm: BenchVm) -> None:
        tracked(bench, vm)
        before = bench.hypervisor.disk_states(vm.uuid)
        vm.begin_foreign_backup()
        assert bench.hypervisor.disk_states(vm.uuid) == before

    def test_snapshot_adds_a_layer_that_goes_on_tracking(self, bench: Bench, vm: BenchVm) -> None:
        checkpoint = tracked(bench, vm)
        before = bench.hypervisor.disk_states(vm.uuid)[0]
        vm.snapshot("vda")
        (state,) = bench.hypervisor.disk_states(vm.uuid)
        assert [FIRST in layer for layer in bitmaps(state)] == [True, True]
        assert state.layers[1].path == before.layers[0].path
        assert state.layers[0].path == bench.hypervisor.vm(vm.uuid).disks[0].path
        assert bench.hypervisor.adopt_checkpoint(vm.uuid, checkpoint)

    def test_killed_qemu_takes_bitmaps_along_that_it_never_stored(
        self, bench: Bench, vm: BenchVm
    ) -> None:
        checkpoint = tracked(bench, vm)
        vm.kill()
        vm.start()
        assert bitmaps(bench.hypervisor.disk_states(vm.uuid)[0]) == [{}]
        assert not bench.hypervisor.adopt_checkpoint(vm.uuid, checkpoint)

    def test_killed_qemu_leaves_broken_bitmaps(self, bench: Bench, vm: BenchVm) -> None:
        checkpoint = tracked(bench, vm)
        vm.stop()
        vm.start()
        vm.kill()
        vm.start()
        (state,) = bench.hypervisor.disk_states(vm.uuid)
        assert bitmaps(state) == [{FIRST: BROKEN}]
        assert not bench.hypervisor.adopt_checkpoint(vm.uuid, checkpoint)
        assert not vm.checkpoints()

    def test_switched_off_vm_keeps_its_bitmaps(self, bench: Bench, vm: BenchVm) -> None:
        checkpoint = tracked(bench, vm)
        vm.stop()
        vm.start()
        assert bitmaps(bench.hypervisor.disk_states(vm.uuid)[0]) == [{FIRST: GOOD}]
        assert bench.hypervisor.adopt_checkpoint(vm.uuid, checkpoint)

    def test_checkpoints_are_named_whosever_they_are_and_off_too(
        self, bench: Bench, vm: BenchVm
    ) -> None:
        assert bench.hypervisor.checkpoints(vm.uuid) == ()
        assert bench.hypervisor.adopt_checkpoint(vm.uuid, tracked(bench, vm))
        vm.begin_foreign_backup(FOREIGN)
        vm.stop()
        assert bench.hypervisor.checkpoints(vm.uuid) == (FOREIGN, FIRST)

    def test_vm_that_is_off_has_no_state_of_disks(self, bench: Bench) -> None:
        vm = bench.vm()
        with pytest.raises(HypervisorError):
            bench.hypervisor.disk_states(vm.uuid)

    # -- the guest agent ----------------------------------------------------------------

    def test_vm_without_an_agent_says_so_and_is_not_frozen(self, bench: Bench, vm: BenchVm) -> None:
        assert bench.hypervisor.agent_missing(vm.uuid) == "the VM has no guest agent"
        assert bench.hypervisor.freeze(vm.uuid).refusal == "the VM has no guest agent"
        assert not bench.hypervisor.freeze(vm.uuid).unknown
        assert bench.hypervisor.thaw(vm.uuid).refusal == "the VM has no guest agent"


class TestFakeHypervisor(HypervisorContract):
    @pytest.fixture
    def bench(self, fake_bench: FakeBench) -> Bench:
        return fake_bench


class TestLibvirtd(HypervisorContract):
    @pytest.fixture
    def bench(self, libvirtd_bench: RealBench) -> Bench:
        return libvirtd_bench


class TestEmbeddedLibvirt(HypervisorContract):
    @pytest.fixture
    def bench(self, embed_bench: RealBench) -> Bench:
        return embed_bench
