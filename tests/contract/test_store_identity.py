"""Which backup folder lies at a path."""

from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld
from vm_babysitter.adapters.store.identity import find_store
from vm_babysitter.adapters.unraid.places import state_folder
from vm_babysitter.domain.errors import StoreFailed
from vm_babysitter.domain.store_standing import FoundStore


def test_a_backup_folder_and_what_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    assert find_store(folder) == FoundStore(there=False)
    folder.mkdir()
    empty = find_store(folder)
    assert (empty.there, empty.id) == (True, "")
    assert " at /" in empty.filesystem
    world = EngineWorld(folder)
    assert find_store(folder) == FoundStore(
        there=True, id=world.open().id, filesystem=empty.filesystem
    )
    (folder / "store.json").write_text("{")
    assert find_store(folder) == empty
    (tmp_path / "file").write_text("")
    assert find_store(tmp_path / "file") == FoundStore(there=False)
    assert not find_store(tmp_path / "file" / "below").there


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(StoreFailed):
        find_store(tmp_path / "a")


def test_where_the_state_goes(tmp_path: Path) -> None:
    assert state_folder(tmp_path) is None
    (tmp_path / "mnt/user/system").mkdir(parents=True)
    assert state_folder(tmp_path) == tmp_path / "mnt/user/system/vm-babysitter"
    pools = tmp_path / "boot/config/pools"
    pools.mkdir(parents=True)
    for name in ("zulu", "alpha", "none"):
        (pools / f"{name}.cfg").write_text("")
    for name in ("zulu", "alpha"):
        (tmp_path / "mnt" / name / "system").mkdir(parents=True)
    assert state_folder(tmp_path) == tmp_path / "mnt/alpha/system/vm-babysitter"
