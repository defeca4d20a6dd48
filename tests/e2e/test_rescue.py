"""The server is gone, the backup folder is there: what it takes to have the data back."""

import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qemu_img import assert_same
from tests.support.rescue import Rescuer, for_reading
from tests.support.world import World, unchanged


@pytest.fixture(scope="module")
def house(libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two chains of a VM that is gone, compressed points among them."""
    with closing(World(libvirtd, tmp_path_factory.mktemp("rescue") / "w")) as world:
        for options in ([], ["--compress"], ["--full", "--compress"], []):
            world.backup(*options)
            world.change()
        world.vm.kill()
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
    house: World, rescuer: Rescuer, tmp_path: Path
) -> None:
    with for_reading(house.store, tmp_path / "read: only") as store:
        names = points(rescuer, store)
        assert names == list(house.references)
        assert "2026" in rescuer.call(store, "points", "--", house.vm.name).stdout
        restores(rescuer, store, house, names, tmp_path / "to")


def test_points_are_proven_with_qemu_but_without_libvirt(
    house: World, rescuer: Rescuer, tmp_path: Path
) -> None:
    with for_reading(house.store, tmp_path / "read only") as store:
        said = rescuer.call(store, "verify", "--", house.vm.name, qemu=True).stdout
    assert said.count("good: data correct") == len(house.references)


def test_verify_says_at_once_that_it_needs_qemu_and_what_does_not(
    house: World, rescuer: Rescuer
) -> None:
    said = rescuer.call(house.store, "verify", "--", house.vm.name, expect=1)
    assert said.stdout == ""
    (first, second) = said.stderr.splitlines()
    assert first == "Error: The program 'qemu-img' is not installed."
    assert "`restore` works without" in second


@pytest.mark.parametrize("command", ["vms", "plan", "backup", "convert"])
def test_what_needs_libvirt_says_so_and_changes_nothing(
    house: World, rescuer: Rescuer, command: str
) -> None:
    more = {"vms": [], "convert": ["--", house.vm.name, "vda"]}.get(command, ["--", house.vm.name])
    with unchanged(house.store):
        said = rescuer.call(house.store, command, *more, qemu=True, expect=1).stderr
    assert said.startswith("Error: libvirt's module for Python cannot be used: No module named")
    assert "python3-libvirt" in said
    assert "`restore`" in said


# -- a folder that is not as we left it -------------------------------------------------------


def test_points_are_found_though_all_documents_beside_them_are_gone(
    house: World, rescuer: Rescuer, tmp_path: Path
) -> None:
    copy = shutil.copytree(house.store, tmp_path / "copy")
    lost = [*copy.glob("store.*"), *copy.glob("*/vm.json"), *copy.glob("*/*/chain.json")]
    assert len(lost) == 5
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
    house: World, rescuer: Rescuer, tmp_path: Path, way: Callable[[Path, Path], None]
) -> None:
    copy = tmp_path / "copy"
    way(house.store, copy)
    assert points(rescuer, copy) == list(house.references)
    verified = rescuer.call(copy, "verify", "--structure", "--", house.vm.name, qemu=True).stdout
    assert verified.count("good: files complete") == len(house.references)
    restores(rescuer, copy, house, list(house.references)[1::2], tmp_path / "to")
