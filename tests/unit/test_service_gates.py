"""What has to be so before a job begins."""

from pathlib import Path

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.fakes.store_place import GIB, MARKED, NOTHING, FakeStorePlace
from tests.support.jobs import request
from tests.support.settings import STORE, configured
from vm_babysitter.domain.host_state import HostState
from vm_babysitter.domain.job import JobKind, JobRequest, Origin
from vm_babysitter.engine.gates import Gates
from vm_babysitter.engine.vm_watch import Watched
from vm_babysitter.service.conditions import gates
from vm_babysitter.service.store_guard import StoreGuard

PARITY = HostState("Started", parity="a parity check")
MOVER = HostState("Started", mover=True)
STOPPED = HostState("Stopped")
USER = {kind: request(kind=kind) for kind in JobKind}
PLANNED = {kind: request(kind=kind, origin=Origin.SCHEDULE) for kind in JobKind}


class Stage:
    """All gates open, unless a test shuts them."""

    def __init__(self, path: Path, **sections: object) -> None:
        self.path = path
        self.configuration = configured(path, **{"store": {"path": STORE}, **sections})
        self.place = FakeStorePlace()
        self.host = HostState("Started")
        self.libvirt = ""
        guard = StoreGuard(self.configuration, self.place.find, self.place.room, FakeClock())
        watched = lambda: Watched((), None, self.libvirt)  # noqa: E731
        self._gates = Gates(gates(self.configuration, lambda: self.host, watched, guard))

    def ask(self, wanted: JobRequest) -> str:
        return self._gates.ask(wanted)

    def held(self) -> set[JobKind]:
        """Return the kinds of a user's jobs that have to wait."""
        return {kind for kind, wanted in USER.items() if self.ask(wanted)}


@pytest.fixture
def stage(ram_path: Path) -> Stage:
    return Stage(ram_path / "settings.json")


def test_all_may_begin(stage: Stage) -> None:
    assert stage.held() == set()
    assert not any(map(stage.ask, PLANNED.values()))


@pytest.mark.parametrize("host", [PARITY, MOVER])
def test_only_what_nobody_waits_for_waits_for_the_host(stage: Stage, host: HostState) -> None:
    stage.host = host
    assert stage.held() == set()
    assert all(map(stage.ask, PLANNED.values()))


def test_a_user_may_not_care_for_what_the_host_does(ram_path: Path) -> None:
    path = ram_path / "settings.json"
    stage = Stage(path, waits={"parity": "ignore", "mover": "wait"})
    stage.host = PARITY
    assert not any(map(stage.ask, PLANNED.values()))
    stage = Stage(path, waits={"parity": "wait", "mover": "ignore"})
    stage.host = MOVER
    assert not any(map(stage.ask, PLANNED.values()))


def test_nothing_begins_while_the_array_is_stopped(stage: Stage) -> None:
    stage.host = STOPPED
    assert stage.held() == set(JobKind)


def test_without_libvirt_backups_are_read_all_the_same(stage: Stage) -> None:
    stage.libvirt = "libvirt does not answer."
    assert stage.held() == set(JobKind) - {JobKind.VERIFY, JobKind.RESTORE}


def test_without_the_backup_folder_disks_are_converted_all_the_same(stage: Stage) -> None:
    stage.place.found = NOTHING
    assert stage.held() == set(JobKind) - {JobKind.CONVERT}


def test_a_vm_is_given_back_without_a_backup_folder_if_that_is_wanted(stage: Stage) -> None:
    stage.place.found = NOTHING
    assert stage.ask(USER[JobKind.RELEASE])
    assert not stage.ask(request(kind=JobKind.RELEASE, options={"any_folder": True}))


def test_a_vm_is_given_back_where_none_was_ever_backed_up(ram_path: Path) -> None:
    stage = Stage(ram_path / "settings.json", store={})
    assert not stage.ask(USER[JobKind.RELEASE])
    assert stage.ask(USER[JobKind.BACKUP])


def test_a_full_backup_folder_holds_up_backups_alone_and_only_as_long(stage: Stage) -> None:
    stage.place.free = 9 * GIB
    assert stage.held() == {JobKind.BACKUP}
    assert "have to be free" in stage.ask(PLANNED[JobKind.BACKUP])
    stage.place.free = 11 * GIB
    assert stage.held() == set()


def test_with_wrong_settings_nothing_is_done_by_itself(stage: Stage) -> None:
    stage.path.write_text("{")
    stage.configuration.refresh()
    assert stage.held() == set()
    assert all(map(stage.ask, PLANNED.values()))
    assert stage.place.found == MARKED
