"""A week of six VMs, in a minute: only the time is not real."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import private_root
from tests.support.daemon import DaemonHere, in_care_of, until
from tests.support.fakes.clock import FakeClock
from tests.support.guest import Guest
from tests.support.inotify import Seen, opened
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import ram_disk
from tests.support.vm import MIB, TPM, DiskSpec, TestVm
from tests.support.world import Json, World
from vm_babysitter.ports import ThisHost

SMALL = DiskSpec("vda", size=16 * MIB)
RAW = DiskSpec("vda", "raw", size=16 * MIB)
STORE = 512 * MIB
DAY = timedelta(days=1)
REFUSES = "--block-rpcs=guest-fsfreeze-freeze"
ORDINARY, SECURE, STUBBORN, ROUGH, LAZY, NEW = (
    'My "VM" & co',
    "Windows 11",
    "its agent refuses",
    "-raw",
    "mostly off ü 日本",
    "new one",
)


@dataclass
class House:
    """A host, its VMs, and the daemon that looks after them."""

    host: PrivateLibvirtd
    folder: Path
    daemon: DaemonHere
    guest: Guest
    worlds: dict[str, World] = field(default_factory=dict)
    """All VMs but the one with a guest, by name."""
    gone: set[str] = field(default_factory=set)
    """Names of those that were removed."""
    boots: int = 0

    def add(
        self,
        name: str,
        disk: DiskSpec = SMALL,
        devices: Sequence[str] = (),
        *,
        running: bool = False,
        uefi: bool = False,
    ) -> World:
        number = len(self.worlds)
        folder = self.folder / f"w{number}"
        nvram = self.folder / f"nvram {number}.fd" if uefi else None
        world = World(
            self.host, folder, name, running=running, devices=devices, nvram=nvram, disks=[disk]
        )
        self.worlds[name] = in_care_of(self.daemon, world)
        return world

    def boot(self) -> None:
        """Start the host, and the daemon with it."""
        self.boots += 1
        self.daemon.machine = ThisHost("of the week", "house", f"boot {self.boots}")
        if self.boots > 1:
            self.host.start()
            for world in self.on():
                world.boot()
            self.guest.start(running=True)
            self.guest._wait_for_agent("")
        self.guest.have_agent(REFUSES)
        self.daemon.start()

    def boot_alone(self) -> None:
        """Start the daemon, and no VM."""
        self.boots += 1
        self.daemon.machine = ThisHost("of the week", "house", f"boot {self.boots}")
        self.daemon.start()

    def on(self) -> Sequence[World]:
        """The VMs that run, or are paused."""
        off = {LAZY, *self.gone}
        return [world for name, world in self.worlds.items() if name not in off]

    def counts(self) -> list[int]:
        """How many points each VM has, in the order of their names above."""
        names = (ORDINARY, SECURE, STUBBORN, ROUGH, LAZY, NEW)
        there = {*self.worlds, STUBBORN}
        return [len(self.points(name)) for name in names if name in there]

    def points(self, name: str) -> list[str]:
        """The points of a VM, the oldest first."""
        uuid = self.guest.uuid if name == STUBBORN else self.worlds[name].vm.uuid
        if not any(self.daemon.store.iterdir()):
            return []  # the API says so, too: it cannot know that no backups are missing
        return [point["point"] for point in self.daemon.api.of_vm(uuid, "/points")]

    @contextmanager
    def writing(self, *besides: str) -> Iterator[None]:
        """Have the VMs write, and remember what they hold for the points that come of it."""
        left = self.gone.union(besides)
        worlds = {name: world for name, world in self.worlds.items() if name not in left}
        before = {name: set(self.points(name)) for name in worlds}
        for world in self.on():
            world.change()
        copies = {name: world.copies() for name, world in worlds.items()}
        yield
        for name, world in worlds.items():
            new = set(self.points(name)) - before[name]
            world.references |= dict.fromkeys(new, copies[name])

    def is_idle(self) -> None:
        """Nothing is stuck: not a job, not a VM."""
        api = self.daemon.api
        assert api.jobs("running", "waiting", "queued") == []
        for world in self.on():
            world.assert_vm_unharmed()
        assert not self.guest.is_frozen()
        assert self.guest.writes()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    clock = FakeClock(_next_sunday())
    with private_root() as root:
        host = PrivateLibvirtd(root)
        try:
            host.start()
            guest_folder = tmp_path / "guest"
            guest_folder.mkdir()
            guest = Guest(host, guest_folder, STUBBORN)
            with closing(DaemonHere(host, tmp_path / "d", clock)) as daemon:
                house = House(host, tmp_path, daemon, guest)
                with ram_disk(daemon.store, STORE):
                    yield house
                    daemon.close()
        finally:
            host.close()


@pytest.mark.timeout(400)
def test_a_week(house: House) -> None:
    daemon = house.daemon
    house.add(ORDINARY, running=True)
    house.add(SECURE, devices=[TPM], uefi=True)
    house.add(ROUGH, RAW)
    house.add(LAZY).vm.stop()
    proofs = {"name": "proof", "when": "30 23 * * 0", "kind": "verify"}
    daily = {"name": "daily", "when": "@daily"}
    daemon.write_settings(schedules=[daily, proofs], backup={"parallel": 2})
    house.boot()
    with house.writing():
        daemon.pass_time(DAY)
    assert house.counts() == [1, 1, 1, 1, 1]
    house.is_idle()
    nothing_is_read_of_who_is_off(house)  # days 2 and 3
    assert house.counts() == [3, 3, 3, 3, 1]
    house.is_idle()
    lazy = house.worlds[LAZY].vm
    lazy.start()
    house.worlds[LAZY].change()
    lazy.stop()
    house.add(NEW)
    daemon.api.learns_of(NEW)
    with house.writing():
        daemon.pass_time(DAY)  # 4
    assert house.counts() == [4, 4, 4, 4, 2, 1]
    assert daemon.api.get("/status")["fine"], daemon.api.get("/status")
    the_backup_folder_is_full(house)  # day 5
    assert house.counts() == [5, 5, 5, 5, 2, 2]
    one_is_removed(house)  # day 6
    assert house.counts() == [6, 6, 6, 5, 2, 3]
    off_at_midnight(house)  # day 7
    assert house.counts() == [7, 7, 7, 5, 2, 4]
    assert daemon.api.get("/status")["fine"], daemon.api.get("/status")
    house.is_idle()
    assert daemon.api.jobs("failed", "interrupted", "cancelled") == []
    verified = [job["result"] for job in daemon.api.jobs() if job["kind"] == "verify"]
    assert verified
    assert set(verified) <= {"ok", "nothing"}
    all_points_restore(house)
    daemon.stop()


@pytest.mark.timeout(200)
def test_starts_of_the_array_and_of_the_vm_service(house: House) -> None:
    """The VMs of the week come up in order, and only when the VM service has started."""
    house.add(ORDINARY)
    house.add(SECURE, devices=[TPM], uefi=True)
    house.add(ROUGH, RAW)
    house.add(LAZY)
    order = [house.guest, *(house.worlds[name].vm for name in (ROUGH, SECURE, LAZY, ORDINARY))]
    listed: list[Json] = [{"vm": vm.name} for vm in order]
    listed[2]["wait_for"] = [f"agent:{STUBBORN}", f"vm:{ROUGH}"]
    for vm in order:
        vm.stop()
    service = VmService(house, order)
    house.daemon.write_settings(autostart={"vms": listed})
    house.boot_alone()
    assert not any(vm.state == "running" for vm in order)

    service.starts("boot-1")
    assert service.ended() == "finished"
    assert [vm.state for vm in order] == ["running"] * 5
    assert service.order() == order

    lazy = house.worlds[LAZY].vm  # a user has switched it off: nothing but a start has it come up
    lazy.stop()
    house.host.restart()
    house.daemon.settle()
    house.daemon.stop()
    house.boot_alone()
    service.is_told("boot-1")
    assert service.ended() == "finished"
    assert lazy.state == "shutoff"

    users_meddle(house, service, order)

    service.stops()
    house.daemon.stop()
    house.host.shut_down()
    house.host.start()
    house.boot_alone()
    service.starts("boot-3", devices=False)
    assert service.ended() == "held"
    assert not any(vm.state == "running" for vm in order)
    service.is_told(None)  # but a user may have them started
    until(lambda: order[0].state == "running")
    kinds = [event["kind"] for event in house.daemon.api.get("/events")]
    assert [kind for kind in kinds if kind.startswith("autostart")] == ["autostart-held"]
    house.daemon.stop()


def users_meddle(house: House, service: "VmService", order: Sequence[TestVm]) -> None:
    """The VM service alone is switched off and on, and VMs are switched off meanwhile."""
    service.stops()
    service.starts("service-2")
    until(lambda: order[1].state == "running")
    order[1].stop()  # by a user, while the next one waits for the guest's agent and for this one
    order[3].start(running=True)  # by a user, before its turn
    until(lambda: service.mark(LAZY) == "done")
    order[3].stop()
    until(lambda: service.mark(LAZY) == "stopped")
    until(house.guest.agent_answers)
    order[1].start(running=True)
    assert service.ended() == "finished"
    assert [vm.state for vm in order] == [*["running"] * 3, "shutoff", "running"]


class VmService:
    """Stands in for the part of Unraid that starts and stops libvirt, and tells of it."""

    def __init__(self, house: House, vms: Sequence[TestVm]) -> None:
        self._daemon = house.daemon
        self._vms = vms
        self._libvirt = house.daemon.root / "var/run/libvirt"
        (self._libvirt / "qemu").mkdir(parents=True)

    def starts(self, run: str, *, devices: bool = True) -> None:
        """It has started; ``devices``: those that are passed through could be prepared."""
        pid, autostarted = self._libvirt / "libvirtd.pid", self._libvirt / "qemu" / "autostarted"
        for path in (pid, autostarted) if devices else (autostarted, pid):
            path.touch()
            time.sleep(0.02)
        self.is_told(run)

    def is_told(self, run: str | None) -> None:
        """The daemon is told of it, again."""
        until(lambda: self._daemon.api.part("libvirt")["state"] == "ok")
        self._daemon.api.call("POST", "/autostart/runs", {"run": run}, expect=202)

    def stops(self) -> None:
        """The VMs are shut down, and libvirt is."""
        for vm in self._vms:
            if vm.state == "running":
                vm.stop()
        for path in self._libvirt.rglob("*"):
            if path.is_file():
                path.unlink()

    def ended(self) -> str:
        """Wait for the end of the run; return how it ended."""

        def state() -> str:
            return str(self._daemon.api.get("/autostart")["run"]["state"])

        until(lambda: state() != "running", lambda: self._daemon.api.get("/autostart"))
        return state()

    def mark(self, name: str) -> str | None:
        """What is remembered of a VM in this run."""
        vms = self._daemon.api.get("/autostart")["run"]["vms"]
        return next((one["mark"] for one in vms if one["vm"] == name), None)

    def order(self) -> list[TestVm]:
        """In which order the VMs were started."""
        return sorted(self._vms, key=_begun)


def _begun(vm: TestVm) -> int:
    return int(Path(f"/proc/{vm.pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


def nothing_is_read_of_who_is_off(house: House) -> None:
    """A day with a restart of libvirtd, and one with a power cut."""
    daemon, lazy = house.daemon, house.worlds[LAZY]
    with opened(lazy.disks) as seen:
        house.host.restart()
        daemon.settle()
        with house.writing(LAZY):
            daemon.pass_time(DAY)
        assert files(seen, lazy) == []

        daemon.stop()
        house.host.power_cut()
        house.boot()
        with house.writing(LAZY):
            daemon.pass_time(DAY)
        # After a power cut the header is looked at: change tracking in it may be broken.
        assert len(files(seen, lazy)) <= 2
    line = daemon.api.vm_in_status(LAZY)
    assert line is not None
    assert datetime.fromisoformat(line["current_as_of"]) > daemon.clock.now() - DAY


def the_backup_folder_is_full(house: House) -> None:
    """A day on which nothing can be stored until there is space again."""
    daemon, before = house.daemon, house.counts()
    ballast = daemon.store / "ballast"
    fill(ballast)
    with house.writing():
        daemon.pass_time(DAY)
        assert house.counts() == before
        status = daemon.api.get("/status")
        assert not status["fine"]
        assert "full" in str(status["todo"])
        ballast.unlink()
        daemon.daemon.runner.wake()
        until(lambda: not daemon.api.jobs("waiting"))
        daemon.settle()
    house.is_idle()


def one_is_removed(house: House) -> None:
    """A day after a VM was removed."""
    daemon, gone = house.daemon, house.worlds[ROUGH]
    gone.vm.stop()
    gone.vm.undefine()
    until(lambda: (daemon.api.vm_in_status(ROUGH) or {"state": ""})["state"] is None)
    house.gone.add(ROUGH)
    with house.writing():
        daemon.pass_time(DAY)


def off_at_midnight(house: House) -> None:
    """A day on which the host is shut down in good order, and started after midnight."""
    with house.writing():
        house.daemon.stop()
        house.host.shut_down()
        house.daemon.clock.advance(DAY.total_seconds())
        house.boot()
        house.daemon.settle()


def all_points_restore(house: House) -> None:
    for name, world in house.worlds.items():
        assert sorted(world.references) == sorted(house.points(name)), name
        for point in world.references:
            world.assert_holds(point)
        world.assert_restores(max(world.references))
    for result in house.worlds[LAZY].app().verify().all(STUBBORN):
        assert result.good, result


def _next_sunday() -> datetime:
    """A moment to come, so that no file is younger than what is noted of it.

    On a Sunday, so that the first proof is due before there is anything to be proven.
    """
    soon = (datetime.now(UTC) + DAY).replace(hour=0, minute=10)
    return soon + (6 - soon.weekday()) * DAY


def files(seen: Seen, world: World) -> list[Path]:
    """What was opened of a world's disks, the folder left aside."""
    return [path for path in seen.seen() if path != world.disks]


def fill(ballast: Path) -> None:
    """Leave no room beside this file."""
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(bytes(MIB))
                file.flush()
        except OSError:
            return
