"""What other programs have on a VM: seen, named, left alone; and ours goes on beside it."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from lxml import etree

from tests.support.incumbent import Incumbent
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import named, run
from tests.support.stage import newest
from tests.support.vm import MIB, DiskSpec
from tests.support.world import World
from vm_babysitter.adapters.libvirt.connection import Connection
from vm_babysitter.adapters.libvirt.hypervisor import LibvirtHypervisor
from vm_babysitter.adapters.qemu.img import info
from vm_babysitter.domain.point import Point

NAME = "foreign"
SIZES = {"vda": 8 * MIB, "vdb": 6 * MIB}
CHECKPOINT, BARE, BROKEN = "virtnbdbackup.0", "it's somebody's", "a broken one"
Bitmaps = dict[str, dict[str, Any]]


@pytest.fixture
def world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "disks"  # no comma in it, for virtnbdbackup's sake
    folder.mkdir()
    disks = [DiskSpec(t, size=size, path=folder / f"{t}.qcow2") for t, size in SIZES.items()]
    with closing(World(libvirtd, tmp_path / "w", NAME, disks=disks)) as world:
        world.disks = folder
        yield world


def others(world: World) -> Bitmaps:
    """The bitmaps on vda's image that are not ours, without what changes by writing."""
    with world.vm.monitor() as qmp:
        nodes = cast(list[dict[str, Any]], qmp.execute("query-named-block-nodes"))
    (node,) = [n for n in nodes if n["drv"] == "qcow2" and "vda.qcow2" in n["file"]]
    found = {b["name"]: b for b in node.get("dirty-bitmaps", [])}
    return {n: {**b, "count": 0} for n, b in found.items() if not n.startswith("vmb-")}


def add_bitmap(world: World, name: str) -> None:
    """Somebody adds a bitmap to vda of which libvirt knows nothing."""
    with world.vm.monitor() as qmp:
        blocks = cast(list[dict[str, Any]], qmp.execute("query-block"))
        (node,) = [b["inserted"]["node-name"] for b in blocks if "virtio-disk0" in b["qdev"]]
        qmp.execute("block-dirty-bitmap-add", node=node, name=name, persistent=True)


def backup_job(world: World, *, new: str | None = None, since: str | None = None) -> None:
    """Start somebody's backup of vda, with a new checkpoint or since an older one."""
    root = etree.Element("domainbackup", mode="pull")
    if since is not None:
        etree.SubElement(root, "incremental").text = since
    socket = str(world.host.root / "somebody")
    etree.SubElement(root, "server", transport="unix", socket=socket)
    disks = etree.SubElement(root, "disks")
    disk = etree.SubElement(disks, "disk", name="vda", backup="yes", type="file")
    etree.SubElement(disk, "scratch", file=str(world.folder / "somebody's scratch"))
    etree.SubElement(disks, "disk", name="vdb", backup="no")
    checkpoint = None
    if new is not None:
        made = etree.Element("domaincheckpoint")
        etree.SubElement(made, "name").text = new
        disks = etree.SubElement(made, "disks")
        etree.SubElement(disks, "disk", name="vda", checkpoint="bitmap")
        etree.SubElement(disks, "disk", name="vdb", checkpoint="no")
        checkpoint = etree.tostring(made, encoding="unicode")
    world.host.call("begin_backup", NAME, etree.tostring(root, encoding="unicode"), checkpoint)


def foreign(world: World) -> list[str]:
    text = world.call("plan", "--json", "--", NAME).stdout
    return cast(list[str], json.loads(text)["foreign"])


def methods(made: Point) -> list[str]:
    return [str(disk.method) for disk in made.disks]


def test_what_is_foreign_is_named_and_left_alone_and_the_backup_goes_on_beside_it(
    world: World,
) -> None:
    world.backup_here()
    add_bitmap(world, BROKEN)
    world.vm.stop()
    world.boot()
    world.vm.kill()  # breaks what was stored, ours too
    world.boot()
    add_bitmap(world, BARE)
    backup_job(world, new=CHECKPOINT)
    world.host.call("abort_job", NAME)
    there = others(world)
    assert sorted(there) == sorted([CHECKPOINT, BARE, BROKEN])
    assert there[BROKEN]["inconsistent"]

    said = foreign(world)
    assert [CHECKPOINT in said[2], BARE in said[1], BROKEN in said[0]] == [True] * 3
    assert said[0].endswith("it is damaged: QEMU resizes no disk that has such")
    assert said[2].startswith(f"checkpoint '{CHECKPOINT}' on disk vda: ")
    assert all(thing in world.call("plan", "--", NAME).stdout for thing in said)

    for expected in (["scan", "scan"], ["bitmap", "bitmap"], ["bitmap", "bitmap"]):
        world.change()
        made = world.backup_here()
        assert methods(made) == expected
        assert made.warnings == ()
        assert others(world) == there
        assert world.host.call("checkpoints", NAME) == [CHECKPOINT]
        world.assert_holds(newest(world))
    assert foreign(world) == said

    backup_job(world, since=CHECKPOINT)  # libvirt and QEMU still find it sound
    refused = world.call("backup", "--", NAME, expect=11)
    assert f"a backup job is running (serving {world.host.root / 'somebody'})" in refused.stderr
    assert "a backup job is running" in foreign(world)[-1]
    assert world.host.call("job", NAME) != 0
    world.host.call("abort_job", NAME)
    assert methods(world.backup_here()) == ["bitmap", "bitmap"]
    world.assert_restores(newest(world))
    world.assert_vm_unharmed()


def test_a_job_of_somebody_is_seen_while_it_begins_and_while_it_ends(world: World) -> None:
    with Connection(world.host.uri) as connection:
        hypervisor = LibvirtHypervisor(connection, info)

        def seen_until(there: bool, act: Callable[[], object]) -> None:
            with ThreadPoolExecutor() as pool:
                done = pool.submit(act)
                while not done.done():  # at every moment
                    hypervisor.active_job(world.vm.uuid)
            done.result()
            assert (hypervisor.active_job(world.vm.uuid) is not None) is there

        for _ in range(3):
            seen_until(True, lambda: backup_job(world))
            seen_until(False, lambda: world.host.call("abort_job", NAME))


def test_two_backup_folders_of_ours_take_turns(world: World) -> None:
    stores = [world.store, world.folder / "other store"]
    stores[1].mkdir()
    references: list[dict[str, dict[str, Path]]] = [{}, {}]
    for round_number in range(3):
        for number, store in enumerate(stores):
            world.store, world.references = store, references[number]
            world.change()
            made = world.backup_here()
            assert methods(made) == (["bitmap"] * 2 if round_number else ["full"] * 2)
            if round_number:
                assert foreign(world)[0].startswith("change tracking 'vmb-")
    assert len(world.bitmaps()["vda"]) == 4
    for number, store in enumerate(stores):
        world.store, world.references = store, references[number]
        for point in references[number]:
            world.assert_holds(point)
    world.assert_vm_unharmed()


def test_virtnbdbackup_and_ours_take_turns(world: World) -> None:
    peer = Incumbent(world.host, NAME, world.host.root / "turns")
    for level in ("full", "inc", "inc"):
        world.change()
        assert peer.backup(level) == 0
        copies = world.copies()
        assert methods(world.backup_here()) == ["full" if level == "full" else "bitmap"] * 2
    target = world.folder / "its restore"
    assert peer.restore(target) == 0
    for disk, raw in copies.items():
        run("qemu-img", "compare", named(target / f"{disk}.qcow2"), named(raw, "raw"))
    assert len(cast(list[str], world.host.call("checkpoints", NAME))) == 3
    for point in world.references:
        world.assert_holds(point)
    world.assert_restores(newest(world))
    world.assert_vm_unharmed()
