"""What every hypervisor does with backup jobs, checkpoints and bitmaps."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.support.bench import (
    FIRST,
    FOREIGN,
    GOOD,
    PREFIX,
    SECOND,
    SIZE,
    TWO_DISKS,
    Bench,
    BenchVm,
    FakeBench,
    RealBench,
    bitmaps,
    on,
    since,
    tracked,
    whole,
)
from tests.support.vm import DiskSpec
from vm_babysitter.domain.errors import Cancelled, HypervisorError
from vm_babysitter.domain.point import Checkpoint
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.ports import Export, JobKind


class JobContract:
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

    # -- backup jobs --------------------------------------------------------------------

    def test_one_job_serves_a_tracked_disk_and_a_raw_one(self, bench: Bench) -> None:
        vm = bench.vm(disks=TWO_DISKS)
        vm.start()
        request = bench.request(FIRST, whole("vda"), whole("vdb", track=False))
        exports = bench.hypervisor.begin_backup(vm.uuid, request)
        assert exports == (Export("vda", "vda", None), Export("vdb", "vdb", None))
        job = bench.hypervisor.active_job(vm.uuid)
        assert job is not None
        assert (job.kind, job.socket) == (JobKind.BACKUP, request.socket)
        assert vm.checkpoints() == {FIRST}
        bench.hypervisor.end_backup(vm.uuid)
        assert [bitmaps(s) for s in bench.hypervisor.disk_states(vm.uuid)] == [
            [{FIRST: GOOD}],
            [{}],
        ]

    def test_job_over_some_disks_leaves_the_others_alone(self, bench: Bench) -> None:
        vm = bench.vm(disks=(DiskSpec("vda", size=SIZE), DiskSpec("vdb", size=SIZE)))
        vm.start()
        exports = bench.hypervisor.begin_backup(vm.uuid, bench.request(FIRST, whole("vdb")))
        assert [e.target for e in exports] == ["vdb"]
        bench.hypervisor.end_backup(vm.uuid)
        states = bench.hypervisor.disk_states(vm.uuid)
        assert [bitmaps(s) for s in states] == [[{}], [{on("vdb", FIRST): GOOD}]]

    def test_full_and_incremental_disks_mix_in_one_job(self, bench: Bench) -> None:
        vm = bench.vm(disks=(*TWO_DISKS, DiskSpec("vdc", size=SIZE)))
        vm.start()
        assert bench.hypervisor.adopt_checkpoint(vm.uuid, tracked(bench, vm))
        request = bench.request(
            SECOND, since("vda", FIRST), whole("vdb", track=False), whole("vdc")
        )
        exports = bench.hypervisor.begin_backup(vm.uuid, request)
        assert {e.target: e.bitmap is not None for e in exports} == {
            "vda": True,
            "vdb": False,
            "vdc": False,
        }
        bench.hypervisor.end_backup(vm.uuid)
        states = bench.hypervisor.disk_states(vm.uuid)
        assert [bitmaps(s) for s in states] == [
            [{FIRST: GOOD, SECOND: GOOD}],
            [{}],
            [{on("vdc", SECOND): GOOD}],
        ]

    def test_job_without_tracking_leaves_nothing_at_all(self, bench: Bench, vm: BenchVm) -> None:
        request = bench.request(FIRST, whole("vda", track=False))
        bench.hypervisor.begin_backup(vm.uuid, request)
        bench.hypervisor.end_backup(vm.uuid)
        assert not vm.checkpoints()
        assert bitmaps(bench.hypervisor.disk_states(vm.uuid)[0]) == [{}]

    def test_paused_vm_can_be_backed_up_and_stays_paused(self, bench: Bench) -> None:
        vm = bench.vm()
        vm.start(running=False)
        tracked(bench, vm)
        assert bench.hypervisor.vm(vm.uuid).state is PowerState.PAUSED

    def test_job_is_gone_when_its_end_returns_and_ending_again_is_fine(
        self, bench: Bench, vm: BenchVm
    ) -> None:
        for number in range(3):
            request = bench.request(f"{PREFIX}{number:06d}-aaaaaa", whole("vda"))
            bench.hypervisor.begin_backup(vm.uuid, request)
            bench.hypervisor.end_backup(vm.uuid)
            assert not vm.has_job()
            assert bench.hypervisor.active_job(vm.uuid) is None
        bench.hypervisor.end_backup(vm.uuid)
        vm.stop()
        bench.hypervisor.end_backup(vm.uuid)

    def test_refused_job_leaves_nothing(self, bench: Bench) -> None:
        vm = bench.vm(disks=TWO_DISKS)
        vm.start()
        for refused in (
            bench.request(FIRST, since("vda", "vmb-0000000a-never"), whole("vdb", track=False)),
            bench.request(FIRST, whole("vda"), whole("vdb", track=True)),
        ):
            with pytest.raises(HypervisorError):
                bench.hypervisor.begin_backup(vm.uuid, refused)
            assert bench.hypervisor.active_job(vm.uuid) is None
            assert not vm.checkpoints()
            assert bitmaps(bench.hypervisor.disk_states(vm.uuid)[0]) == [{}]
        tracked(bench, vm)

    def test_the_moment_of_a_job_begins_when_all_else_is_done(
        self, bench: Bench, vm: BenchVm
    ) -> None:
        seen = []

        @contextmanager
        def moment() -> Iterator[None]:
            seen.append((vm.checkpoints(), vm.has_job()))
            yield
            seen.append((vm.checkpoints(), vm.has_job()))

        request = bench.request(FIRST, whole("vda"))
        bench.hypervisor.begin_backup(vm.uuid, request, moment)
        assert seen[0] == (vm.checkpoints(), False)
        assert len(seen) == 2

    def test_moment_that_does_not_come_leaves_nothing(self, bench: Bench, vm: BenchVm) -> None:
        def moment() -> AbstractContextManager[None]:
            raise Cancelled

        with pytest.raises(Cancelled):
            bench.hypervisor.begin_backup(vm.uuid, bench.request(FIRST, whole("vda")), moment)
        assert (vm.has_job(), vm.checkpoints()) == (False, set())
        assert bitmaps(bench.hypervisor.disk_states(vm.uuid)[0]) == [{}]
        tracked(bench, vm)

    def test_each_disk_has_a_checkpoint_of_its_own_for_no_bitmap_may_fit_two(
        self, bench: Bench
    ) -> None:
        vm = bench.vm(disks=(DiskSpec("vda", size=SIZE), DiskSpec("vdb", size=SIZE)))
        vm.start()
        names = {target: on(target, FIRST) for target in ("vda", "vdb")}
        request = bench.request(FIRST, whole("vda"), whole("vdb"))
        bench.hypervisor.begin_backup(vm.uuid, request)
        bench.hypervisor.end_backup(vm.uuid)
        assert vm.checkpoints() == set(names.values())
        states = bench.hypervisor.disk_states(vm.uuid)
        assert [bitmaps(s) for s in states] == [[{name: GOOD}] for name in names.values()]
        bench.hypervisor.forget_checkpoints(vm.uuid, PREFIX)
        for target, other in (("vda", "vdb"), ("vdb", "vda")):
            own = Checkpoint(names[target], 1_700_000_000, (target,))
            assert bench.hypervisor.adopt_checkpoint(vm.uuid, own)
            foreign = Checkpoint(names[other], 1_700_000_000, (target,))
            assert not bench.hypervisor.adopt_checkpoint(vm.uuid, foreign)

    def test_vm_that_is_off_cannot_be_backed_up_by_a_job(self, bench: Bench) -> None:
        vm = bench.vm()
        with pytest.raises(HypervisorError):
            bench.hypervisor.begin_backup(vm.uuid, bench.request(FIRST, whole("vda")))
        assert bench.hypervisor.active_job(vm.uuid) is None

    def test_job_of_somebody_else_is_told_by_its_socket(self, bench: Bench, vm: BenchVm) -> None:
        assert bench.hypervisor.active_job(vm.uuid) is None
        vm.begin_foreign_backup()
        job = bench.hypervisor.active_job(vm.uuid)
        assert job is not None
        assert job.kind is JobKind.BACKUP
        assert job.socket not in {"", bench.request(FIRST, whole("vda")).socket}

    # -- checkpoints and bitmaps ---------------------------------------------------------

    def test_adopted_checkpoint_is_known_until_forgotten(self, bench: Bench, vm: BenchVm) -> None:
        checkpoint = tracked(bench, vm)
        assert not vm.checkpoints()
        for _ in range(2):
            assert bench.hypervisor.adopt_checkpoint(vm.uuid, checkpoint)
            assert vm.checkpoints() == {FIRST}
        bench.hypervisor.forget_checkpoints(vm.uuid, PREFIX)
        assert not vm.checkpoints()
        assert bitmaps(bench.hypervisor.disk_states(vm.uuid)[0]) == [{FIRST: GOOD}]

    def test_checkpoint_without_its_bitmap_is_not_adopted(self, bench: Bench, vm: BenchVm) -> None:
        missing = Checkpoint(FIRST, 1_700_000_000, ("vda",))
        assert not bench.hypervisor.adopt_checkpoint(vm.uuid, missing)
        assert not vm.checkpoints()

    def test_forgetting_while_the_job_runs_keeps_the_job(self, bench: Bench, vm: BenchVm) -> None:
        bench.hypervisor.begin_backup(vm.uuid, bench.request(FIRST, whole("vda")))
        bench.hypervisor.forget_checkpoints(vm.uuid, PREFIX)
        assert not vm.checkpoints()
        assert vm.has_job()

    def test_only_checkpoints_of_the_prefix_are_forgotten(self, bench: Bench, vm: BenchVm) -> None:
        vm.begin_foreign_backup(FOREIGN)
        bench.hypervisor.end_backup(vm.uuid)
        checkpoint = tracked(bench, vm)
        assert bench.hypervisor.adopt_checkpoint(vm.uuid, checkpoint)
        bench.hypervisor.forget_checkpoints(vm.uuid, PREFIX)
        assert vm.checkpoints() == {FOREIGN}
        bench.hypervisor.remove_bitmaps(vm.uuid, FIRST, ["vda"])
        assert vm.checkpoints() == {FOREIGN}
        assert bitmaps(bench.hypervisor.disk_states(vm.uuid)[0]) == [{FOREIGN: GOOD}]

    def test_forgetting_works_on_a_vm_that_is_off(self, bench: Bench, vm: BenchVm) -> None:
        bench.hypervisor.begin_backup(vm.uuid, bench.request(FIRST, whole("vda")))
        vm.kill()
        bench.hypervisor.forget_checkpoints(vm.uuid, PREFIX)
        assert not vm.checkpoints()

    def test_broken_bitmap_is_removed_while_qemu_runs(self, bench: Bench, vm: BenchVm) -> None:
        tracked(bench, vm)
        vm.stop()
        vm.start()
        vm.kill()
        vm.start()
        tracked(bench, vm, SECOND)
        bench.hypervisor.remove_bitmaps(vm.uuid, FIRST, ["vda"])
        assert bitmaps(bench.hypervisor.disk_states(vm.uuid)[0]) == [{SECOND: GOOD}]
        assert not vm.checkpoints()

    def test_bitmap_is_removed_from_all_layers(self, bench: Bench, vm: BenchVm) -> None:
        tracked(bench, vm)
        vm.snapshot("vda")
        bench.hypervisor.remove_bitmaps(vm.uuid, FIRST, ["vda"])
        assert bitmaps(bench.hypervisor.disk_states(vm.uuid)[0]) == [{}, {}]

    def test_bitmap_is_removed_from_the_disks_named_only(self, bench: Bench) -> None:
        vm = bench.vm(disks=(DiskSpec("vda", size=SIZE), DiskSpec("vdb", size=SIZE)))
        vm.start()
        request = bench.request(FIRST, whole("vda"), whole("vdb"))
        bench.hypervisor.begin_backup(vm.uuid, request)
        bench.hypervisor.end_backup(vm.uuid)
        bench.hypervisor.forget_checkpoints(vm.uuid, PREFIX)
        bench.hypervisor.remove_bitmaps(vm.uuid, on("vdb", FIRST), ["vdb"])
        states = bench.hypervisor.disk_states(vm.uuid)
        assert [bitmaps(s) for s in states] == [[{FIRST: GOOD}], [{}]]

    def test_removing_a_bitmap_that_is_not_there_fails_and_leaves_nothing_known(
        self, bench: Bench, vm: BenchVm
    ) -> None:
        with pytest.raises(HypervisorError):
            bench.hypervisor.remove_bitmaps(vm.uuid, FIRST, ["vda"])
        assert not vm.checkpoints()

    def test_removing_from_a_vm_that_is_off_fails_and_leaves_nothing_known(
        self, bench: Bench, vm: BenchVm
    ) -> None:
        tracked(bench, vm)
        vm.stop()
        with pytest.raises(HypervisorError):
            bench.hypervisor.remove_bitmaps(vm.uuid, FIRST, ["vda"])
        assert not vm.checkpoints()


class TestFakeHypervisor(JobContract):
    @pytest.fixture
    def bench(self, fake_bench: FakeBench) -> Bench:
        return fake_bench


class TestLibvirtd(JobContract):
    @pytest.fixture
    def bench(self, libvirtd_bench: RealBench) -> Bench:
        return libvirtd_bench


class TestEmbeddedLibvirt(JobContract):
    @pytest.fixture
    def bench(self, embed_bench: RealBench) -> Bench:
        return embed_bench
