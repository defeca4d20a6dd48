"""Chains: the restore points of a VM that build on each other, and what is wrong with them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal

from vm_babysitter.domain.offline import Current
from vm_babysitter.domain.point import Point, PointDisk, point_directory

MAX_POINTS = 60
"""Points of a chain after which the next backup starts a new one."""


class ChainState(StrEnum):
    """Whether a chain grows."""

    LIVE = "live"
    ARCHIVED = "archived"


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something of a restore point that is not as it was written."""

    file: str
    """Name of the file in the point's directory; empty where the whole point cannot be used."""
    reason: str
    """In words: ``it is missing``."""
    found: datetime | None = None
    """When a verify found it; None for what a look tells."""
    content: bool = False
    """Whether the file is what was written, and only reading through it shows the flaw."""
    evidence: bool = True
    """Whether it shows that something is damaged, and not only that it is out of reach now."""

    def __str__(self) -> str:
        words = f"{self.file}: {self.reason}" if self.file else self.reason
        return f"{words} (found by verify, {self.found:%Y-%m-%d})" if self.found else words


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A committed point as found in the store."""

    point: Point
    flaws: tuple[Flaw, ...] = ()
    """All that is known to be wrong with it; none if it is whole as far as a look can tell."""

    @property
    def problem(self) -> str:
        """Why nothing can build on this point, in words; empty if there is no flaw."""
        return str(self.flaws[0]) if self.flaws else ""

    def flaw_of(self, *files: str) -> Flaw | None:
        """Return what is wrong with any of these files, or with the point as a whole."""
        return next((flaw for flaw in self.flaws if flaw.file in ("", *files)), None)


@dataclass(frozen=True, slots=True)
class UnreadablePoint:
    """A point's directory whose manifest cannot be read."""

    seq: int
    directory: str
    problem: str
    unfinished: bool = False
    """Whether it never was a point: a backup that was begun, the mark of which is damaged."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One reason why a disk of a point cannot be restored."""

    seq: int
    """Of the point where the reason lies."""
    flaw: Flaw | None
    """What is wrong there; None where that point is missing or its manifest cannot be read."""
    words: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """A point that lies in a folder which somebody gave another name."""

    seq: int
    home: str
    """The name that its directory was given."""
    folder: str
    """The name that it has now."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What is about to be removed of a point, written before anything is removed."""

    seq: int
    level: Literal["full", "inc"]
    nonce: str
    files: tuple[str, ...]
    """The files that its manifest names; others in its directory are not ours."""
    done: bool = False
    """Whether nothing of ours is left, and files of others keep the directory there."""

    @property
    def directory(self) -> str:
        """The name of the point's directory."""
        return point_directory(self.seq, self.level)


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain as found in the store, its points in order of their sequence numbers."""

    id: str
    directory: str
    """``20261122T021500Z``."""
    state: ChainState
    why: str
    """Why it is archived; empty for a live chain."""
    created: datetime
    """When it was begun: of two chains this tells which is the younger, whatever their names."""
    points: tuple[StoredPoint, ...]
    attempts: tuple["Attempt", ...] = ()
    """Unfinished points: what a crash left."""
    unreadable: tuple[UnreadablePoint, ...] = ()
    removals: tuple[Removal, ...] = ()
    """Points that are being removed: they count as gone."""
    renamed: tuple[Renamed, ...] = ()
    """Those of ``points`` whose folders have other names than they were given."""
    taken: tuple[int, ...] = ()
    """Sequence numbers of what is named like a point and is none of this chain."""
    noted: Current | None = None
    """What was noted last of a VM that was off; see ``current``."""

    def find(self, seq: int) -> StoredPoint | None:
        """Return the point of this sequence number."""
        return next((p for p in self.points if p.point.seq == seq), None)

    @property
    def next_seq(self) -> int:
        """The sequence number of the next attempt: one that nothing in its directory has."""
        used = [p.point.seq for p in self.points] + [r.seq for r in self.removals]
        used += [a.seq for a in self.attempts] + [u.seq for u in self.unreadable]
        following = max(used, default=-1) + 1
        while following in self.taken:
            following += 1
        return following

    @property
    def current(self) -> Current | None:
        """Until when the newest point is known to be what the VM has; None if nothing tells.

        Only where that point is whole, files beside its disks included, and nothing newer was
        begun.
        """
        newest = self.newest_intact
        if newest is None or self.noted is None or newest.seq + 1 != self.next_seq:
            return None
        if newest.seq in self.broken:
            return None
        same = (self.noted.seq, self.noted.nonce) == (newest.seq, newest.nonce)
        return self.noted if same else None

    @property
    def newest_intact(self) -> Point | None:
        """The point that the next increment builds on, if there is one."""
        unfit = self.unfit
        intact = [p.point for p in self.points if p.point.seq not in unfit]
        return max(intact, key=lambda p: p.seq, default=None)

    @property
    def broken(self) -> dict[int, str]:
        """Points that cannot be restored as a whole, with the reason, by sequence number."""
        reasons: dict[int, str] = {}
        for stored in self.points:
            reason = stored.problem or self._disks_problem(stored.point)
            if reason:
                reasons[stored.point.seq] = reason
        return reasons

    @property
    def unfit(self) -> dict[int, str]:
        """Points that nothing can build on, with the reason, by sequence number.

        A point in which only a file beside the disks is damaged is fit: the next one has such
        files of its own. One of whose line a manifest is missing is not, though it may restore.
        """
        lines: dict[int, str] = {}
        for stored in self.points:  # parents come before children: seq of a parent is lower
            point, whole = stored.point, stored.flaw_of()
            if whole:
                lines[point.seq] = str(whole)
            elif point.parent is not None and self.find(point.parent) is None:
                lines[point.seq] = self._absent(point.parent)
            elif point.parent in lines:
                lines[point.seq] = f"it builds on {point.parent:06d}: {lines[point.parent]}"
        disks = {s.point.seq: self._disks_problem(s.point) for s in self.points}
        return {seq: problem for seq, problem in (disks | lines).items() if problem}

    def troubles(self, seq: int, target: str) -> tuple[Trouble, ...]:
        """Return all that keeps one disk of a point from being restored, the nearest first.

        Only images and indexes of this disk count, and the manifests that tell of them.

        Raises:
            KeyError: there is no such point, or it has no such disk.
        """
        images, gap = self._walk(seq, target)
        found: list[Trouble] = []
        for stored, disk in images:
            number = stored.point.seq
            prefix = "" if number == seq else f"it builds on {number:06d}: "
            found += [
                Trouble(number, flaw, f"{prefix}{flaw}")
                for flaw in stored.flaws
                if flaw.file in ("", disk.file, disk.index)
            ]
        if gap is not None:
            found.append(Trouble(gap, None, self._absent(gap)))
        return tuple(found)

    def out_of_reach(self, seq: int) -> bool:
        """Whether all that keeps a point from being restored is that it cannot be read now."""
        stored = self.find(seq)
        if stored is None:
            return False
        found = [t.flaw for d in stored.point.disks for t in self.troubles(seq, d.target)]
        flaws = found or list(stored.flaws)  # what lies beside the disks counts if they are whole
        return bool(flaws) and not any(flaw is None or flaw.evidence for flaw in flaws)

    def disk_problem(self, seq: int, target: str) -> str:
        """Say why one disk of a point cannot be restored, empty if it can.

        Raises:
            KeyError: there is no such point, or it has no such disk.
        """
        return next((trouble.words for trouble in self.troubles(seq, target)), "")

    def layers(self, seq: int, target: str) -> tuple[tuple[Point, PointDisk], ...]:
        """Return the images that a disk of a point is made of, newest first.

        They alone are looked up: whatever else the point builds on may be missing.

        Raises:
            KeyError: there is no such point or disk, or one of the images is missing.
        """
        if any(trouble.flaw is None for trouble in self.troubles(seq, target)):
            raise KeyError((seq, target))
        return self.known_layers(seq, target)

    def known_layers(self, seq: int, target: str) -> tuple[tuple[Point, PointDisk], ...]:
        """Return the same as far as there are manifests. Raises KeyError, as ``troubles``."""
        return tuple((stored.point, disk) for stored, disk in self._walk(seq, target)[0])

    def folder_of(self, point: Point) -> str:
        """Return the name of the folder that a point lies in."""
        moved = next((r.folder for r in self.renamed if r.seq == point.seq), None)
        return point.directory if moved is None else moved

    def children(self, seqs: Collection[int]) -> tuple[int, ...]:
        """Return the points that build on any of these and are not among them."""
        folders = {s.point.directory for s in self.points if s.point.seq in seqs}
        return tuple(
            stored.point.seq
            for stored in self.points
            if stored.point.seq not in seqs
            and (
                stored.point.parent in seqs
                or any(disk.parent in folders for disk in stored.point.disks)
            )
        )

    def with_flaws(self, seq: int, *flaws: Flaw) -> "Chain":
        """Return this chain with flaws noted at one of its points."""
        points = tuple(
            replace(p, flaws=(*p.flaws, *flaws)) if p.point.seq == seq else p for p in self.points
        )
        return replace(self, points=points)

    def without_notes(self) -> "Chain":
        """Return this chain as a look tells of it, without what verifies found and noted."""
        points = (
            replace(p, flaws=tuple(f for f in p.flaws if f.found is None)) for p in self.points
        )
        return replace(self, points=tuple(points))

    def lineage(self, seq: int) -> tuple[Point, ...]:
        """Return a point and all it builds on, the newest first.

        Raises:
            KeyError: if a link is missing.
        """
        line: list[Point] = []
        wanted: int | None = seq
        while wanted is not None:
            stored = self.find(wanted)
            if stored is None or (line and wanted >= line[-1].seq):
                raise KeyError(wanted)
            line.append(stored.point)
            wanted = stored.point.parent
        return tuple(line)

    def _disks_problem(self, point: Point) -> str:
        problems = (self.disk_problem(point.seq, disk.target) for disk in point.disks)
        return next(filter(None, problems), "")

    def _absent(self, seq: int) -> str:
        if self.find(seq) is not None:
            return f"the restore point {seq:06d} it builds on has no such disk"
        unreadable = any(each.seq == seq for each in self.unreadable)
        words = "cannot be read" if unreadable else "is missing"
        return f"the restore point {seq:06d} it builds on {words}"

    def _walk(
        self, seq: int, target: str
    ) -> tuple[tuple[tuple[StoredPoint, PointDisk], ...], int | None]:
        """Follow a disk from image to image, by their own links.

        Returns them, newest first, and the number of the point that the next one should lie in
        and does not; None if nothing is missing.
        """
        folders = {stored.point.directory: stored for stored in self.points}
        stored = self.find(seq)
        disk = None if stored is None else stored.point.disk(target)
        if stored is None or disk is None:
            raise KeyError((seq, target))
        images = [(stored, disk)]
        while disk.parent is not None:
            below = folders.get(disk.parent)
            image = below and below.point.disk_in(disk.parent_file or disk.file)
            if below is None or not image or below.point.seq >= stored.point.seq:
                return tuple(images), _number(disk.parent)
            stored, disk = below, image
            images.append((stored, disk))
        return tuple(images), None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt at a point is about to create, written before it creates anything."""

    vm_uuid: str
    chain_id: str
    seq: int
    level: Literal["full", "inc"]
    nonce: str
    checkpoint: str
    socket: str
    scratch: tuple[str, ...]
    started: datetime
    ran: bool = False
    """Whether the VM ran: if QEMU pauses it meanwhile for want of space, it is to go on."""
    boot_id: str = ""
    """Tells the host's run, in which it was begun, from others; empty where that is not known."""

    @property
    def directory(self) -> str:
        """The name of the directory the point is made in."""
        return point_directory(self.seq, self.level)


def _number(directory: str) -> int:
    """Return the number in the name of a point's directory, -1 if it has none."""
    digits = directory.partition("-")[0]
    return int(digits) if digits.isdecimal() else -1


def live_chain(chains: Sequence[Chain]) -> Chain | None:
    """Return the chain that grows: the youngest live one.

    One that never got a point does not count: what it has is an attempt, to be undone. One in
    which nothing can be read counts only where there is no other: it may be a full backup that
    was interrupted, and whose mark is damaged.
    """
    live = [c for c in chains if c.state is ChainState.LIVE and (c.points or c.unreadable)]
    live = [c for c in live if c.points] or live
    return max(live, key=lambda chain: (chain.created, chain.directory), default=None)


def layers_after(
    lineage: Iterable[Point], target: str, bitmap: str
) -> tuple[tuple[Point, PointDisk], ...]:
    """Return the images of a disk that are newer than the point since which a bitmap records.

    Raises:
        KeyError: as ``disk_layers``.
    """
    layers: list[tuple[Point, PointDisk]] = []
    for point, disk in disk_layers(lineage, target):
        if point.checkpoint is not None and point.checkpoint.bitmap(disk.target) == bitmap:
            break
        layers.append((point, disk))
    return tuple(layers)


def disk_layers(lineage: Iterable[Point], target: str) -> tuple[tuple[Point, PointDisk], ...]:
    """Return the images that a disk of the first point of ``lineage`` is made of, newest first.

    Raises:
        KeyError: if the first point has no such disk or a parent lacks it.
    """
    layers: list[tuple[Point, PointDisk]] = []
    wanted: str | None = None
    file = ""
    for point in lineage:
        if layers and point.directory != wanted:
            continue
        disk = point.disk_in(file) if layers else point.disk(target)
        if disk is None:
            raise KeyError(target)
        layers.append((point, disk))
        wanted, file = disk.parent, disk.parent_file or disk.file
        if wanted is None:
            return tuple(layers)
    raise KeyError(target)
