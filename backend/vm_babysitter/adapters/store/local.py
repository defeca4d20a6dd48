"""The backup folder on a local (or mounted) file system: ``ports.Store``."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from blake3 import blake3

from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.adapters.room import room
from vm_babysitter.adapters.store import damage, documents, layout, place
from vm_babysitter.adapters.store.documents import (
    ChainDocument,
    StoreDocument,
    as_failures,
    failing,
)
from vm_babysitter.adapters.store.draft import LocalDraft, NewImage
from vm_babysitter.adapters.store.files import StoredFile
from vm_babysitter.adapters.store.index_file import IndexReader
from vm_babysitter.adapters.store.lease import StoreLease
from vm_babysitter.adapters.store.merged_index import MergedIndex
from vm_babysitter.adapters.store.oddities import in_store, of_vm
from vm_babysitter.adapters.store.owners import find_chain, find_vm, mend_chain, note_vm
from vm_babysitter.adapters.store.places import VmPlace, chain_places, vm_place, vm_places
from vm_babysitter.adapters.store.points import put_back
from vm_babysitter.adapters.store.reading import read_chain
from vm_babysitter.adapters.store.removing import (
    finish_removal,
    forget_unwritten,
    remove_points,
)
from vm_babysitter.adapters.store.seen import read_seen, write_seen
from vm_babysitter.adapters.store.store_lock import hold_alone, in_turn
from vm_babysitter.adapters.store.sweeping import remove_attempt, remove_empty_chain
from vm_babysitter.adapters.this_host import this_host
from vm_babysitter.domain.chain import Attempt, Chain, ChainState
from vm_babysitter.domain.damage import DamageNote
from vm_babysitter.domain.errors import Damaged, PointDamaged, StoreFailed
from vm_babysitter.domain.oddity import Oddity
from vm_babysitter.domain.offline import Current
from vm_babysitter.domain.point import Point, PointDisk
from vm_babysitter.domain.presence import Seen
from vm_babysitter.domain.space import Room
from vm_babysitter.domain.vm import Vm
from vm_babysitter.lib.atomicfile import fsync_directory, is_there
from vm_babysitter.ports import BlockIndex, Clock, FileCheck, Passed, StoredVm, ThisHost

DigestImage = Callable[[Path, Passed], str]
"""Computes the digest of a disk image."""
Hold = Callable[[Path], AbstractContextManager[None]]
"""Holds the lock of a folder. Raises Busy, StoreFailed."""
_READ_SIZE = 1 << 20
_LOST_MARK = (
    "The backups are untouched. Move this one file away: reading them needs none, and the next "
    "backup writes a new one."
)


class LocalStore:
    """Implements ``ports.Store``."""

    def __init__(
        self,
        path: Path,
        store_id: str,
        new_image: NewImage,
        digest_image: DigestImage,
        lease: StoreLease | None = None,
        hold: Hold = hold_alone,
    ) -> None:
        """Use ``open_store``, which checks the place first.

        ``lease``: that of the folder, as the host that we run on sees it if not given.
        """
        self._hold = hold
        self._path = path
        self.id = store_id
        self._new_image = new_image
        self._digest_image = digest_image
        self._lease = lease or StoreLease(path, this_host(), SystemClock().now)
        self._begun: set[str] = set()
        """Nonces of the attempts begun here, which are ours whoever has the lease by now."""
        self._found: dict[str, Path] = {}  # by UUID: looking through all is slow

    @property
    def path(self) -> Path:
        """See the port."""
        return self._path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """See the port."""
        with self._hold(self._path):
            self._lease.claim()
            yield

    def room(self) -> Room:
        """See the port."""
        return failing(self._path, lambda: room(self._path))

    def vms(self) -> tuple[StoredVm, ...]:
        """See the port."""
        return tuple(map(_stored, vm_places(self._path)))

    def vm(self, uuid: str) -> StoredVm | None:
        """See the port."""
        place = vm_place(self._path, uuid)
        return None if place is None else _stored(place)

    def chains(self, vm_uuid: str) -> tuple[Chain, ...]:
        """See the port."""
        directory = self._find_vm(vm_uuid)
        if directory is None:
            return ()
        places = chain_places(directory, vm_uuid).chains
        return tuple(read_chain(place.path, place.document) for place in places)

    def oddities(self, vm_uuid: str | None = None) -> tuple[Oddity, ...]:
        """See the port."""
        if vm_uuid is None:
            return failing(self._path, lambda: tuple(in_store(self._path)))
        place = vm_place(self._path, vm_uuid)
        if place is None:
            return ()
        return failing(place.path, lambda: tuple(of_vm(self._path, place)))

    def put_back(self, vm_uuid: str, chain: Chain) -> None:
        """See the port."""
        self._lease.hold()
        put_back(self._chain_path(vm_uuid, chain.directory), chain.renamed)

    def new_chain(self, vm: Vm, chain_id: str, started: datetime) -> Chain:
        """See the port."""
        self._lease.hold()
        directory = self._vm_directory(vm)
        # Later than any other, or it would look older than the one it replaces.
        begun = [place.document.created for place in chain_places(directory, vm.uuid).chains]
        started = max([started, *(other + timedelta(seconds=1) for other in begun)])
        while True:
            path = directory / layout.chain_directory(started)
            try:
                path.mkdir(mode=0o700)
                break
            except FileExistsError:  # a chain begun in the same second
                started += timedelta(seconds=1)
            except OSError as error:
                raise StoreFailed(str(path), error.strerror or str(error)) from error
        document = ChainDocument(chain_id, vm.uuid, ChainState.LIVE, "", started)
        documents.write(path / layout.CHAIN_FILE, "chain", document)
        failing(directory, lambda: fsync_directory(directory))
        return Chain(chain_id, path.name, ChainState.LIVE, "", started, ())

    def archive(self, vm_uuid: str, chain: Chain, why: str) -> None:
        """See the port."""
        directory = self._chain_path(vm_uuid, chain.directory)
        old = find_chain(directory)
        if old is not None and old.state != ChainState.ARCHIVED:
            self._lease.hold()
            new = ChainDocument(old.id, old.vm_uuid, ChainState.ARCHIVED, why, old.created)
            documents.write(directory / layout.CHAIN_FILE, "chain", new)

    def note_current(self, vm_uuid: str, chain: Chain, current: Current) -> None:
        """See the port."""
        self._lease.hold()
        directory = self._chain_path(vm_uuid, chain.directory)
        documents.write(directory / layout.CURRENT_FILE, "current", current)

    def seen(self, vm_uuid: str) -> Seen | None:
        """See the port."""
        directory = self._find_vm(vm_uuid)
        return None if directory is None else read_seen(directory)

    def note_seen(self, vm_uuid: str, seen: Seen) -> None:
        """See the port."""
        self._lease.hold()
        write_seen(self._chain_path(vm_uuid, ""), seen)

    def begin(self, chain: Chain, attempt: Attempt) -> LocalDraft:
        """See the port."""
        self._lease.hold()
        self._begun.add(attempt.nonce)
        parent = self._chain_path(attempt.vm_uuid, chain.directory)
        path = parent / attempt.directory
        if layout.parse_point_directory(path.name) is None:  # nobody would find it again
            reason = "the numbers of this series are used up, by a folder with the highest name"
            raise StoreFailed(str(path), reason)
        # Looked at before the mark is there: what it stands beside is removed with it.
        if failing(path, partial(is_there, path)):
            raise StoreFailed(str(path), "somebody has put something there in this moment")
        mend_chain(parent)
        mark = parent / layout.attempt_file(attempt.directory)
        documents.write(mark, "attempt", attempt)
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            if isinstance(error, FileExistsError):  # somebody was quicker
                failing(mark, partial(mark.unlink, missing_ok=True))
            raise StoreFailed(str(path), error.strerror or str(error)) from error
        failing(parent, lambda: fsync_directory(parent))
        return LocalDraft(path, self._new_image, self._lease.hold)

    def sweep(self, attempt: Attempt, *, keep_mark: bool = False) -> None:
        """See the port."""
        if attempt.nonce not in self._begun:
            self._lease.hold()
        for chain in self.chains(attempt.vm_uuid):
            if attempt in chain.attempts:
                path = self._chain_path(attempt.vm_uuid, chain.directory)
                remove_attempt(path, attempt, keep_mark=keep_mark)

    def remove_points(self, vm_uuid: str, chain: Chain, seqs: Sequence[int]) -> None:
        """See the port."""
        self._lease.hold()
        path = self._chain_path(vm_uuid, chain.directory)
        document = find_chain(path)
        if document is not None:
            remove_points(path, read_chain(path, document), seqs)

    def finish_removals(self, vm_uuid: str) -> None:
        """See the port."""
        self._lease.hold()
        for chain in self.chains(vm_uuid):
            path = self._chain_path(vm_uuid, chain.directory)
            forget_unwritten(path)
            for removal in chain.removals:
                finish_removal(path, removal)

    def remove_empty_chains(self, vm_uuid: str) -> None:
        """See the port."""
        self._lease.hold()
        directory = self._find_vm(vm_uuid)
        if directory is not None:
            for entry in failing(directory, lambda: sorted(directory.iterdir())):
                if layout.CHAIN_PATTERN.fullmatch(entry.name):
                    remove_empty_chain(entry)

    def image_path(self, vm_uuid: str, chain: Chain, point: Point, disk: PointDisk) -> Path:
        """See the port."""
        return self.file_path(vm_uuid, chain, point, disk.file)

    def file_path(self, vm_uuid: str, chain: Chain, point: Point, name: str) -> Path:
        """See the port."""
        return self._chain_path(vm_uuid, chain.directory) / chain.folder_of(point) / name

    @contextmanager
    def open_index(
        self, vm_uuid: str, chain: Chain, layers: Sequence[tuple[Point, PointDisk]]
    ) -> Iterator[BlockIndex]:
        """See the port."""
        with ExitStack() as stack:
            readers = []
            for point, disk in layers:
                path = self.file_path(vm_uuid, chain, point, disk.index)
                try:
                    reader = stack.enter_context(IndexReader(path, disk.index_digest))
                except (Damaged, StoreFailed) as error:
                    if isinstance(error, StoreFailed) and not damage.is_evidence(error):
                        raise  # out of reach, which may be otherwise in a moment
                    name = f"{chain.directory}/{point.seq:06d}"
                    raise PointDamaged(
                        point.vm_name, name, point.seq, f"{disk.index}: {error.reason}"
                    ) from error
                readers.append(reader)
            yield MergedIndex(readers)

    def check_file(
        self, path: Path, digest: str, *, image: bool, passed: Passed = lambda _: None
    ) -> FileCheck:
        """See the port."""
        try:
            found = self._digest_image(path, passed) if image else digest_plain(path)
        except (Damaged, StoreFailed) as error:
            return FileCheck(error.reason, evidence=damage.is_evidence(error))
        wrong = "" if found == digest else "its content is not what was written"
        return FileCheck(wrong, evidence=bool(wrong))

    def note_damage(self, vm_uuid: str, chain: Chain, point: Point, note: DamageNote) -> None:
        """See the port."""
        damage.write_note(self._chain_path(vm_uuid, chain.directory), point, note)

    def _find_vm(self, uuid: str) -> Path | None:
        known = self._found.get(uuid)
        if known is None or not failing(known, partial(is_there, known / layout.VM_FILE)):
            place = vm_place(self._path, uuid)
            known = None if place is None else place.path
            if known is not None:
                self._found[uuid] = known
        return known

    def _vm_directory(self, vm: Vm) -> Path:
        """Return the VM's directory, made if need be, its newest name noted."""
        path = self._find_vm(vm.uuid)
        if path is None:
            path = self._path / layout.vm_directory(vm.name, vm.uuid)
            if path.is_dir() and (owner := find_vm(path)) and owner.uuid != vm.uuid:
                path = path.with_name(f"{path.name}-{vm.uuid}")  # a namesake, to eight digits
            failing(path, partial(path.mkdir, mode=0o700, exist_ok=True))
            failing(self._path, lambda: fsync_directory(self._path))
        note_vm(path, vm.uuid, vm.name)
        return path

    def _chain_path(self, vm_uuid: str, directory: str) -> Path:
        vm = self._find_vm(vm_uuid)
        if vm is None:
            raise StoreFailed(str(self._path), f"the VM {vm_uuid} is no longer in it")
        return vm / directory


def _stored(place: VmPlace) -> StoredVm:
    return StoredVm(place.document.uuid, place.document.names, place.path.name)


@as_failures
def open_store(  # noqa: PLR0913
    path: Path,
    clock: Clock,
    new_image: NewImage,
    digest_image: DigestImage,
    *,
    create: bool,
    allow_ram: bool = False,
    host: ThisHost | None = None,
    hold: Hold = hold_alone,
) -> LocalStore:
    """Open the backup folder at ``path``; ``create`` makes an empty folder one.

    Without ``create`` it is only read, which may be from a read-only file system, and whichever
    host has the lease. ``host`` is the one that we run on, if not given. ``hold`` locks the folder.

    Raises:
        StoreRefused, StoreFailed, Damaged, UnsupportedFormat: nothing was changed.
    """
    place.check_place(path, writable=create, allow_ram=allow_ram)
    lease = StoreLease(path, host or this_host(), clock.now)
    mark = path / layout.STORE_FILE
    if not mark.exists():
        if not create:
            place.check_holds_backups(path)
            return LocalStore(path, "", new_image, digest_image, lease, hold)
        with in_turn(path):  # the first jobs of a new folder may begin at the same time
            if not mark.exists():
                place.check_new_place(path)
                documents.write(mark, "store", StoreDocument(clock.new_id(), clock.now()))
    try:
        document = documents.read(mark, "store", StoreDocument)
    except Damaged as error:
        raise Damaged(error.path, error.reason, _LOST_MARK) from error
    return LocalStore(path, document.id, new_image, digest_image, lease, hold)


def digest_plain(path: Path) -> str:
    """Return the BLAKE3 digest of a file's content in hex. Raises Damaged, StoreFailed."""
    digest = blake3()
    with StoredFile(path) as file:
        for offset in range(0, file.size, _READ_SIZE):
            digest.update(file.read(offset, min(_READ_SIZE, file.size - offset)))
    return digest.hexdigest()
