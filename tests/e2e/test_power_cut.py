"""The power fails under the store: what was said to be committed is on the disk."""

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import lazy_disk
from tests.support.world import World


@pytest.fixture
def world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    """A VM whose first full is on a disk that writes nothing before it must."""
    with (
        closing(World(libvirtd, tmp_path / "w")) as world,
        lazy_disk(tmp_path / "image", world.store),
    ):
        (world.store / "lost+found").rmdir()
        world.backup()
        world.change()
        yield world


def die(kind: str, name: str, nth: int = 1) -> Fault:
    return Fault("die", kind, name, nth)


@pytest.mark.parametrize(
    ("fault", "committed"),
    [
        (die("progress", "", 3), False),
        (die("os.rename", "*/point.json"), False),
        (die("open", "*-inc", 2), None),  # renamed; that it is on the disk was not said yet
        (die("step", "committed"), True),
        (die("step", "done"), True),
    ],
    ids=str,
)
def test_a_committed_point_survives_and_no_other_looks_like_one(
    world: World, tmp_path: Path, fault: Fault, committed: bool | None
) -> None:
    copies = world.die(fault)
    cut, original = tmp_path / "cut", world.store
    subprocess.run(["cp", "--sparse=always", tmp_path / "image", cut], check=True)
    with lazy_disk(cut, tmp_path / "store after the cut") as world.store:
        new = {name for _, names in world.chains() for name in names} - set(world.references)
        if committed is not None:
            assert len(new) == committed
        world.references.update(dict.fromkeys(new, copies))
        world.assert_lists(world.references)
        for point in world.references:
            world.assert_restores(point)
        parent = list(world.references)[-1]
        assert world.backup()["parent"] == int(parent.split("/")[1])
        world.assert_restores(list(world.references)[-1])
    world.store = original
