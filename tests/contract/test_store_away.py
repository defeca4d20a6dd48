"""A backup folder whose file system fails is told as a failure, wherever that shows first."""

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_store_care import chain_folder, only
from tests.support.engine_world import EngineWorld
from tests.unit.test_verify import results
from vm_babysitter.adapters.store.sweeping import remove_attempt
from vm_babysitter.domain.damage import DamageNote
from vm_babysitter.domain.errors import StoreFailed


@pytest.fixture
def world(tmp_path: Path) -> EngineWorld:
    """A chain of three points."""
    folder = tmp_path / "store"
    folder.mkdir()
    world = EngineWorld(folder)
    for number in range(3):
        world.disk.write(0, bytes([number + 1]) * 1000)
        world.backup()
    return world


def stale(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have the handles of files below something of this name be stale."""
    for function in ("stat", "lstat"):
        monkeypatch.setattr(os, function, partial(_fail, name, getattr(os, function)))


def _fail(
    name: str, look: Callable[..., os.stat_result], path: Any, **options: Any
) -> os.stat_result:
    if isinstance(path, str | Path) and Path(path).match(name):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    return look(path, **options)


def _take_the_lease(world: EngineWorld) -> None:
    (world.path / "lease.json").unlink()
    with world.store.lock():
        pass


LOOKS: dict[str, tuple[str, Callable[[EngineWorld], object]]] = {
    "the folder": ("store", lambda world: world.open()),
    "its mark": ("store.json", lambda world: world.open()),
    "a VM's folder": ("*-????????", lambda world: world.store.vms()),
    "a VM's folder that was found before": (
        "vm.json",
        lambda world: (world.store.chains(world.vm.uuid), world.store.seen(world.vm.uuid)),
    ),
    "the mark, before the lease is taken": ("store.json", _take_the_lease),
    "a series": ("20*Z", lambda world: world.store.chains(world.vm.uuid)),
    "a point": ("000001-inc", lambda world: world.store.chains(world.vm.uuid)),
    "what is odd": ("000001-inc", lambda world: world.store.oddities(world.vm.uuid)),
}


@pytest.mark.parametrize("what", LOOKS)
def test_a_look_that_fails_is_a_failure_of_the_store(
    world: EngineWorld, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, look = LOOKS[what]
    stale(monkeypatch, name)
    with pytest.raises(StoreFailed, match=os.strerror(errno.ESTALE)):
        look(world)


def test_a_note_that_cannot_be_removed_is_a_failure_of_the_store(
    world: EngineWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = only(world)
    point = chain.points[2].point
    stale(monkeypatch, "*.damage.json")
    note = DamageNote(point.seq, point.nonce, world.clock.now(), ())
    with pytest.raises(StoreFailed):
        world.store.note_damage(world.vm.uuid, chain, point, note)


def test_a_removal_that_cannot_be_finished_now_does_not_keep_backups_from_going_on(
    world: EngineWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def busy(path: Any, **options: Any) -> None:
        """Refuse as a share does where somebody has the file open."""
        if Path(path).name == "vda.qcow2":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        unlink(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", busy)
        with pytest.raises(StoreFailed):
            world.open().remove_points(world.vm.uuid, only(world), (2,))
        made = world.backup()
        assert (made.point.seq, made.point.parent, made.left) == (3, 1, "")
        assert any("busy" in note for note in world.observer.notes)
    assert (chain_folder(world) / "000002-inc").exists()
    world.backup()
    assert not (chain_folder(world) / "000002-inc").exists()
    assert all(result.good for result in results(world).values())


def test_a_point_whose_manifest_cannot_be_looked_for_is_not_taken_for_unfinished(
    world: EngineWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.backup_killed_at("committed")  # so its mark is still there
    (attempt,) = only(world).attempts
    point = chain_folder(world) / attempt.directory
    before = sorted(point.iterdir())
    with monkeypatch.context() as patched:
        stale(patched, f"{attempt.directory}/point.json")
        with pytest.raises(StoreFailed):
            remove_attempt(chain_folder(world), attempt)
    assert sorted(point.iterdir()) == before
    assert world.backup().point.parent == 3
