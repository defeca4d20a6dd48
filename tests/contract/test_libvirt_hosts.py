"""The tests' own libvirts and VMs do what the other tests believe they do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.embed import EmbeddedLibvirt
from tests.support.libvirt_host import LibvirtRefused, Worker
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import (
    GUEST_AGENT_CHANNEL,
    MIB,
    DiskSpec,
    MonitorRefused,
    VmFactory,
    vms_on,
)


@pytest.fixture(params=["embed", "libvirtd"])
def make_vm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VmFactory]:
    """A factory on each kind of host in turn."""
    with vms_on(request.getfixturevalue(request.param), tmp_path) as factory:
        yield factory


@pytest.mark.parametrize("format", ["qcow2", "raw"])
@pytest.mark.parametrize("bus", ["virtio", "sata"])
def test_reference_holds_what_was_written_running_and_stopped(
    make_vm: VmFactory, tmp_path: Path, format: str, bus: str
) -> None:
    other = DiskSpec("vdb", cluster_size=4096)
    vm = make_vm(disks=[DiskSpec("vda", format=format, bus=bus, size=2 * MIB), other])
    vm.start()
    expected = bytearray(2 * MIB)
    expected[65536 : 3 * 65536] = b"\xaa" * 131072
    expected[100_000 - 100_000 % 512 : 100_000 - 100_000 % 512 + 1024] = bytes(range(256)) * 4
    expected[2 * 65536 : 2 * 65536 + 4096] = bytes(4096)
    vm.write("vda", 65536, 131072, 0xAA)
    vm.write_bytes("vda", 100_000 - 100_000 % 512, bytes(range(256)) * 4)
    vm.zero("vda", 131072, 4096)
    vm.write("vdb", 0, 512, 0xBB)
    assert vm.reference("vda", tmp_path / "running").read_bytes() == expected
    vm.stop()
    assert vm.state == "shutoff"
    assert vm.reference("vda", tmp_path / "stopped").read_bytes() == expected
    assert vm.reference("vdb", tmp_path / "other").read_bytes()[:1024] == b"\xbb" * 512 + bytes(512)


def test_discarded_range_reads_as_zeros(make_vm: VmFactory, tmp_path: Path) -> None:
    vm = make_vm()
    vm.start(running=True)
    assert vm.state == "running"
    vm.write("vda", 0, MIB, 1)
    vm.discard("vda", 0, MIB)
    vm.flush("vda")
    assert not any(vm.reference("vda", tmp_path / "r").read_bytes())


def test_failed_write_is_an_error(make_vm: VmFactory) -> None:
    vm = make_vm()
    vm.start()
    with pytest.raises(MonitorRefused):
        vm.write("vda", 64 * MIB, 512, 1)


def test_killed_vm_is_off_and_starts_again(make_vm: VmFactory, tmp_path: Path) -> None:
    vm = make_vm(name="-größe: 100%, 'q'", extra_devices=[GUEST_AGENT_CHANNEL])
    vm.start()
    vm.write("vda", 0, 512, 7)
    vm.flush("vda")
    vm.kill()
    assert vm.state == "shutoff"
    assert vm.reference("vda", tmp_path / "r").read_bytes()[:512] == b"\x07" * 512
    vm.start()
    assert vm.state == "paused"


def test_vm_outlives_whoever_had_the_embedded_libvirt_open(
    embed: EmbeddedLibvirt, embed_vm: VmFactory
) -> None:
    with embed.connect():
        guest = embed_vm()
        guest.start()
        pid = guest.pid
    assert guest.state == "paused"
    assert guest.pid == pid
    guest.write("vda", 0, 512, 7)


def test_embedded_libvirt_has_one_holder_at_a_time(embed: EmbeddedLibvirt, tmp_path: Path) -> None:
    with embed.connect() as first:
        first.call("ping")
        with Worker(embed.uri, tmp_path / "log") as second, pytest.raises(LibvirtRefused):
            second.call("ping")
    embed.call("ping")


def test_embedded_libvirt_can_be_opened_after_its_holder_was_killed(
    embed: EmbeddedLibvirt, embed_vm: VmFactory
) -> None:
    guest = embed_vm()
    with embed.connect() as holder:
        guest.start()
        holder.kill()
    assert guest.state == "paused"
    guest.stop()
    assert guest.state == "shutoff"


def test_vm_outlives_a_killed_libvirtd(libvirtd: PrivateLibvirtd, vm: VmFactory) -> None:
    guest = vm()
    guest.start()
    pid = guest.pid
    libvirtd.restart()
    assert guest.state == "paused"
    assert guest.pid == pid


def test_power_cut_leaves_the_definition_and_the_disk(
    libvirtd: PrivateLibvirtd, vm: VmFactory, tmp_path: Path
) -> None:
    guest = vm()
    guest.start()
    guest.write("vda", 0, 512, 7)
    guest.flush("vda")
    libvirtd.power_cut()
    libvirtd.start()
    assert guest.state == "shutoff"
    assert guest.reference("vda", tmp_path / "r").read_bytes()[:512] == b"\x07" * 512
