"""The application as the command line meets it, around a VM in memory."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from click.testing import CliRunner, Result

from tests.support.engine_world import EngineWorld
from tests.support.points import MIB
from vm_babysitter.cli.main import cli
from vm_babysitter.cli.session import Parts
from vm_babysitter.domain.errors import BabysitterError
from vm_babysitter.domain.lease import Lease
from vm_babysitter.domain.store_check import Place as FoundPlace
from vm_babysitter.engine.app import FULL_SPEED, Effort, Place
from vm_babysitter.engine.backup import Backup
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.check_store import CheckStore, disk_places
from vm_babysitter.engine.conversion import Converted
from vm_babysitter.engine.convert import Convert
from vm_babysitter.engine.convert_back import ConvertBack
from vm_babysitter.engine.diagnosing import Diagnoser
from vm_babysitter.engine.release import Release
from vm_babysitter.engine.repair import Repair
from vm_babysitter.engine.restore import Restore, Restored
from vm_babysitter.engine.verify import Verified, Verify
from vm_babysitter.ports import DiskPlace, Hypervisor, Observer, Store

NAME = 'it\'s a "{VM}" 猫'


@dataclass
class Answers:
    """Stands for Verify and Restore: says what it was told to say."""

    verified: tuple[Verified, ...] = ()
    restored: Restored | None = None
    asked: list[tuple[object, ...]] = field(default_factory=list)

    def all(self, vm: str, *, structure_only: bool) -> tuple[Verified, ...]:
        self.asked.append((vm, structure_only))
        return self.verified

    def one(self, vm: str, point: str, *, structure_only: bool) -> Verified:
        self.asked.append((vm, point, structure_only))
        return self.verified[0]

    def run(self, vm: str, point: str, disks: Sequence[str], format: str | None) -> Restored | None:
        self.asked.append((vm, point, disks, format))
        return self.restored


@dataclass
class Converting:
    """Stands for Convert and ConvertBack."""

    asked: list[tuple[object, ...]] = field(default_factory=list)

    def run(self, vm: str, disk: str, *, lose_changes: bool | None = None) -> Converted:
        self.asked.append((vm, disk, lose_changes))
        files = ("/v/a b.qcow2", "/v/a b.img")
        undone = lose_changes is not None
        image, kept = reversed(files) if undone else files
        return Converted(vm, disk, image, kept, "/v/a b.qcow2.vmb-convert.json", undone, 3 * MIB)


@dataclass
class FakeProbe:
    """Implements ``ports.StoreProbe``: finds what it was told to find."""

    place: FoundPlace = field(default_factory=lambda: FoundPlace("/a place"))
    had: Lease | None = None
    asked: list[tuple[object, ...]] = field(default_factory=list)

    def look(self, path: Path, disks: Sequence[DiskPlace] = ()) -> FoundPlace:
        self.asked.append(("look", path, [disk.name for disk in disks]))
        return self.place

    def take_over(self, path: Path) -> Lease | None:
        self.asked.append(("take over", path))
        return self.had


@dataclass
class FakeApp:
    """Implements ``cli.composition.App``."""

    world: EngineWorld
    answers: Answers = field(default_factory=Answers)
    error: Exception | None = None
    no_store: BabysitterError | None = None
    places: list[Place] = field(default_factory=list)
    to: list[Path] = field(default_factory=list)
    efforts: list[Effort] = field(default_factory=list)
    compress: list[bool] = field(default_factory=list)
    converting: Converting = field(default_factory=Converting)
    probe: FakeProbe = field(default_factory=FakeProbe)

    def compose(self, place: Place, _observer: Observer, _cancel: Cancel) -> "FakeApp":
        self.places.append(place)
        if self.error is not None:
            raise self.error
        return self

    @contextmanager
    def hypervisor(self) -> Iterator[Hypervisor]:
        yield self.world.hypervisor

    def store(self) -> Store:
        if self.no_store is not None:
            raise self.no_store
        return self.world.store

    @contextmanager
    def diagnoser(self, *, with_store: bool = True) -> Iterator[Diagnoser]:
        yield Diagnoser(self.world.tools().sight, self.world.store if with_store else None)

    @contextmanager
    def repair(self) -> Iterator[Repair]:
        yield Repair(self.world.tools(), self.world.store)

    @contextmanager
    def release(self, *, any_folder: bool = False) -> Iterator[Release]:
        if self.no_store is not None and not any_folder:
            raise self.no_store
        yield Release(self.world.tools(), self.world.store if self.no_store is None else None)

    @contextmanager
    def backup(self, effort: Effort = FULL_SPEED, *, compress: bool = False) -> Iterator[Backup]:
        self.efforts.append(effort)
        self.compress.append(compress)
        self.world.clock.advance(1)
        yield Backup(self.world.tools(), self.world.store)

    def check_store(self) -> CheckStore:
        return CheckStore(self.probe, lambda: disk_places(self.world.hypervisor))

    def verify(self, effort: Effort = FULL_SPEED) -> Verify:
        self.efforts.append(effort)
        return cast(Verify, self.answers)

    def restore(self, to: Path, effort: Effort = FULL_SPEED) -> Restore:
        self.efforts.append(effort)
        self.to.append(to)
        return cast(Restore, self.answers)

    @contextmanager
    def convert(self, effort: Effort = FULL_SPEED) -> Iterator[tuple[Convert, ConvertBack]]:
        self.efforts.append(effort)
        yield cast(Convert, self.converting), cast(ConvertBack, self.converting)

    def call(self, *arguments: str, standalone: bool = True) -> Result:
        """Run the command line."""
        options = ["--standalone"] if standalone else []
        return CliRunner().invoke(cli, [*options, *arguments], obj=Parts(self.compose))

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run the command line; return what it printed for programs."""
        result = self.call(*arguments, "--json")
        assert result.exit_code == code
        return json.loads(result.stdout)
