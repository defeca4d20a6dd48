"""The hypervisor port on libvirt."""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import libvirt
import libvirt_qemu

from vm_babysitter.adapters.libvirt import agent, qmp, xml
from vm_babysitter.adapters.libvirt.belongings import find_belongings, usual_tpm_roots
from vm_babysitter.adapters.libvirt.connection import Connection
from vm_babysitter.adapters.libvirt.describe import (
    Probe,
    Resolve,
    describe,
    describe_if_there,
    power_of,
)
from vm_babysitter.adapters.libvirt.errors import translated
from vm_babysitter.adapters.real_path import real_path
from vm_babysitter.adapters.this_host import runs_with
from vm_babysitter.domain.agent import AgentAnswer
from vm_babysitter.domain.errors import Busy, ScratchUnfit, VmNotFound
from vm_babysitter.domain.point import Checkpoint
from vm_babysitter.domain.vm import DiskKind, DiskState, PowerState, Vm
from vm_babysitter.ports import (
    ActiveJob,
    BackupRequest,
    Belongings,
    Export,
    JobKind,
    Moment,
)

_REDEFINE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
_VALIDATE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
_METADATA_ONLY = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY
T = TypeVar("T")
_NO_JOB = libvirt.VIR_DOMAIN_JOB_NONE
_JOB_END_SECONDS = 100.0
"""libvirt 9.0 can be blocked for 30 s by an agent that comes or goes during a job."""
_JOB_POLL_SECONDS = 0.02


class LibvirtHypervisor:
    """Implements ``ports.Hypervisor``; safe for threads as far as libvirt is."""

    def __init__(
        self,
        connection: Connection,
        probe: Probe,
        tpm_roots: Sequence[Path] = (),
        resolve: Resolve = real_path,
    ) -> None:
        """Use ``probe`` to describe an image file by its content, ``resolve`` to find it.

        ``tpm_roots``: where libvirt may keep the state of TPMs; none for where it usually does.
        """
        self.uri = connection.uri
        self._connection = connection
        self._probe = probe
        self._resolve = resolve
        self._tpm_roots = tpm_roots or usual_tpm_roots(connection.uri)

    def vms(self) -> tuple[Vm, ...]:
        """See the port."""
        return self._list(self._probe)

    def outlines(self) -> tuple[Vm, ...]:
        """See the port."""
        return self._list(None)

    def _list(self, probe: Probe | None) -> tuple[Vm, ...]:
        flags = libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT
        with translated("Listing the VMs", uri=self._connection.uri):
            domains = self._connection.handle.listAllDomains(flags)
            found = [describe_if_there(domain, self._resolve, probe) for domain in domains]
            return tuple(sorted((vm for vm in found if vm is not None), key=lambda vm: vm.name))

    def vm(self, name: str) -> Vm:
        """See the port."""
        return self._find(name, self._probe)

    def outline(self, name: str) -> Vm:
        """See the port."""
        return self._find(name, None)

    def _find(self, name: str, probe: Probe | None) -> Vm:
        handle = self._connection.handle
        with translated("Looking up the VM", name, self._connection.uri):
            for lookup in (handle.lookupByName, handle.lookupByUUIDString):
                domain = _look_up(lookup, name)
                if domain is not None and domain.isPersistent():
                    return describe(domain, self._resolve, probe)
        raise VmNotFound(name)

    def power(self, uuid: str) -> PowerState:
        """See the port."""
        try:
            with translated("Asking for the VM's state", uuid, self._connection.uri):
                return power_of(self._domain(uuid))
        except VmNotFound:
            return PowerState.OFF

    def started(self, uuid: str) -> str:
        """See the port."""
        with translated("Asking since when the VM runs", uuid, self._connection.uri):
            domain = self._domain(uuid)
            if not domain.isActive():
                return ""
            # QEMU is not asked: while the VM is migrated or saved that would wait for its end.
            # Where its process is out of sight, libvirt's number changes with each start, too.
            return runs_with("-uuid", uuid) or f"id {domain.ID()}"

    def start(self, uuid: str) -> None:
        """See the port."""
        with translated("Starting the VM", uuid, self._connection.uri):
            domain = self._domain(uuid)
            try:
                domain.create()
            except libvirt.libvirtError:
                if not domain.isActive():  # else somebody was faster
                    raise

    def own_autostart(self, uuid: str) -> bool:
        """See the port."""
        with translated("Asking whether the VM starts by itself", uuid, self._connection.uri):
            return bool(self._domain(uuid).autostart())

    def set_own_autostart(self, uuid: str, *, on: bool) -> None:
        """See the port."""
        with translated("Changing whether the VM starts by itself", uuid, self._connection.uri):
            self._domain(uuid).setAutostart(int(on))

    def resume(self, uuid: str) -> None:
        """See the port."""
        with translated("Having the VM go on", uuid, self._connection.uri):
            domain = self._domain(uuid)
            if power_of(domain) is PowerState.STUCK:
                domain.resume()

    def definition(self, uuid: str) -> str:
        """See the port."""
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        with translated("Reading the VM's definition", uuid, self._connection.uri):
            text: str = self._domain(uuid).XMLDesc(flags)
            return text

    def belongings(self, uuid: str) -> Belongings:
        """See the port."""
        with translated("Asking what the VM has beside its disks", uuid, self._connection.uri):
            domain = self._domain(uuid)
            found = find_belongings(domain.XMLDesc(0), uuid, self._tpm_roots)
            return replace(
                found,
                autostart=bool(domain.autostart()),
                managed_save=bool(domain.hasManagedSaveImage(0)),
            )

    def disk_states(self, uuid: str) -> tuple[DiskState, ...]:
        """See the port."""
        with translated("Asking QEMU for its disks", uuid, self._connection.uri):
            domain = self._domain(uuid)
            blocks = _monitor(domain, "query-block")
            nodes = _monitor(domain, "query-named-block-nodes", flat=True)
            disks = xml.parse_disks(domain.XMLDesc(0))
        states = []
        for disk in disks:
            block = qmp.find_device(blocks, disk.alias)
            if block is None or not block.get("inserted"):
                continue
            layers = qmp.layers(block, nodes)
            identity = _identity(layers[0].path) if layers else ""
            states.append(DiskState(disk.target, identity, layers, qmp.internal_snapshots(block)))
        return tuple(states)

    def active_job(self, uuid: str) -> ActiveJob | None:
        """See the port."""
        with translated("Asking for running jobs", uuid, self._connection.uri):
            domain = self._domain(uuid)
            try:
                return _find_job(domain) if domain.isActive() else None
            except libvirt.libvirtError:
                if domain.isActive():
                    raise
                return None  # it has gone off while it was asked

    def end_backup(self, uuid: str) -> None:
        """See the port."""
        with translated("Ending the backup job", uuid, self._connection.uri):
            domain = self._domain(uuid)
            try:
                domain.abortJob()
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                    raise
            deadline = time.monotonic() + _JOB_END_SECONDS
            while domain.isActive() and _has_job(domain):
                if time.monotonic() > deadline:
                    raise Busy(f"VM {domain.name()!r}", "the ended backup job does not go away")
                time.sleep(_JOB_POLL_SECONDS)

    def adopt_checkpoint(self, uuid: str, checkpoint: Checkpoint) -> bool:
        """See the port."""
        with translated("Telling libvirt of a checkpoint", uuid, self._connection.uri):
            domain = self._domain(uuid)
            text = xml.adoption_xml(checkpoint, _others(domain, checkpoint.disks))
            try:
                domain.checkpointCreateXML(text, _REDEFINE | _VALIDATE)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT:
                    raise
                return False
            return True

    def begin_backup(
        self, uuid: str, request: BackupRequest, moment: Moment = nullcontext
    ) -> tuple[Export, ...]:
        """See the port."""
        with translated("Starting the backup job", uuid, self._connection.uri):
            domain = self._domain(uuid)
            backup = xml.backup_xml(request, _others(domain, [d.target for d in request.disks]))
            self._make_folder(domain, Path(request.socket).parent)
            with ExitStack() as refused:
                for name, target in [(d.track, d.target) for d in request.disks if d.track]:
                    text = xml.checkpoint_xml(name, [target], _others(domain, [target]))
                    refused.callback(_delete, domain.checkpointCreateXML(text, 0))
                with moment():
                    domain.backupBegin(backup, None, 0)
                refused.pop_all()
        return tuple(
            Export(d.target, d.target, None if d.since is None else f"backup-{d.target}")
            for d in request.disks
        )

    def _make_folder(self, domain: libvirt.virDomain, folder: Path) -> None:
        """Make the folder of a job's socket, where QEMU's user can make it and others cannot."""
        owner = xml.process_owner(domain.XMLDesc(0))
        try:
            folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            if owner is not None and owner != (0, 0):
                folder.parent.chmod(0o711)  # so that QEMU gets through, and sees nothing else
                os.chown(folder, *owner)
        except OSError as error:
            raise ScratchUnfit(str(folder), error.strerror or str(error)) from error

    def checkpoints(self, uuid: str) -> tuple[str, ...]:
        """See the port."""
        with translated("Asking for checkpoints", uuid, self._connection.uri):
            found = self._domain(uuid).listAllCheckpoints()
            return tuple(sorted(checkpoint.getName() for checkpoint in found))

    def forget_checkpoints(self, uuid: str, prefix: str) -> None:
        """See the port."""
        with translated("Dropping checkpoint metadata", uuid, self._connection.uri):
            for checkpoint in self._domain(uuid).listAllCheckpoints():
                if checkpoint.getName().startswith(prefix):
                    checkpoint.delete(_METADATA_ONLY)

    def remove_bitmaps(self, uuid: str, name: str, targets: Sequence[str]) -> None:
        """See the port."""
        with translated("Removing change tracking", uuid, self._connection.uri):
            domain = self._domain(uuid)
            old = Checkpoint(name, int(time.time()), tuple(targets))
            # Unvalidated, since a broken bitmap can only be removed this way while QEMU runs.
            text = xml.adoption_xml(old, _others(domain, targets))
            checkpoint = domain.checkpointCreateXML(text, _REDEFINE)
            try:
                checkpoint.delete(0)
            except libvirt.libvirtError:
                checkpoint.delete(_METADATA_ONLY)
                raise

    def agent_missing(self, uuid: str) -> str:
        """See the port."""
        with translated("Looking for the guest agent", uuid, self._connection.uri):
            domain = self._domain(uuid)
            return xml.agent_missing(domain.XMLDesc(0)) or agent.ping(domain)

    def freeze(self, uuid: str) -> AgentAnswer:
        """See the port."""
        with translated("Freezing the guest's file systems", uuid, self._connection.uri):
            return agent.freeze(self._domain(uuid))

    def thaw(self, uuid: str) -> AgentAnswer:
        """See the port."""
        with translated("Thawing the guest's file systems", uuid, self._connection.uri):
            return agent.thaw(self._domain(uuid))

    def versions(self) -> dict[str, str]:
        """See the port."""
        with translated("Asking libvirt for its version", uri=self._connection.uri):
            handle = self._connection.handle
            return {
                "libvirt": _dotted(handle.getLibVersion()),
                "qemu": _dotted(handle.getVersion()),
            }

    def _domain(self, uuid: str) -> libvirt.virDomain:
        return self._connection.handle.lookupByUUIDString(uuid)


def _look_up(lookup: Callable[[str], libvirt.virDomain], word: str) -> libvirt.virDomain | None:
    try:
        return lookup(word)
    except libvirt.libvirtError as error:
        # A word that is no UUID, or no name, is an invalid argument.
        if error.get_error_code() in {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG}:
            return None
        raise
    except ValueError:  # not UTF-8, or with a NUL in it: nothing is called that
        return None


def _others(domain: libvirt.virDomain, targets: Sequence[str]) -> list[str]:
    disks = xml.parse_disks(domain.XMLDesc(0))
    return [disk.target for disk in disks if disk.target not in targets]


def _monitor(domain: libvirt.virDomain, command: str, **arguments: Any) -> Any:
    request = {"execute": command, **({"arguments": arguments} if arguments else {})}
    return json.loads(libvirt_qemu.qemuMonitorCommand(domain, json.dumps(request), 0))["return"]


def _delete(checkpoint: libvirt.virDomainCheckpoint) -> None:
    """Delete a new checkpoint with its bitmap; where libvirt is gone, undoing the attempt does."""
    with suppress(libvirt.libvirtError):
        checkpoint.delete(0)


def _find_job(domain: libvirt.virDomain) -> ActiveJob | None:
    try:
        if _has_job(domain):
            return _describe_job(domain)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            raise
        # libvirt tells of the job of a VM that arrives only on the host it comes from.
        return ActiveJob(JobKind.MIGRATION, "it is arriving from another host")
    for disk in xml.parse_disks(domain.XMLDesc(0)):
        if disk.kind is DiskKind.DISK and domain.blockJobInfo(disk.target):
            return ActiveJob(JobKind.BLOCK, f"on disk {disk.target}")
    return None


def _has_job(domain: libvirt.virDomain) -> bool:
    return bool(_of_job(domain.jobInfo, [libvirt.VIR_DOMAIN_JOB_UNBOUNDED])[0] != _NO_JOB)


def _of_job(ask: Callable[[], T], at_the_edge: T) -> T:
    """Ask for a running job. While a backup job begins or ends libvirt cannot describe it."""
    try:
        return ask()
    except libvirt.libvirtError as error:
        gone = error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_BACKUP
        if not gone and "backup job data missing" not in str(error):
            raise
        return at_the_edge


def _describe_job(domain: libvirt.virDomain) -> ActiveJob:
    backup: dict[str, Any] = {"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP}
    operation = _of_job(domain.jobStats, backup).get("operation")
    if operation != libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
        return ActiveJob(JobKind.MIGRATION, f"libvirt job operation {operation}")
    description = _of_job(lambda: domain.backupGetXMLDesc(0), "<domainbackup/>")
    socket = xml.backup_socket(description)
    return ActiveJob(
        JobKind.BACKUP, f"serving {socket}" if socket else "writing, beginning or ending", socket
    )


def _identity(path: str) -> str:
    """Return what tells this image from another one put at the same path."""
    try:
        return f"inode:{Path(path).stat().st_ino}"
    except OSError:
        return ""


def _dotted(version: int) -> str:
    return f"{version // 1000000}.{version // 1000 % 1000}.{version % 1000}"
