"""The server is gone, the backup folder is there: what it takes to have the data back."""

import json
import os
import shlex
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import by_hand
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import assert_same, named, run
from tests.support.rescue import Rescuer, for_reading
from tests.support.vm import TPM
from tests.support.world import World, unchanged

NAME = "- \"ü:ñ\" 'x' & 日本 $(touch x)"
"""Without a comma: swtpm cannot make a TPM for a VM with one in its name."""


class House(World):
    """The backups of a VM that is gone, and copies of what it had."""

    def __init__(self, host: PrivateLibvirtd, folder: Path) -> None:
        nvram = folder.parent / "its 'NVRAM'.fd"
        super().__init__(host, folder, NAME, devices=[TPM], nvram=nvram)
        self.nvram = nvram
        self.tpm = host.root / "lib" / "swtpm" / self.vm.uuid / "tpm2"
        for options in ([], ["--compress"], []):
            self.backup(*options)
            self.change()
        self._pass_over("000001-inc/vda.qcow2")
        self.backup("--full", "--compress")
        self.change()
        self.backup()
        self.beside = {path.name: path.read_bytes() for path in (nvram, *self.tpm.glob("tpm2*"))}
        self.vm.kill()
        self.vm.remove()
        for path in self.vm.paths.values():
            path.unlink()

    def _pass_over(self, image: str) -> None:
        """Make a point while this image is away, so that it does not build on it."""
        (path,) = self.store.glob(f"*/*/{image}")
        away = path.rename(path.with_name("away"))
        assert self.backup(expect=3)["parent"] == 0  # it warns of the points it passes over
        away.rename(path)


@pytest.fixture(scope="module")
def house(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two chains, with compressed points and one that does not build on the one before it."""
    with closing(House(libvirtd, tmp_path_factory.mktemp("rescue") / "w")) as world:
        yield world


@pytest.fixture
def rescuer(tmp_path: Path) -> Rescuer:
    folder = tmp_path / "rescuer"
    folder.mkdir()
    return Rescuer(folder)


def points(rescuer: Rescuer, store: Path) -> list[str]:
    """The names of the points that are listed as whole."""
    listed = json.loads(rescuer.call(store, "points", "--json").stdout)
    assert not [point["problem"] for point in listed if point["problem"]]
    return [point["point"] for point in listed]


def restores(rescuer: Rescuer, store: Path, world: World, names: Iterable[str], to: Path) -> None:
    """Each of these points restores to what the disks held."""
    for name in names:
        rescuer.call(store, "restore", "--to", to, "--format", "qcow2", "--", world.vm.name, name)
        for target, raw in world.references[name].items():
            assert_same(to / f"{target}.qcow2", raw)
        assert (to / "domain.xml").is_file()
        shutil.rmtree(to)


# -- our program, and nothing else ------------------------------------------------------------


def test_all_points_come_back_without_libvirt_and_qemu_from_a_folder_that_is_read_only(
    house: House, rescuer: Rescuer, tmp_path: Path
) -> None:
    with for_reading(house.store, tmp_path / "read: only") as store:
        names = points(rescuer, store)
        assert names == list(house.references)
        assert "2026" in rescuer.call(store, "points", "--", house.vm.name).stdout
        restores(rescuer, store, house, names, tmp_path / "to")


def test_points_are_proven_with_qemu_but_without_libvirt(
    house: House, rescuer: Rescuer, tmp_path: Path
) -> None:
    with for_reading(house.store, tmp_path / "read only") as store:
        said = rescuer.call(store, "verify", "--", house.vm.name, qemu=True).stdout
    assert said.count("good: data correct") == len(house.references)


def test_verify_says_at_once_that_it_needs_qemu_and_what_does_not(
    house: House, rescuer: Rescuer
) -> None:
    said = rescuer.call(house.store, "verify", "--", house.vm.name, expect=1)
    assert said.stdout == ""
    (first, second) = said.stderr.splitlines()
    assert first == "Error: The program 'qemu-img' is not installed."
    assert "`restore` works without" in second


@pytest.mark.parametrize("command", ["vms", "plan", "backup", "convert"])
def test_what_needs_libvirt_says_so_and_changes_nothing(
    house: House, rescuer: Rescuer, command: str
) -> None:
    more = {"vms": [], "convert": ["--", house.vm.name, "vda"]}.get(command, ["--", house.vm.name])
    with unchanged(house.store):
        said = rescuer.call(house.store, command, *more, qemu=True, expect=1).stderr
    assert said.startswith("Error: libvirt's module for Python cannot be used: No module named")
    assert "python3-libvirt" in said
    assert "`restore`" in said


# -- a folder that is not as we left it -------------------------------------------------------


def test_points_are_found_though_all_documents_beside_them_are_gone(
    house: House, rescuer: Rescuer, tmp_path: Path
) -> None:
    copy = shutil.copytree(house.store, tmp_path / "copy")
    lost = [*copy.glob("*.*"), *copy.glob("*/vm.json"), *copy.glob("*/*/chain.json")]
    assert len(lost) == 6
    for document in lost:
        document.unlink()
    with for_reading(copy, tmp_path / "read only") as store:
        names = points(rescuer, store)
        assert names == list(house.references)
        restores(rescuer, store, house, names, tmp_path / "to")


def by_cp(store: Path, to: Path) -> None:
    """Times and permissions are those of the copying."""
    subprocess.run(["cp", "-r", "--no-preserve=all", str(store), str(to)], check=True)


def by_tar(store: Path, to: Path) -> None:
    to.mkdir()
    archive = to.with_name("archive.tar.gz")
    options = ["--mode=a=rX", "--mtime=@0", "--owner=nobody", "--group=nogroup"]
    subprocess.run(["tar", "-czf", str(archive), *options, "-C", str(store), "."], check=True)
    subprocess.run(["tar", "-xf", str(archive), "-C", str(to), "--no-same-owner"], check=True)


def by_zip(store: Path, to: Path) -> None:
    """Neither permissions nor empty folders are kept."""
    with zipfile.ZipFile(to.with_name("archive.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for path in store.rglob("*"):
            if path.is_file():
                archive.writestr(str(path.relative_to(store)), path.read_bytes())
    with zipfile.ZipFile(to.with_name("archive.zip")) as archive:
        archive.extractall(to)


@pytest.mark.parametrize("way", [by_cp, by_tar, by_zip], ids=lambda way: way.__name__)
def test_a_folder_that_was_copied_by_any_means_is_as_good(
    house: House, rescuer: Rescuer, tmp_path: Path, way: Callable[[Path, Path], None]
) -> None:
    copy = tmp_path / "copy"
    way(house.store, copy)
    assert points(rescuer, copy) == list(house.references)
    verified = rescuer.call(copy, "verify", "--structure", "--", house.vm.name, qemu=True).stdout
    assert verified.count("good: files complete") == len(house.references)
    restores(rescuer, copy, house, list(house.references)[1::2], tmp_path / "to")


# -- FORMAT.md, and no program of ours --------------------------------------------------------


def words(store: Path, point: str = "", **more: str | Path) -> dict[str, str | Path]:
    """What a reader puts for the words in ``<>``; ``point`` as we name it."""
    (vm,) = (path.name for path in store.iterdir() if path.is_dir())
    found: dict[str, str | Path] = {"store": store, "vm": vm, **more}
    if point:
        chain, seq = point.split("/")
        (folder,) = (store / vm / chain).glob(f"{seq}-*")
        found |= {"chain": chain, "point": folder.name}
    return found


def folder_of(store: Path, point: str) -> Path:
    found = words(store, point)
    return Path(store, *(str(found[name]) for name in ("vm", "chain", "point")))


def test_all_points_are_converted_by_hand(house: House, tmp_path: Path) -> None:
    with for_reading(house.store, tmp_path / 'it\'s: "read" only, $(touch x)') as store:
        for number, (point, references) in enumerate(house.references.items()):
            to = tmp_path / f"to, {number}: 'by' \"hand\" ü"
            for disk, raw in references.items():
                by_hand.do("convert", words(store, point, disk=disk, target=to))
                assert_same(to / f"{disk}.qcow2", raw)


def test_the_newest_good_point_is_found_by_hand(house: House, tmp_path: Path) -> None:
    with for_reading(house.store, tmp_path / "read only") as store:
        newest = folder_of(store, list(house.references)[-1])
        said = by_hand.do("sort -r", words(store))
        assert said == f"{newest.parent.name}/{newest.name}: good\n"


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"garbage")


def corrupt(path: Path) -> None:
    """Break the reference counts, which only a check looks at."""
    with path.open("r+b") as file:
        file.seek(48)
        (table,) = struct.unpack(">Q", file.read(8))
        file.seek(table)
        file.write(bytes(8))


@pytest.mark.parametrize("damage", [cut_off, overwrite, corrupt, Path.unlink])
def test_damaged_points_are_passed_over_by_hand(
    house: House, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    store = shutil.copytree(house.store, tmp_path / "copy")
    first, second, third, fourth, full, last = (folder_of(store, p) for p in house.references)
    damage(full / "vdb.qcow2")
    damage(second / "vda.qcow2")
    (fourth / "point.json").unlink()
    said = by_hand.do("sort -r", words(store)).splitlines()
    states = [*((p, "DAMAGED") for p in (last, full, third, second)), (first, "good")]
    assert said == [f"{p.parent.name}/{p.name}: {state}" for p, state in states]


@pytest.mark.parametrize("damage", [cut_off, overwrite, Path.unlink])
def test_points_that_do_without_a_damaged_one_are_found_by_hand(
    house: House, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    store = shutil.copytree(house.store, tmp_path / "copy")
    first, second, _, fourth, *_ = house.references
    damaged = folder_of(store, second)
    damage(damaged / "vda.qcow2")
    place = words(store, first, disk="vda", damaged=damaged.name)
    free = [folder_of(store, point).name for point in (first, fourth)]
    said = by_hand.do("does not need it", place)
    assert said.splitlines() == [f"{name} does not need it" for name in free]
    by_hand.do("convert", words(store, fourth, disk="vda", target=tmp_path / "to"))
    assert_same(tmp_path / "to" / "vda.qcow2", house.references[fourth]["vda"])


def test_a_vm_starts_again_that_was_put_together_by_hand(house: House, tmp_path: Path) -> None:
    point = list(house.references)[-1]
    to, like = tmp_path / "to, here", tmp_path / "like"
    like.touch()
    os.chown(like, 0, 12345)
    place = words(house.store, point, target=to, nvram=house.nvram, tpm=house.tpm, like=like)
    folder = folder_of(house.store, point)
    for disk in house.references[point]:
        by_hand.do("convert", {**place, "disk": disk})
    editor = tmp_path / "editor"
    old, new = (str(path) for path in (house.disks, to))
    editor.write_text(f'#!/bin/sh\nsed -i {shlex.quote(f"s|{old}|{new}|")} "$1"\n')
    editor.chmod(0o700)
    variables = {"EDITOR": str(editor), "LIBVIRT_DEFAULT_URI": house.host.uri}
    by_hand.do("virsh define", place, folder, **variables)
    by_hand.do("nvram.fd", place, folder)
    by_hand.do("tpm-", place, folder)
    there = [house.nvram, *house.tpm.glob("tpm2*")]
    assert {path.name: path.read_bytes() for path in there} == house.beside
    assert {path.stat().st_gid for path in [*there, house.tpm]} == {12345}
    house.vm.start()
    assert house.vm.state == "paused"
    for disk, raw in house.references[point].items():
        found = house.vm.reference(disk, tmp_path / f"{disk}.raw")
        run("qemu-img", "compare", named(found, "raw"), named(raw, "raw"))
    house.vm.remove()


def test_no_command_of_format_md_is_left_untried() -> None:
    tried = ["sort -r", "convert", "does not need it", "virsh define", "nvram.fd", "tpm-"]
    assert len({by_hand.commands(about) for about in tried}) == by_hand.blocks() == len(tried)
