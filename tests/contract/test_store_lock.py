"""The lock of a backup folder: alone, and shared by the jobs of one process."""

from pathlib import Path

import pytest

from vm_babysitter.adapters.store.store_lock import SharedLocks, hold_alone
from vm_babysitter.domain.errors import Busy, StoreFailed


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
