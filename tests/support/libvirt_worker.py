"""A process that holds a libvirt connection for the tests; run as a program, not imported.

libvirt's embedded QEMU driver keeps its root locked until the *process* ends, whatever is
closed before, and a process can open it about 16 times only. So tests that want to hand the
root on to somebody else do their own work in a process that can end.

It is started with a URI, reads requests from standard input, one JSON document a line, and
answers each with one line: ``{"result": ...}`` or ``{"error": [number, message]}``.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import libvirt
import libvirt_qemu
from lxml import etree

_REMOVE_ALL = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
_MIGRATE = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNSAFE  # libvirt takes no local file system for a shared one
)
_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTOFF: "shutoff",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_SHUTDOWN: "shutting down",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "pmsuspended",
}


class Operations:
    """What tests may ask for; each public method is an operation."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    def ping(self) -> None:
        pass

    def names(self) -> list[str]:
        return sorted(d.name() for d in self._connection.listAllDomains())

    def define(self, xml: str) -> str:
        return str(self._connection.defineXML(xml).UUIDString())

    def rename(self, name: str, new_name: str) -> None:
        self._domain(name).rename(new_name)

    def create_transient(self, xml: str) -> None:
        """Start a domain that is gone once it is off."""
        self._connection.createXML(xml, 0)

    def start(self, name: str, running: bool) -> None:
        flags = 0 if running else libvirt.VIR_DOMAIN_START_PAUSED
        self._domain(name).createWithFlags(flags)

    def destroy(self, name: str) -> None:
        self._domain(name).destroy()

    def suspend(self, name: str) -> None:
        self._domain(name).suspend()

    def resume(self, name: str) -> None:
        self._domain(name).resume()

    def undefine(self, name: str) -> None:
        self._domain(name).undefineFlags(_REMOVE_ALL)

    def undefine_plainly(self, name: str) -> None:
        """Undefine a VM without any flag, as Unraid's pages do."""
        self._domain(name).undefine()

    def remove(self, name: str) -> None:
        """Make sure that no such domain is left."""
        if name not in self.names():
            return
        domain = self._domain(name)
        persistent = domain.isPersistent()
        if domain.isActive():
            domain.destroy()
        if persistent:
            domain.undefineFlags(_REMOVE_ALL)

    def set_autostart(self, name: str, on: bool) -> None:
        self._domain(name).setAutostart(on)

    def managed_save(self, name: str) -> None:
        """Save a VM's memory and switch it off; it goes on from there at the next start."""
        self._domain(name).managedSave(0)

    def save(self, name: str, path: str) -> None:
        """Save a VM's memory into a file and switch it off."""
        self._domain(name).save(path)

    def restore(self, path: str) -> None:
        """Have a VM go on from a file that ``save`` made."""
        self._connection.restore(path)

    def wake(self, name: str) -> None:
        """Wake a guest that has suspended itself."""
        self._domain(name).pMWakeup(0)

    def state(self, name: str) -> str:
        number = self._domain(name).state()[0]
        return _STATES.get(number, str(number))

    def state_now(self, name: str) -> str:
        """The same of a VM whose QEMU may not answer."""
        number = self._connection.lookupByName(name).state()[0]
        return _STATES.get(number, str(number))

    def migrate(self, name: str, to: str, place: str, options: Mapping[str, Any]) -> None:
        """Have a VM's own QEMU send it to another libvirt, where the VM is defined, too.

        Args:
            name: the VM.
            to: URI of the other libvirt.
            place: a path for sockets between the two QEMUs.
            options: ``texts``, what is written otherwise in the definition over there;
                ``speed`` in MiB a second; ``flags`` beside those that are always given.
        """
        domain = self._domain(name)

        def over_there(flags: int) -> str:
            text = str(domain.XMLDesc(flags | libvirt.VIR_DOMAIN_XML_SECURE))
            for here, there in options["texts"].items():
                text = text.replace(here, there)
            return text

        parameters: dict[str, object] = {
            libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{place}",
            libvirt.VIR_MIGRATE_PARAM_DEST_XML: over_there(libvirt.VIR_DOMAIN_XML_MIGRATABLE),
            libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: over_there(libvirt.VIR_DOMAIN_XML_INACTIVE),
            libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: options["speed"],
        }
        if options["flags"] & libvirt.VIR_MIGRATE_NON_SHARED_DISK:
            parameters[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] = f"unix://{place}-disks"
        domain.migrateToURI3(to, parameters, _MIGRATE | options["flags"])

    def is_migrating(self, name: str) -> bool:
        """Whether a VM's memory is being sent to another host."""
        job = self._connection.lookupByName(name).jobStats()
        sends = job.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
        return bool(sends and job.get("memory_total", 0) > 0)

    def hurry_migration(self, name: str) -> None:
        """Let a migration go as fast as it can."""
        self._connection.lookupByName(name).migrateSetMaxSpeed(1000)

    def xml(self, name: str, inactive: bool) -> str:
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE if inactive else 0
        return str(self._domain(name).XMLDesc(flags))

    def checkpoints(self, name: str) -> list[str]:
        return sorted(c.getName() for c in self._domain(name).listAllCheckpoints())

    def make_checkpoint(self, name: str, xml: str) -> None:
        """Make a checkpoint of somebody else's."""
        self._domain(name).checkpointCreateXML(xml)

    def delete_checkpoint(self, name: str, checkpoint: str) -> None:
        """Delete a checkpoint, and its bitmaps with it."""
        self._domain(name).checkpointLookupByName(checkpoint).delete()

    def job(self, name: str) -> int:
        """The type of the job that libvirt has under way; 0 is none."""
        return int(self._domain(name).jobInfo()[0])

    def job_now(self, name: str) -> int:
        """The same of a VM whose QEMU may not answer."""
        return int(self._connection.lookupByName(name).jobInfo()[0])

    def begin_backup(self, name: str, backup: str, checkpoint: str | None) -> None:
        """Start a backup job of somebody else's."""
        self._domain(name).backupBegin(backup, checkpoint, 0)

    def abort_job(self, name: str) -> None:
        self._connection.lookupByName(name).abortJob()

    def snapshot(self, name: str, xml: str, flags: int) -> None:
        self._domain(name).snapshotCreateXML(xml, flags)

    def commit(self, name: str, target: str) -> None:
        """Merge the top layer of a disk downwards; the job waits in the end to be told to pivot."""
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
        self._domain(name).blockCommit(target, None, None, 0, flags)

    def pivot(self, name: str, target: str) -> None:
        """Let a merge come to its end, and have the VM use the lower layer again."""
        domain = self._domain(name)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_BLOCK_COPY_ACTIVE:  # not ready yet
                    raise
                time.sleep(0.02)
            else:
                return

    def begin_commit(self, name: str, target: str, speed: int) -> None:
        """Begin to merge the top layer downwards, so many bytes a second."""
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
        flags |= libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES
        self._domain(name).blockCommit(target, None, None, speed, flags)

    def begin_pull(self, name: str, target: str, speed: int) -> None:
        """Begin to copy all lower layers into the top one; 0 is as fast as it goes."""
        flags = libvirt.VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES
        self._domain(name).blockPull(target, speed, flags)

    def begin_copy(self, name: str, target: str, path: str, format: str, speed: int) -> None:
        """Begin to copy a disk into a new file; ``pivot`` has the VM use that."""
        disk = etree.Element("disk", type="file")
        etree.SubElement(disk, "source", file=path)
        etree.SubElement(disk, "driver", type=format)
        text = etree.tostring(disk, encoding="unicode")
        speeds = {"bandwidth": speed} if speed else {}
        flags = libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
        self._domain(name).blockCopy(target, text, speeds, flags)

    def block_job(self, name: str, target: str) -> int:
        """The type of the block job of a disk; 0 is none."""
        return int((self._domain(name).blockJobInfo(target) or {}).get("type", 0))

    def cancel_block_job(self, name: str, target: str) -> None:
        self._domain(name).blockJobAbort(target)

    def hurry(self, name: str, target: str) -> None:
        """Let a block job go as fast as it can."""
        self._domain(name).blockJobSetSpeed(target, 0)

    def internal_snapshot(self, name: str, snapshot: str) -> None:
        """Keep memory, if it runs, and disks inside of the images."""
        element = etree.Element("domainsnapshot")
        etree.SubElement(element, "name").text = snapshot
        self._domain(name).snapshotCreateXML(etree.tostring(element, encoding="unicode"), 0)

    def revert(self, name: str, snapshot: str) -> None:
        """Go back to an internal snapshot."""
        domain = self._domain(name)
        domain.revertToSnapshot(domain.snapshotLookupByName(snapshot))

    def delete_snapshot(self, name: str, snapshot: str) -> None:
        self._domain(name).snapshotLookupByName(snapshot).delete()

    def resize(self, name: str, target: str, size: int) -> None:
        self._domain(name).blockResize(target, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

    def define_secret(self, passphrase: str) -> str:
        """Keep a passphrase for an encrypted disk; returns its UUID."""
        secret = self._connection.secretDefineXML("<secret ephemeral='yes' private='yes'/>")
        secret.setValue(passphrase.encode())
        return str(secret.UUIDString())

    def agent(self, name: str, command: str, seconds: int) -> str:
        domain = self._domain(name)
        return str(libvirt_qemu.qemuAgentCommand(domain, command, seconds, 0))

    def agent_answers(self, name: str) -> bool:
        try:
            self.agent(name, '{"execute": "guest-ping"}', 2)
        except libvirt.libvirtError:
            return False
        return True

    def _domain(self, name: str) -> libvirt.virDomain:
        domain = self._connection.lookupByName(name)
        _settle(domain)
        return domain


def _settle(domain: libvirt.virDomain) -> None:
    """Wait until libvirt knows whether QEMU lives.

    It takes running VMs over in the background when it is opened, and notices a killed one
    a moment later.
    """
    deadline = time.monotonic() + 30
    while domain.isActive() and time.monotonic() < deadline:
        try:
            libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-status"}', 0)
        except libvirt.libvirtError:
            time.sleep(0.02)
        else:
            return


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _answer(action: Callable[[], object]) -> None:
    try:
        reply: dict[str, object] = {"result": action()}
    except libvirt.libvirtError as error:
        reply = {"error": [error.get_error_code(), str(error)]}
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


def main() -> None:
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_run_events, daemon=True).start()
    try:
        operations = Operations(libvirt.open(sys.argv[1]))
    except libvirt.libvirtError as error:
        message = [error.get_error_code(), str(error)]
        sys.stdout.write(json.dumps({"error": message}) + "\n")
        return
    for line in sys.stdin:
        request = json.loads(line)
        method = getattr(operations, request["operation"])
        arguments = request["arguments"]
        _answer(lambda method=method, arguments=arguments: method(*arguments))  # type: ignore[misc]


if __name__ == "__main__":
    main()
