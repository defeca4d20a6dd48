"""A hypervisor in memory: ``ports.Hypervisor``."""

import uuid as uuids
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from tests.support.fakes.disk import FakeBitmap, FakeDisk
from tests.support.fakes.faults import Faults, faulty
from vm_babysitter.domain.agent import AgentAnswer
from vm_babysitter.domain.errors import Busy, HypervisorError, VmNotFound
from vm_babysitter.domain.point import Checkpoint
from vm_babysitter.domain.vm import QEMU_RUNS, Disk, DiskState, PowerState, Vm
from vm_babysitter.ports import ActiveJob, BackupRequest, Belongings, Export, JobKind, Moment

INTERNAL, INVALID, EXISTS, NO_CHECKPOINT, UNSUPPORTED = 1, 55, 8, 103, 67
"""libvirt's numbers: internal error, operation invalid, invalid argument, ..."""


@dataclass(frozen=True)
class FakeExport:
    """One disk of a backup job, as it was when the job began."""

    content: bytes
    data: frozenset[int]
    """Clusters that hold data."""
    changed: frozenset[int] | None
    """Clusters that the bitmap has marked; None where no bitmap is offered."""


@dataclass(frozen=True)
class FakeJob:
    """A running backup job."""

    socket: str
    scratch: tuple[str, ...]
    exports: dict[str, FakeExport]


@dataclass
class FakeVm:
    """A VM of a FakeHypervisor, on by default, without a guest agent."""

    name: str
    uuid: str
    disks: dict[str, FakeDisk]
    state: PowerState = PowerState.RUNNING
    persistent: bool = True
    definition: str = "<domain/>"
    belongings: Belongings = field(default_factory=Belongings)
    other_disks: tuple[Disk, ...] = ()
    """Disks that are only described: drives, disks passed through and such."""
    checkpoints: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What libvirt knows: the name and the targets of each checkpoint."""
    job: FakeJob | None = None
    foreign_job: ActiveJob | None = None
    no_agent: str = "the VM has no guest agent"
    """Why there is none; empty if the agent answers."""
    file_systems: int = 1
    frozen: bool = False
    freeze_answer: AgentAnswer | None = None
    """What the agent says instead of freezing."""
    thaw_answer: AgentAnswer | None = None
    """What the agent says instead of thawing."""
    runs: int = 1
    """How often it was started."""

    def start(self, state: PowerState = PowerState.RUNNING) -> None:
        """Start it; what was saved of its memory is used up."""
        self.runs += 1
        self.state = state
        for disk in self.disks.values():
            disk.version += any(layer.bitmaps for layer in disk.layers)  # QEMU marks them as used
        self.belongings = replace(self.belongings, managed_save=False)

    def stop(self) -> None:
        """Switch it off; QEMU ends in good order."""
        for disk in self.disks.values():
            disk.store_bitmaps()
        self._off()

    def kill(self) -> None:
        """Kill QEMU: bitmaps are lost or broken, checkpoint metadata and scratch files stay."""
        for disk in self.disks.values():
            disk.break_bitmaps()
        self._off()

    def describe(self) -> Vm:
        """Return it as the port tells it."""
        disks = (*(disk.describe() for disk in self.disks.values()), *self.other_disks)
        return Vm(self.uuid, self.name, self.state, disks)

    def _off(self) -> None:
        self.state, self.job, self.frozen = PowerState.OFF, None, False


class FakeHypervisor(Faults):
    """Implements ``ports.Hypervisor``; ``add`` makes VMs."""

    uri = "fake:///system"

    def __init__(self, files: set[str] | None = None) -> None:
        """``files`` are the scratch files and sockets there are, shared with the places."""
        super().__init__()
        self.machines: dict[str, FakeVm] = {}
        self.files: set[str] = set() if files is None else files

    def add(self, name: str = "vm", *disks: FakeDisk, uuid: str = "") -> FakeVm:
        """Define a VM that runs, by default with one disk."""
        for disk in disks or (disks := (FakeDisk(),)):
            disk.path = disk.path or f"/vms/{name}/{disk.target}.{disk.format}"
            disk.layers[0].path = disk.path
        uuid = uuid or str(uuids.uuid5(uuids.NAMESPACE_DNS, f"{len(self.machines)} {name}"))
        self.machines[uuid] = FakeVm(name, uuid, {disk.target: disk for disk in disks})
        return self.machines[uuid]

    @faulty
    def vms(self) -> tuple[Vm, ...]:
        persistent = [vm.describe() for vm in self.machines.values() if vm.persistent]
        return tuple(sorted(persistent, key=lambda vm: vm.name))

    @faulty
    def outlines(self) -> tuple[Vm, ...]:
        return tuple(replace(vm, disks=tuple(map(_unread, vm.disks))) for vm in self.vms())

    @faulty
    def vm(self, name: str) -> Vm:
        return self._by_name(name).describe()

    def _by_name(self, name: str) -> FakeVm:
        persistent = [vm for vm in self.machines.values() if vm.persistent]
        for found in (
            *(vm for vm in persistent if vm.name == name),
            *(vm for vm in persistent if vm.uuid == name),
        ):
            return found
        raise VmNotFound(name)

    @faulty
    def outline(self, name: str) -> Vm:
        found = self._by_name(name).describe()
        return replace(found, disks=tuple(map(_unread, found.disks)))

    @faulty
    def power(self, uuid: str) -> PowerState:
        vm = self.machines.get(uuid)
        return PowerState.OFF if vm is None else vm.state

    @faulty
    def started(self, uuid: str) -> str:
        vm = self._find(uuid)
        return f"run {vm.runs}" if vm.state in QEMU_RUNS else ""

    @faulty
    def start(self, uuid: str) -> None:
        vm = self._find(uuid)
        if vm.state is PowerState.OFF:
            vm.start()

    @faulty
    def own_autostart(self, uuid: str) -> bool:
        return self._find(uuid).belongings.autostart

    @faulty
    def set_own_autostart(self, uuid: str, *, on: bool) -> None:
        vm = self._find(uuid)
        vm.belongings = replace(vm.belongings, autostart=on)

    @faulty
    def resume(self, uuid: str) -> None:
        vm = self._find(uuid)
        if vm.state is PowerState.STUCK:
            vm.state = PowerState.RUNNING

    @faulty
    def definition(self, uuid: str) -> str:
        return self._find(uuid).definition

    @faulty
    def belongings(self, uuid: str) -> Belongings:
        return self._find(uuid).belongings

    @faulty
    def disk_states(self, uuid: str) -> tuple[DiskState, ...]:
        vm = self._running(uuid, "Asking QEMU for its disks")
        return tuple(disk.state() for disk in vm.disks.values())

    @faulty
    def active_job(self, uuid: str) -> ActiveJob | None:
        vm = self._find(uuid)
        if vm.job is None or vm.state not in QEMU_RUNS:
            return vm.foreign_job
        return ActiveJob(JobKind.BACKUP, f"serving {vm.job.socket}", vm.job.socket)

    @faulty
    def end_backup(self, uuid: str) -> None:
        vm = self._find(uuid)
        if vm.job is not None:
            self.files -= {vm.job.socket, *vm.job.scratch}
        vm.job = None

    @faulty
    def adopt_checkpoint(self, uuid: str, checkpoint: Checkpoint) -> bool:
        vm = self._running(uuid, "Telling libvirt of a checkpoint")
        if not all(vm.disks[target].has_valid(checkpoint.name) for target in checkpoint.disks):
            return False
        vm.checkpoints[checkpoint.name] = checkpoint.disks
        return True

    @faulty
    def begin_backup(
        self, uuid: str, request: BackupRequest, moment: Moment = nullcontext
    ) -> tuple[Export, ...]:
        vm = self._running(uuid, "Starting the backup job")
        self._check(vm, request)
        made = {d.track: d.target for d in request.disks if d.track}
        for name, target in made.items():
            vm.disks[target].layers[0].bitmaps[name] = FakeBitmap()
            vm.checkpoints[name] = (target,)
        exports = {}
        try:
            with moment():
                for wanted in request.disks:
                    disk = vm.disks[wanted.target]
                    dirty = None if wanted.since is None else disk.changed_since(wanted.since)
                    content = bytes(disk.content)
                    exports[wanted.target] = FakeExport(content, frozenset(disk.data), dirty)
        except Exception:
            for name, target in made.items():
                vm.disks[target].layers[0].bitmaps.pop(name, None)
                vm.checkpoints.pop(name, None)
            raise
        vm.job = FakeJob(request.socket, tuple(d.scratch for d in request.disks), exports)
        self.files |= {vm.job.socket, *vm.job.scratch}
        return tuple(
            Export(d.target, d.target, None if d.since is None else f"backup-{d.target}")
            for d in request.disks
        )

    @faulty
    def checkpoints(self, uuid: str) -> tuple[str, ...]:
        return tuple(sorted(self._find(uuid).checkpoints))

    @faulty
    def forget_checkpoints(self, uuid: str, prefix: str) -> None:
        vm = self._find(uuid)
        vm.checkpoints = {n: d for n, d in vm.checkpoints.items() if not n.startswith(prefix)}

    @faulty
    def remove_bitmaps(self, uuid: str, name: str, targets: Sequence[str]) -> None:
        vm = self._running(uuid, "Removing change tracking")
        if vm.job is not None or vm.foreign_job is not None:
            raise Busy(f"VM {vm.name!r}", "cannot acquire state change lock")
        for target in targets:
            layers = vm.disks[target].layers
            if not any(name in layer.bitmaps for layer in layers):
                reason = f"bitmap {name!r} not found in backing chain of {target!r}"
                raise HypervisorError("Removing change tracking", INTERNAL, reason)
            for layer in layers:
                layer.bitmaps.pop(name, None)
        vm.checkpoints.pop(name, None)

    @faulty
    def agent_missing(self, uuid: str) -> str:
        return self._find(uuid).no_agent

    @faulty
    def freeze(self, uuid: str) -> AgentAnswer:
        vm = self._find(uuid)
        if vm.no_agent or vm.freeze_answer is not None:
            return vm.freeze_answer or AgentAnswer(refusal=vm.no_agent)
        vm.frozen = True
        return AgentAnswer(vm.file_systems)

    @faulty
    def thaw(self, uuid: str) -> AgentAnswer:
        vm = self._find(uuid)
        if vm.thaw_answer is not None or vm.state is PowerState.OFF:
            return vm.thaw_answer or AgentAnswer()
        if vm.no_agent:
            return AgentAnswer(refusal=vm.no_agent)
        count = vm.file_systems if vm.frozen else 0
        vm.frozen = False
        return AgentAnswer(count)

    @faulty
    def versions(self) -> dict[str, str]:
        return {"libvirt": "9.0.0", "qemu": "7.2.0"}

    def _find(self, uuid: str) -> FakeVm:
        if uuid not in self.machines:
            raise VmNotFound(uuid)
        return self.machines[uuid]

    def _running(self, uuid: str, action: str) -> FakeVm:
        vm = self._find(uuid)
        if vm.state not in QEMU_RUNS:
            raise HypervisorError(action, INVALID, "domain is not running")
        return vm

    def _check(self, vm: FakeVm, request: BackupRequest) -> None:
        """Refuse what libvirt would refuse, before anything is done."""
        if vm.job is not None or vm.foreign_job is not None:
            raise Busy(f"VM {vm.name!r}", "cannot acquire state change lock")
        new = [d.track for d in request.disks if d.track]
        for name in new:
            if name in vm.checkpoints or new.count(name) > 1:
                raise _refused(EXISTS, f"domain checkpoint {name} already exists")
        for wanted in request.disks:
            if wanted.scratch in self.files:
                raise _refused(INTERNAL, f"{wanted.scratch}: File exists")
            if wanted.since is not None and wanted.since not in vm.checkpoints:
                raise _refused(NO_CHECKPOINT, f"no domain checkpoint {wanted.since!r}")
            if wanted.track:
                _check_bitmap(vm.disks[wanted.target], wanted.track)


def _check_bitmap(disk: FakeDisk, name: str) -> None:
    if not disk.tracks:
        raise _refused(UNSUPPORTED, f"disk {disk.target} cannot hold a bitmap")
    if name in disk.layers[0].bitmaps:
        raise _refused(INTERNAL, f"Bitmap already exists: {name}")


def _unread(disk: Disk) -> Disk:
    """A disk as its definition alone tells it."""
    return replace(
        disk, real_format="", virtual_size=0, allocated=None, compat="", data_file="", unreadable=""
    )


def _refused(number: int, reason: str) -> HypervisorError:
    return HypervisorError("Starting the backup job", number, reason)
