"""What freezing and thawing come to, whatever the agent answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest

from vm_babysitter.domain.agent import AgentAnswer
from vm_babysitter.domain.errors import HypervisorUnreachable, VmNotFound
from vm_babysitter.domain.vm import PowerState, Vm
from vm_babysitter.engine.quiesce import quiesced, thaw_leftovers
from vm_babysitter.ports import Hypervisor

VM = Vm("uuid", "VM", PowerState.RUNNING, ())
DONE = AgentAnswer(1)
NOTHING = AgentAnswer(0)
REFUSED = AgentAnswer(refusal="no")
SILENT = AgentAnswer(refusal="silence", unknown=True)
LOST = HypervisorUnreachable("qemu:///", "gone")


@dataclass
class World:
    """A hypervisor that answers as told, a guard and an observer that remember."""

    freezing: AgentAnswer = DONE
    thawing: list[AgentAnswer | Exception] = field(default_factory=lambda: [DONE])
    missing: str = ""
    unfit: str = ""
    left: tuple[str, ...] = ()
    happened: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def agent_missing(self, _uuid: str) -> str:
        return self.missing

    def freeze(self, _uuid: str) -> AgentAnswer:
        self.happened.append("freeze")
        return self.freezing

    def thaw(self, uuid: str) -> AgentAnswer:
        self.happened.append("thaw")
        answer = self.thawing.pop(0) if len(self.thawing) > 1 else self.thawing[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @contextmanager
    def watch(self, vm_uuid: str) -> Iterator["World"]:
        self.happened.append("watch")
        try:
            yield self
        finally:
            self.happened.append("end")

    def thawed(self) -> None:
        self.happened.append("thawed")

    def leftovers(self) -> tuple[str, ...]:
        return self.left

    def forget(self, vm_uuid: str) -> None:
        self.happened.append(f"forget {vm_uuid}")

    def step(self, name: str) -> None:
        pass

    def progress(self, done: int, total: int) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def hypervisor(self) -> Hypervisor:
        return cast(Hypervisor, self)

    def backup(self, error: Exception | None = None) -> tuple[bool, str]:
        with quiesced(self.hypervisor, self, self, VM) as state:
            self.happened.append("begin")
            if error:
                raise error
        return state.done, state.note


def test_guest_is_frozen_around_the_beginning_under_guard() -> None:
    world = World()
    assert world.backup() == (True, "")
    assert world.happened == ["watch", "freeze", "begin", "thaw", "thawed", "end"]
    assert world.notes == []


@pytest.mark.parametrize(
    ("freezing", "thawing", "result", "tries", "settled"),
    [
        (REFUSED, [NOTHING], (False, "no"), 1, True),
        (REFUSED, [REFUSED], (False, "no"), 1, True),
        (REFUSED, [SILENT], (False, "no"), 1, True),
        (SILENT, [NOTHING], (False, "silence"), 1, True),
        (SILENT, [DONE], (False, "silence"), 1, True),
        (SILENT, [SILENT], (False, "silence"), 1, False),
        (DONE, [SILENT, DONE], (True, ""), 2, True),
        (DONE, [SILENT], (True, ""), 3, False),
        (DONE, [REFUSED], (False, "no"), 3, False),
        (DONE, [REFUSED, NOTHING], (False, "no"), 2, True),  # Windows after 10 seconds
        (DONE, [NOTHING], (False, "the file systems did not stay frozen"), 1, True),
    ],
)
def test_every_pair_of_answers_is_understood(
    freezing: AgentAnswer,
    thawing: list[AgentAnswer | Exception],
    result: tuple[bool, str],
    tries: int,
    settled: bool,
) -> None:
    world = World(freezing, list(thawing))
    done, note = world.backup()
    assert (done, note[: len(result[1])]) == result
    assert world.happened.count("thaw") == tries
    assert ("thawed" in world.happened) == settled
    assert bool(world.notes) != settled


@pytest.mark.parametrize("world", [World(missing="none"), World(unfit="none")])
def test_nothing_is_frozen_without_an_agent_or_a_guard(world: World) -> None:
    assert world.backup() == (False, "none")
    assert not {"freeze", "thaw"} & set(world.happened)


def test_guest_is_thawed_when_the_backup_cannot_begin() -> None:
    world = World()
    with pytest.raises(VmNotFound):
        world.backup(VmNotFound("x"))
    assert world.happened[-3:] == ["thaw", "thawed", "end"]


def test_guest_is_left_to_the_guard_when_libvirt_is_lost() -> None:
    world = World(thawing=[LOST])
    with pytest.raises(HypervisorUnreachable):
        world.backup()
    assert "thawed" not in world.happened


@pytest.mark.parametrize(
    ("answer", "forgotten", "note"),
    [
        (DONE, True, "was thawed"),
        (NOTHING, True, ""),
        (SILENT, False, "could not be thawed: silence"),
        (REFUSED, True, "could not be thawed: no"),
        (VmNotFound("uuid"), True, ""),
    ],
)
def test_leftover_is_remembered_until_somebody_knows(
    answer: AgentAnswer | Exception, forgotten: bool, note: str
) -> None:
    world = World(thawing=[answer], left=("uuid",))
    thaw_leftovers(world.hypervisor, world, world)
    assert ("forget uuid" in world.happened) == forgotten
    assert [note in text for text in world.notes] == ([True] if note else [])
