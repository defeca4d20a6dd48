"""The composition root: the only place that knows which adapter serves which port.

What needs libvirt's Python module is in ``bootstrap_libvirt``.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from vm_babysitter import __version__
from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.adapters.conversion_files import LocalConversionFiles
from vm_babysitter.adapters.fingerprint import fingerprint
from vm_babysitter.adapters.freeze_guard import WatchdogGuard
from vm_babysitter.adapters.image_lock import is_written
from vm_babysitter.adapters.priority import lowered
from vm_babysitter.adapters.qemu.compression_probe import choose_compression
from vm_babysitter.adapters.qemu.exports import NbdExports
from vm_babysitter.adapters.qemu.image_headers import FileImageHeaders
from vm_babysitter.adapters.qemu.offline_bitmaps import QemuOfflineBitmaps
from vm_babysitter.adapters.qemu.offline_disks import ImageDisks
from vm_babysitter.adapters.qemu.open_image import QemuImageTool
from vm_babysitter.adapters.qemu.own_images import FileImages
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.restore_place import EmptyDirectory
from vm_babysitter.adapters.side_files import LocalSideFiles
from vm_babysitter.adapters.store.draft import NewImage
from vm_babysitter.adapters.store.local import Hold, LocalStore, open_store
from vm_babysitter.adapters.store.probe import LocalProbe
from vm_babysitter.adapters.store.store_lock import hold_alone
from vm_babysitter.adapters.this_host import this_host
from vm_babysitter.adapters.workspace import Workspace
from vm_babysitter.domain.errors import BabysitterError, HypervisorMissing, StoreNotGiven
from vm_babysitter.engine.app import FULL_SPEED, Effort, Place
from vm_babysitter.engine.backup import Backup
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.check_store import CheckStore, disk_places
from vm_babysitter.engine.conversion import ConvertTools
from vm_babysitter.engine.convert import Convert
from vm_babysitter.engine.convert_back import ConvertBack
from vm_babysitter.engine.diagnosing import Diagnoser
from vm_babysitter.engine.pace import Pace
from vm_babysitter.engine.quiesce import thaw_leftovers
from vm_babysitter.engine.release import Release
from vm_babysitter.engine.repair import Repair
from vm_babysitter.engine.restore import Restore
from vm_babysitter.engine.tools import ReadTools, Sight, Tools
from vm_babysitter.engine.verify import Verify
from vm_babysitter.ports import Clock, Definitions, DiskPlace, Hypervisor, Observer, Priority

RUNTIME = Path("/run/vm-babysitter")
"""Sockets of backup jobs and marks of frozen guests: what a reboot may forget."""


class Standalone:
    """The engine without a daemon, put together for one command."""

    def __init__(
        self,
        place: Place,
        observer: Observer,
        cancel: Cancel,
        hold: Hold = hold_alone,
        clock: Clock | None = None,
    ) -> None:
        """``hold`` locks the backup folder for what writes to it; None is the system's clock."""
        self._hold = hold
        self._place = place
        self._runtime = place.runtime or RUNTIME
        self._observer = observer
        self._cancel = cancel
        self._clock: Clock = clock or SystemClock()
        self._host = place.host or this_host()
        self._images = QemuImageTool()

    @contextmanager
    def hypervisor(self) -> Iterator[Hypervisor]:
        """Connect to libvirt. Raises HypervisorMissing, HypervisorUnreachable, HypervisorError."""
        with self._libvirt() as (hypervisor, _):
            yield hypervisor

    def store(self, *, create: bool = False, new_image: NewImage = Qcow2Writer) -> LocalStore:
        """Open the backup folder. Raises StoreNotGiven and what ``open_store`` raises."""
        if self._place.store is None:
            raise StoreNotGiven
        return open_store(
            self._place.store,
            self._clock,
            new_image,
            digest_file,
            create=create,
            allow_ram=self._place.allow_ram_store,
            host=self._host,
            hold=self._hold,
        )

    @contextmanager
    def diagnoser(self, *, with_store: bool = True) -> Iterator[Diagnoser]:
        """Diagnose VMs and plan their backups; nothing is created."""
        store = self.store() if with_store and not self._is_empty() else None
        with self.hypervisor() as hypervisor:
            offline = ImageDisks(self._images, is_written)
            headers = FileImageHeaders()
            sight = Sight(
                hypervisor=hypervisor,
                offline=offline,
                side_files=LocalSideFiles(),
                fingerprint=fingerprint,
                headers=headers,
                places=Workspace(self._runtime, self._runtime if store is None else store.path),
                host=self._host,
            )
            yield Diagnoser(sight, store)

    @contextmanager
    def backup(self, effort: Effort = FULL_SPEED, *, compress: bool = False) -> Iterator[Backup]:
        """Back up VMs; an empty folder becomes a backup folder."""
        with self.hypervisor() as hypervisor:
            store = self.store(create=True, new_image=self._new_image(compress=compress))
            yield Backup(self._tools(hypervisor, store, effort, compress=compress), store)

    @contextmanager
    def repair(self) -> Iterator[Repair]:
        """Repair the backups of VMs, those included that libvirt has no more."""
        with self.hypervisor() as hypervisor:
            self.store()  # a folder without backups does not become a backup folder by this
            store = self.store(create=True)
            yield Repair(self._tools(hypervisor, store, FULL_SPEED, compress=False), store)

    @contextmanager
    def release(self, *, any_folder: bool = False) -> Iterator[Release]:
        """Give VMs back; see the protocol. Where there are no backups yet, none is needed."""
        with self.hypervisor() as hypervisor:
            store = None
            try:
                if self._place.store is not None and not self._is_empty():
                    self.store()  # a folder without backups does not become one with them by this
                    store = self.store(create=True)
            except BabysitterError:
                if not any_folder:
                    raise
            yield Release(self._tools(hypervisor, store, FULL_SPEED, compress=False), store)

    def _tools(
        self, hypervisor: Hypervisor, store: LocalStore | None, effort: Effort, *, compress: bool
    ) -> Tools:
        return Tools(
            hypervisor=hypervisor,
            exports=NbdExports(),
            offline=ImageDisks(self._images, is_written),
            bitmaps=QemuOfflineBitmaps(),
            places=Workspace(self._runtime, self._runtime if store is None else store.path),
            side_files=LocalSideFiles(),
            headers=FileImageHeaders(),
            guard=WatchdogGuard(self._runtime, self._place.uri),
            clock=self._clock,
            fingerprint=fingerprint,
            observer=self._observer,
            cancel=self._cancel,
            pace=Pace(effort.limit, self._cancel),
            priority=_priority(effort),
            versions={"vm-babysitter": __version__},
            compress=compress,
            host=self._host,
        )

    def thaw(self) -> None:
        """Thaw guests that a process which is gone left frozen. Raises BabysitterError."""
        guard = WatchdogGuard(self._runtime, self._place.uri)
        with self.hypervisor() as hypervisor:
            thaw_leftovers(hypervisor, guard, self._observer)

    def check_store(self) -> CheckStore:
        """Check places for backups; libvirt is asked for the VMs' disks if it answers."""
        probe = LocalProbe(self._host, self._clock, allow_ram=self._place.allow_ram_store)
        return CheckStore(probe, self._disk_places)

    def _disk_places(self) -> Sequence[DiskPlace]:
        try:
            with self.hypervisor() as hypervisor:
                return disk_places(hypervisor)
        except BabysitterError:
            return ()

    def verify(self, effort: Effort = FULL_SPEED) -> Verify:
        """Verify points; libvirt is not needed. Raises ProgramMissing for want of QEMU's tools."""
        store = self.store()
        self._images.require_programs()
        return Verify(store, self._read_tools(effort), self._clock)

    def restore(self, to: Path, effort: Effort = FULL_SPEED) -> Restore:
        """Restore points; neither libvirt nor QEMU is needed."""
        return Restore(self.store(), self._read_tools(effort), FileImages(), EmptyDirectory(to))

    @contextmanager
    def convert(self, effort: Effort = FULL_SPEED) -> Iterator[tuple[Convert, ConvertBack]]:
        """Convert raw disks, and undo it; no backup folder is needed."""
        with self._libvirt() as (hypervisor, definitions):
            tools = ConvertTools(
                hypervisor=hypervisor,
                definitions=definitions,
                files=LocalConversionFiles(),
                images=self._images,
                own_images=FileImages(),
                fingerprint=fingerprint,
                clock=self._clock,
                observer=self._observer,
                cancel=self._cancel,
                pace=Pace(effort.limit, self._cancel),
                priority=_priority(effort),
            )
            yield Convert(tools), ConvertBack(tools)

    def _libvirt(self) -> AbstractContextManager[tuple[Hypervisor, Definitions]]:
        try:
            # Only now: whoever reads backups need not have libvirt.
            from vm_babysitter.bootstrap_libvirt import connected  # noqa: PLC0415
        except ImportError as error:
            raise HypervisorMissing(str(error)) from error
        return connected(self._place.uri, self._images.info, self._place.tpm_roots)

    def _read_tools(self, effort: Effort) -> ReadTools:
        pace = Pace(effort.limit, self._cancel)
        return ReadTools(
            self._images, fingerprint, self._observer, self._cancel, pace, _priority(effort)
        )

    def _new_image(self, *, compress: bool) -> NewImage:
        if not compress:
            return Qcow2Writer
        compression = choose_compression(self._images, self._observer)
        return partial(Qcow2Writer, compression=compression)

    def _is_empty(self) -> bool:
        """Whether the first backup would make a backup folder of it, which is fine for a plan."""
        path = self._place.store
        return path is not None and path.is_dir() and not any(path.iterdir())


def _priority(effort: Effort) -> Priority:
    return lowered if effort.low_priority else nullcontext
