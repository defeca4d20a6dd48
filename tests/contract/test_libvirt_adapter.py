"""What only a real libvirt does to the adapter."""

from pathlib import Path

import pytest

from tests.support.bench import FIRST, RealBench, bitmaps, tracked, whole
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import TPM, VmFactory
from vm_babysitter.adapters.libvirt.connection import Connection
from vm_babysitter.adapters.libvirt.hypervisor import LibvirtHypervisor
from vm_babysitter.adapters.qemu.img import info
from vm_babysitter.domain.errors import HypervisorError, HypervisorUnreachable
from vm_babysitter.ports import BackupRequest, DiskRequest, ImageInfo, JobKind


def test_vm_removed_while_the_list_is_made_is_left_out(
    libvirtd: PrivateLibvirtd, libvirtd_bench: RealBench
) -> None:
    made = {libvirtd_bench.vm(name).name for name in ("one", "two")}
    gone: list[str] = []

    def remove_the_other(path: Path) -> ImageInfo:
        if not gone:
            described = info(path)
            (name,) = (
                n
                for n in made
                if libvirtd.call("xml", n, True)
                and str(path) not in str(libvirtd.call("xml", n, True))
            )
            libvirtd.call("undefine", name)
            gone.append(name)
            return described
        return info(path)

    with Connection(libvirtd.uri) as connection:
        vms = LibvirtHypervisor(connection, remove_the_other).vms()
    assert {vm.name for vm in vms} == made - set(gone)


def test_state_of_an_emulated_tpm_is_where_libvirt_put_it(
    libvirtd: PrivateLibvirtd, libvirtd_bench: RealBench
) -> None:
    vm = libvirtd_bench.vm(devices=[TPM])
    roots = [libvirtd.root / "no such folder", libvirtd.root / "lib" / "swtpm"]
    with Connection(libvirtd.uri) as connection:
        hypervisor = LibvirtHypervisor(connection, info, roots)
        vm.start(running=False)
        state = Path(hypervisor.belongings(vm.uuid).tpm)
    assert state == roots[1] / vm.uuid / "tpm2"
    assert (state / "tpm2-00.permall").stat().st_size > 0


def test_block_job_is_told_with_its_disk(
    libvirtd: PrivateLibvirtd, libvirtd_bench: RealBench
) -> None:
    vm = libvirtd_bench.vm()
    vm.start()
    tracked(libvirtd_bench, vm)
    vm.snapshot("vda")
    before = libvirtd_bench.hypervisor.disk_states(vm.uuid)
    libvirtd.call("commit", vm.name, "vda")
    job = libvirtd_bench.hypervisor.active_job(vm.uuid)
    assert job is not None
    assert (job.kind, job.detail) == (JobKind.BLOCK, "on disk vda")
    (state,) = libvirtd_bench.hypervisor.disk_states(vm.uuid)
    assert [layer.path for layer in state.layers] == [layer.path for layer in before[0].layers]
    assert FIRST in bitmaps(state)[0]


@pytest.mark.parametrize("place", ["/nowhere/scratch", "/proc/scratch"])
def test_scratch_that_cannot_be_made_is_no_loss_of_libvirt(
    libvirtd_bench: RealBench, folder: Path, place: str
) -> None:
    vm = libvirtd_bench.vm()
    vm.start()
    request = BackupRequest(str(folder / "socket"), (DiskRequest("vda", place, None, FIRST),))
    with pytest.raises(HypervisorError, match="No such file"):
        libvirtd_bench.hypervisor.begin_backup(vm.uuid, request)
    assert bitmaps(libvirtd_bench.hypervisor.disk_states(vm.uuid)[0]) == [{}]
    assert not vm.checkpoints()


def test_existing_scratch_file_is_refused_and_kept(
    libvirtd_bench: RealBench,
) -> None:
    vm = libvirtd_bench.vm()
    vm.start()
    request = libvirtd_bench.request(FIRST, whole("vda"))
    scratch = Path(request.disks[0].scratch)
    scratch.write_bytes(b"somebody's")
    with pytest.raises(HypervisorError, match="exists"):
        libvirtd_bench.hypervisor.begin_backup(vm.uuid, request)
    assert scratch.read_bytes() == b"somebody's"


@pytest.mark.parametrize(
    "uri", ["qemu+unix:///system?socket=/nowhere/socket", "qemu+tcp://127.0.0.1:1/system"]
)
def test_libvirt_that_does_not_listen_is_unreachable(uri: str) -> None:
    with pytest.raises(HypervisorUnreachable) as caught, Connection(uri):
        pass
    assert caught.value.uri == uri
    assert caught.value.transient


def test_lost_libvirtd_is_unreachable_and_not_a_missing_vm(libvirtd: PrivateLibvirtd) -> None:
    with Connection(libvirtd.uri) as connection:
        hypervisor = LibvirtHypervisor(connection, info)
        assert hypervisor.vms() is not None
        libvirtd.restart()
        with pytest.raises(HypervisorUnreachable):
            hypervisor.vm("anything")
        with pytest.raises(HypervisorUnreachable):
            hypervisor.vms()
    with Connection(libvirtd.uri) as connection:
        LibvirtHypervisor(connection, info).vms()


def test_a_run_of_a_vm_is_the_same_for_a_libvirtd_that_was_restarted(
    libvirtd: PrivateLibvirtd, vm: VmFactory
) -> None:
    guest, runs = vm(), []
    guest.start()
    for _ in range(2):
        with Connection(libvirtd.uri) as connection:
            hypervisor = LibvirtHypervisor(connection, info)
            runs.append(hypervisor.started(hypervisor.vm(guest.name).uuid))
        libvirtd.restart()
    assert runs[0] == runs[1] != ""
