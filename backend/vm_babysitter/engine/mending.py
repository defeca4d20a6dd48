"""Mends what can be mended in the backup folder itself, without any loss."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from vm_babysitter.domain.chain import Chain, Flaw, StoredPoint
from vm_babysitter.domain.damage import DamageNote
from vm_babysitter.domain.errors import Damaged, StoreFailed
from vm_babysitter.domain.findings import Unlinked
from vm_babysitter.domain.point import PointDisk
from vm_babysitter.engine.meter import Meter
from vm_babysitter.engine.tools import Tools
from vm_babysitter.ports import ImageHeaders, Store


@dataclass(frozen=True, slots=True)
class Link:
    """An image whose header is not what was written, and what the manifest says of it."""

    found: Unlinked
    stored: StoredPoint
    disk: PointDisk


class Mender:
    """Mends one store; its lock must be held."""

    def __init__(self, tools: Tools, store: Store) -> None:
        self._store = store
        self._headers = tools.headers
        self._clock = tools.clock
        self._observer = tools.observer
        self._pace = tools.pace

    def mend(self, vm_uuid: str) -> None:
        """Put back what is not what it was, as far as that is proven to be right.

        A removal that was interrupted is finished, if that works now: what is marked counts as
        gone all the same.

        Raises:
            StoreFailed, UnsupportedFormat, Cancelled: doing it again goes on.
        """
        try:
            self._store.finish_removals(vm_uuid)
        except StoreFailed as error:  # files that somebody has open, on some file systems
            self._observer.note(f"Removing restore points is left to the next run: {error}")
        for chain in self._store.chains(vm_uuid):
            if chain.renamed:
                self._store.put_back(vm_uuid, chain)
                for each in chain.renamed:
                    what = f"{each.folder!r} in {chain.directory} is called {each.home!r} again."
                    self._observer.note(what)
        for chain in self._store.chains(vm_uuid):
            for link in unlinked(self._store, self._headers, vm_uuid, chain):
                self._relink(vm_uuid, chain, link)

    def _relink(self, vm_uuid: str, chain: Chain, link: Link) -> None:
        """Put a header back; where that is not all that is wrong, note that it is damaged."""
        found, point = link.found, link.stored.point
        name = f"{found.chain}/{found.seq:06d}"
        self._observer.step(f"check {found.file} of {name}")
        meter = Meter(self._observer)
        meter.expect(found.size)

        def passed(amount: int) -> None:
            meter.add(amount)
            self._pace.take(amount)

        path = self._store.image_path(vm_uuid, chain, point, link.disk)
        noted = tuple(f for f in link.stored.flaws if f.found is not None)
        others = tuple(f for f in noted if f.file != found.file or f.content)
        now = self._clock.now()
        if self._headers.mend(path, link.disk, passed):
            if others != noted:
                note = DamageNote(point.seq, point.nonce, now, others)
                self._store.note_damage(vm_uuid, chain, point, note)
            self._observer.note(f"The header of {found.file} of restore point {name} is put back.")
            return
        flaw = Flaw(found.file, found.reason, now)
        note = DamageNote(point.seq, point.nonce, now, (*others, flaw))
        self._store.note_damage(vm_uuid, chain, point, note)
        self._observer.note(f"Restore point {name} is damaged: {found.file}: {found.reason}.")


def unlinked(store: Store, headers: ImageHeaders, vm_uuid: str, chain: Chain) -> Iterator[Link]:
    """Find images whose headers are not what was written, and have not been tried in vain."""
    for stored in chain.points:
        looked = {flaw.file for flaw in stored.flaws if flaw.found is None}
        for disk in () if "" in looked else stored.point.disks:
            if disk.file in looked:
                continue
            path = store.image_path(vm_uuid, chain, stored.point, disk)
            try:
                reason = headers.problem(path, disk)
            except (Damaged, StoreFailed):
                continue  # a look, or a verify, tells
            tried = any(f.file == disk.file and f.reason == reason for f in stored.flaws)
            if reason and not tried:
                seq, size = stored.point.seq, disk.file_size
                found = Unlinked(chain.directory, seq, disk.file, reason, size)
                yield Link(found, stored, disk)


def as_relinked(chain: Chain, links: Collection[Unlinked]) -> Chain:
    """Return a chain as it is going to be once these headers are put back."""
    files = {(link.seq, link.file) for link in links if link.chain == chain.directory}
    if not files:
        return chain
    points = tuple(
        replace(
            stored,
            flaws=tuple(
                flaw
                for flaw in stored.flaws
                if flaw.content or (stored.point.seq, flaw.file) not in files
            ),
        )
        for stored in chain.points
    )
    return replace(chain, points=points)
