"""How the backups of all VMs are is known, whatever fails on the way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.jobs import eventually
from vm_babysitter.domain.diagnosis import Diagnosis, diagnose
from vm_babysitter.domain.errors import HypervisorUnreachable, StoreFailed, VmNotFound
from vm_babysitter.domain.findings import Facts
from vm_babysitter.engine.diagnosing import Diagnosed, Diagnoser
from vm_babysitter.service.diagnoses import Diagnoses

SOON = 0.02
GONE = HypervisorUnreachable("libvirt", "it is not there")


class Vms:
    """Stands for a Diagnoser, and for what opens it."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.closed: Exception | None = None
        self.failing: Exception | None = None
        self.looks: list[str] = []

    @contextmanager
    def open(self) -> Iterator[Diagnoser]:
        if self.closed is not None:
            raise self.closed
        yield cast(Diagnoser, self)

    def all(self, *, planned: bool) -> Iterator[Diagnosed]:
        assert not planned
        self.looks.append("all")
        for name in self.names:
            yield found(name)

    def diagnose(self, uuid: str, *, planned: bool) -> Diagnosed:
        assert not planned
        self.looks.append(uuid)
        if self.failing is not None:
            raise self.failing
        if uuid not in self.names:
            raise VmNotFound(uuid)
        return found(uuid)


def found(name: str) -> Diagnosed:
    return Diagnosed(diagnose(Facts(name, name)), None)


Start = Callable[..., Diagnoses]


@pytest.fixture
def start() -> Iterator[Start]:
    begun: list[Diagnoses] = []

    def make(
        vms: Vms, told: Callable[[Diagnosis], None] = lambda _: None, again: float = 600.0
    ) -> Diagnoses:
        diagnoses = Diagnoses(vms.open, FakeClock(), told, again)
        begun.append(diagnoses)
        diagnoses.start()
        return diagnoses

    yield make
    for each in begun:
        each.stop(10.0)


def test_it_begins_with_all_and_goes_on_with_those_that_are_named(start: Start) -> None:
    vms, told = Vms("a", "b"), list[str]()
    diagnoses = start(vms, lambda diagnosis: told.append(diagnosis.facts.name))
    assert diagnoses.wait_idle(10)
    assert sorted(diagnoses.all()) == ["a", "b"]
    vms.names.append("c")
    diagnoses.look("c")
    assert diagnoses.wait_idle(10)
    known = diagnoses.of("c")
    assert known is not None
    assert (known.found.facts.name, told) == ("c", ["a", "b", "c"])
    assert vms.looks == ["all", "c"]


def test_a_vm_that_is_gone_with_its_backups_is_forgotten(start: Start) -> None:
    vms = Vms("a", "b")
    diagnoses = start(vms)
    assert diagnoses.wait_idle(10)
    vms.names.remove("b")
    diagnoses.look("b")
    assert diagnoses.wait_idle(10)
    assert list(diagnoses.all()) == ["a"]
    vms.names = ["c"]
    diagnoses.look()
    assert diagnoses.wait_idle(10)
    assert (list(diagnoses.all()), diagnoses.problem) == (["c"], "")


@pytest.mark.parametrize("error", [GONE, OSError("no such file"), ValueError("odd")])
def test_a_look_that_failed_is_made_again_by_itself(start: Start, error: Exception) -> None:
    vms = Vms("a")
    vms.closed = error
    diagnoses = start(vms, again=SOON)
    eventually(lambda: diagnoses.problem)
    assert diagnoses.all() == {}
    vms.closed = None
    eventually(lambda: diagnoses.of("a"))
    eventually(lambda: not diagnoses.problem)


def test_one_vm_is_looked_at_again_and_stays_known_till_then(start: Start) -> None:
    vms = Vms("a", "b")
    diagnoses = start(vms, again=SOON)
    assert diagnoses.wait_idle(10)
    vms.failing = StoreFailed("/b", "Stale file handle")
    diagnoses.look("a")
    eventually(lambda: vms.looks.count("a") > 2)
    assert sorted(diagnoses.all()) == ["a", "b"]
    assert "Stale" in diagnoses.problem
    vms.failing = None
    eventually(lambda: not diagnoses.problem)
    assert "b" not in vms.looks


def test_what_failed_is_not_forgotten_for_what_comes_then(start: Start) -> None:
    vms = Vms("a", "b")
    vms.closed = GONE
    diagnoses = start(vms)
    eventually(lambda: diagnoses.problem)
    vms.closed = None
    diagnoses.look("a")
    eventually(lambda: sorted(diagnoses.all()) == ["a", "b"])


def test_a_listener_that_fails_spares_the_other_vms(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Diagnosis) -> None:
        raise GONE

    diagnoses = start(Vms("a", "b"), fails)
    assert diagnoses.wait_idle(10)
    assert (sorted(diagnoses.all()), diagnoses.problem) == (["a", "b"], "")
    assert "was not acted on" in caplog.text


def test_it_can_be_stopped_before_it_began() -> None:
    diagnoses = Diagnoses(Vms().open, FakeClock(), lambda _: None)
    diagnoses.stop()
    diagnoses.start()
    diagnoses.stop(10.0)
