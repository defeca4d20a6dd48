"""The lock of a backup folder: alone, and shared by the jobs of one process."""

import threading
from pathlib import Path

import pytest

from tests.support.fakes.clock import FakeClock
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer, digest_file
from vm_babysitter.adapters.store.local import LocalStore, open_store
from vm_babysitter.adapters.store.store_lock import SharedLocks, hold_alone
from vm_babysitter.domain.errors import Busy, StoreFailed
from vm_babysitter.ports import ThisHost


def test_one_at_a_time(tmp_path: Path) -> None:
    with hold_alone(tmp_path), pytest.raises(Busy), hold_alone(tmp_path):
        pass
    with hold_alone(tmp_path):
        pass


def test_jobs_of_one_process_share_it_and_others_wait_for_the_last(tmp_path: Path) -> None:
    locks = SharedLocks()
    with locks.hold(tmp_path):
        with locks.hold(tmp_path), pytest.raises(Busy), hold_alone(tmp_path):
            pass
        with pytest.raises(Busy), SharedLocks().hold(tmp_path):
            pass
    with hold_alone(tmp_path), pytest.raises(Busy), locks.hold(tmp_path):
        pass
    with locks.hold(tmp_path):
        pass


def test_a_job_that_fails_lets_go(tmp_path: Path) -> None:
    locks = SharedLocks()
    with pytest.raises(ValueError, match="x"), locks.hold(tmp_path):
        raise ValueError("x")
    with hold_alone(tmp_path):
        pass


def test_each_folder_has_its_own(tmp_path: Path) -> None:
    locks = SharedLocks()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with locks.hold(tmp_path / "a"), hold_alone(tmp_path / "b"):
        pass


def test_a_folder_that_is_away(tmp_path: Path) -> None:
    locks = SharedLocks()
    with pytest.raises(StoreFailed), locks.hold(tmp_path / "none"):
        pass
    with locks.hold(tmp_path):
        pass


def opened(folder: Path, locks: SharedLocks, clock: FakeClock) -> LocalStore:
    return open_store(
        folder,
        clock,
        Qcow2Writer,
        digest_file,
        create=True,
        allow_ram=True,
        host=ThisHost("a" * 32, "tower", "boot 1"),
        hold=locks.hold,
    )


@pytest.mark.parametrize("lease", ["none", "damaged"])
def test_the_first_jobs_of_a_folder_may_begin_at_the_same_time(tmp_path: Path, lease: str) -> None:
    for turn in range(20):
        folder, locks, clock = tmp_path / str(turn), SharedLocks(), FakeClock()
        folder.mkdir()
        if lease == "damaged":
            opened(folder, locks, clock)
            (folder / "lease.json").write_text("{")
        begin = threading.Barrier(4, timeout=20)
        claim = threading.Barrier(4, timeout=20)
        ids: list[str] = []

        def job(
            folder: Path = folder,
            locks: SharedLocks = locks,
            clock: FakeClock = clock,
            begin: threading.Barrier = begin,
            claim: threading.Barrier = claim,
            ids: list[str] = ids,
        ) -> None:
            begin.wait()
            store = opened(folder, locks, clock)
            claim.wait()
            with store.lock():
                ids.append(store.id)

        jobs = [threading.Thread(target=job) for _ in range(4)]
        for each in jobs:
            each.start()
        for each in jobs:
            each.join()
        assert len(ids) == 4, "a job has failed"
        assert len(set(ids)) == 1
        assert {path.name for path in folder.iterdir()} == {
            "store.json",
            "store.lock",
            "lease.json",
        }
