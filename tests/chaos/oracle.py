"""What must be true after every step, whatever happened."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from tests.chaos.house import House, Reference
from tests.chaos.machine import Machine
from tests.chaos.words import Broken
from tests.support.qemu_img import named, run
from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.point import Point
from vm_babysitter.engine.diagnosing import Diagnosed

_MOST_BITMAPS = 2
"""Of ours on a disk, after the backup of a VM that is on: of one that is off they are left."""
Signature = tuple[object, ...]
_TURN_OF_RESTORES, _TURN_OF_VERIFIES = 3, 10
"""One in so many points that are new or were touched is restored, or verified, at once."""


class Oracle:
    """Judges a house; remembers what it has compared already."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._seen: dict[object, Signature] = {}
        self._turn = 0
        self._verified: dict[tuple[str, str], str] = {}

    def forget(self) -> None:
        """Compare everything again: what a look at files tells is not enough now."""
        self._seen.clear()

    def judge(self, *, thoroughly: bool = False) -> None:
        """Check points and VMs. Raises Broken."""
        house = self.house
        if thoroughly:
            self.forget()
        self._verified = self._verify_all() if thoroughly else {}
        house.stats["checks"] += 1
        stored = house.stored()
        unknown = stored.keys() - house.references.keys() - house.gone
        if unknown:
            raise Broken("unknown point", str(unknown))
        for reference in house.present():
            found = stored.get(reference.key)
            self._judge_point(reference, None if found is None else found[:2], thoroughly)
        for machine in house.machines:
            self._judge_machine(machine)

    def _judge_point(
        self, reference: Reference, found: tuple[Point, str] | None, thoroughly: bool
    ) -> None:
        touched = self.house.touched(reference)
        if not touched:
            self._must_be_there(reference, found)
        if found is None:
            return
        signature = (touched, *self._signature(reference))
        if self._seen.get(reference.key) == signature:
            return
        self.house.stats["points checked"] += 1
        self._turn += 1
        if touched:
            self._judge_touched(reference, found[1])
        else:
            self._compare(reference, found[0])
            self._use(reference, thoroughly)
        self._seen[reference.key] = signature

    def _must_be_there(self, reference: Reference, found: tuple[Point, str] | None) -> None:
        if found is None:
            raise Broken("lost point", f"{reference.name} is no longer listed")
        if found[1]:
            raise Broken("good point called bad", f"{reference.name}: {found[1]}")

    def _use(self, reference: Reference, thoroughly: bool) -> None:
        """Verify and restore a good point, or only some of many."""
        if thoroughly or self._turn % _TURN_OF_VERIFIES == 0:
            problem = self.called_good(reference)
            if problem:
                raise Broken("good point called bad", f"{reference.name}: {problem}")
        if thoroughly or self._turn % _TURN_OF_RESTORES == 0:
            try:
                self._restore(reference)
            except BabysitterError as error:
                raise Broken("restore of a good point", f"{reference.name}: {error}") from error

    def _judge_touched(self, reference: Reference, broken: str) -> None:
        problem = broken or self.called_good(reference)
        kind = "damaged points called good" if not problem else "damaged points called bad"
        self.house.stats[kind] += 1
        try:
            self._restore(reference)
        except BabysitterError as error:
            if not problem:
                raise Broken("restore of a good point", f"{reference.name}: {error}") from error
            self.house.stats["restores refused"] += 1

    def called_good(self, reference: Reference) -> str:
        """Say what the product finds wrong with a point when it looks closely; empty if nothing."""
        self.house.stats["verified"] += 1
        known = self._verified.get((reference.key[0], reference.name))
        if known is not None:
            return known
        try:
            found = self.house.app().verify().one(reference.key[0], reference.name)
        except BabysitterError as error:
            return str(error)
        return "; ".join(found.problems)

    def _verify_all(self) -> dict[tuple[str, str], str]:
        """Verify everything at once, which is much faster; a VM that cannot be is left out."""
        found: dict[tuple[str, str], str] = {}
        for uuid in {reference.key[0] for reference in self.house.present()}:
            with suppress(BabysitterError):
                for result in self.house.app().verify().all(uuid):
                    found[uuid, result.point] = "; ".join(result.problems)
        return found

    def _restore(self, reference: Reference) -> None:
        """Restore a point, which must be right or refused. Raises BabysitterError."""
        target = self.house.root / "restored, here"
        format = ("raw", "qcow2")[self._turn % 2]
        try:
            self.house.app().restore(target).run(reference.key[0], reference.name, format=format)
            self.house.stats["restores"] += 1
            for disk, copy in reference.disks.items():
                self._same(reference, target / f"{disk}.{format}", format, copy)
        finally:
            if target.exists():
                shutil.rmtree(target)

    def _compare(self, reference: Reference, point: Point) -> None:
        """Have QEMU alone compare a point with what the disks held."""
        for disk in point.disks:
            image = self.house.store / reference.directory / disk.file
            copy = reference.disks[disk.target]
            if disk.virtual_size != copy.stat().st_size:
                raise Broken("size", f"{reference.name} {disk.target}: {disk.virtual_size}")
            self._same(reference, image, "qcow2", copy)

    def _same(self, reference: Reference, image: Path, format: str, copy: Path) -> None:
        self.house.stats["comparisons"] += 1
        try:
            run("qemu-img", "compare", named(image, format), named(copy, "raw"))
        except AssertionError as error:
            where = f"{reference.name} ({reference.made}), {image.name}"
            raise Broken("wrong data", f"{where}: {error}") from error
        if format == "raw" and image.stat().st_size != copy.stat().st_size:
            raise Broken("size", f"{reference.name} {image.name}: {image.stat().st_size}")

    def _signature(self, reference: Reference) -> Signature:
        """What a look at the files of a point and of all it builds on tells."""
        found: list[object] = []
        for point in reference.lineage:
            folder = self.house.store / point.directory
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                state = path.stat()
                found.append((path.name, state.st_ino, state.st_size, state.st_mtime_ns))
        return tuple(found)

    def diagnosed(self, machine: Machine) -> Diagnosed:
        """What the product finds of a VM: never anything wrong with what nobody touched."""
        with self.house.app().diagnoser() as diagnoser:
            found = diagnoser.diagnose(machine.uuid)
        health = {point.name: point for point in found.diagnosis.points}
        for reference in self.house.present():
            if reference.key[0] != machine.uuid or self.house.touched(reference):
                continue
            point = health.get(reference.name)
            if point is None or point.problem or set(point.disks) != set(reference.disks):
                raise Broken("diagnosis", f"{reference.name}: {point}")
        self.house.stats[f"diagnosed {found.diagnosis.health}"] += 1
        return found

    # -- VMs --------------------------------------------------------------------------------

    def _judge_machine(self, machine: Machine) -> None:
        """The VM is in the state it was left in, and its disks have seen no error."""
        state = machine.vm.state.replace("crashed", "shutoff")
        if state != machine.power:
            raise Broken("power state", f"{machine.vm.name}: {state}, not {machine.power}")
        if not machine.on:
            return
        with machine.vm.monitor() as qmp:
            for block in cast(list[dict[str, Any]], qmp.execute("query-block")):
                if block.get("io-status", "ok") != "ok":
                    raise Broken("disk error", f"{machine.vm.name}: {block}")

    def tidy(self, machine: Machine, *, backed_up: bool = True) -> None:
        """Nothing is left of any attempt after a backup of this VM, or a repair. Raises Broken."""
        house = self.house
        name = machine.vm.name
        if machine.on and house.host.call("job", name) != 0:
            raise Broken("left a job", name)
        checkpoints = house.host.call("checkpoints", name)
        if checkpoints:
            raise Broken("left checkpoints", str(checkpoints))
        self._tidy_bitmaps(machine, backed_up=backed_up)
        left = {
            path for path in machine.folder.iterdir() if not path.name.endswith(".vmb-convert.json")
        }
        if left - machine.images:
            raise Broken("left beside the disks", str(left - machine.images))
        jobs = {path.name for path in house.runtime.glob("*")} - house.jobs_of_others(machine)
        if jobs:
            raise Broken("left in the runtime folder", str(jobs))
        self._tidy_store(machine)

    def _tidy_bitmaps(self, machine: Machine, *, backed_up: bool) -> None:
        """Those of series in the store are of points: others are not provably ours."""
        series = tuple(self.house.series())
        nonces = {key[3] for key in self.house.references}
        for target, found in machine.bitmaps().items():
            bitmaps = sorted(bitmap for bitmap in found if bitmap.startswith(series))
            if [b for b in bitmaps if b.split("-")[3] not in nonces]:
                raise Broken("left a bitmap of no point", f"{machine.vm.name} {target}: {bitmaps}")
            if backed_up and machine.on and len(bitmaps) > _MOST_BITMAPS:
                raise Broken("left bitmaps", f"{machine.vm.name} {target}: {bitmaps}")

    def _tidy_store(self, machine: Machine) -> None:
        house = self.house
        ours = [r for r in house.references.values() if r.key[0] == machine.uuid]
        points = [r for r in ours if r.key not in house.gone]
        folders = {house.store / r.directory.parent for r in ours}
        known = {house.store / r.directory for r in points}
        for vm in {folder.parent for folder in folders}:
            known |= _with_torn(vm / "vm.json", vm / "seen.json")
        for folder in folders:
            known |= {folder, *_with_torn(folder / "chain.json", folder / "current.json")}
        for reference in ours:
            known |= self._files(reference)
        found = {p for folder in {f.parent for f in folders} for p in folder.rglob("*")}
        found |= {path for path in house.store.iterdir() if not path.is_dir()}
        known |= {house.store / name for name in ("store.json", "store.lock", "lease.json")}
        away = tuple(house.store / path for path in house.renamed.values())
        found = {path for path in found if not any(path.is_relative_to(p) for p in away)}
        strays = found - known - house.foreign
        if strays:
            raise Broken("left in the store", str(sorted(strays)))

    def _files(self, reference: Reference) -> set[Path]:
        folder = self.house.store / reference.directory
        note = folder.with_name(f"{folder.name}.damage.json")
        names = {"point.json", "domain.xml"}
        names |= {f"{t}{suffix}" for t in reference.disks for suffix in (".qcow2", ".index")}
        return {*_with_torn(note), *(folder / name for name in names)}


def _with_torn(*documents: Path) -> set[Path]:
    """Documents, and what a kill leaves while one is written: the next one takes its place."""
    return {*documents, *(path.with_name(f".{path.name}.tmp") for path in documents)}
