"""A VM with UEFI firmware and a TPM that both write: all of it is backed up and comes back."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import by_hand
from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import EMPTY_NVRAM, TPM
from tests.support.world import Json, World

NVRAM = "nvram.fd"
STATE = "tpm2-00.permall"
NAME = "- \"ü:ñ\" 'x' & 日本 $(touch x)"
"""Without a comma: swtpm cannot make a TPM for a VM with one in its name."""
AT_REST = 2.0
"""Seconds without a change after which the firmware is done writing."""


class Machine(World):
    """A World whose VM has an NVRAM and a TPM."""

    def __init__(self, host: PrivateLibvirtd, folder: Path, name: str, *, running: bool) -> None:
        self.nvram = folder.parent / 'it\'s "my" NVRAM, ü & 日本: {x}.fd'
        super().__init__(host, folder, name, running=running, devices=[TPM], nvram=self.nvram)
        self.tpm = host.root / "lib" / "swtpm" / self.vm.uuid / "tpm2"

    def beside(self) -> dict[str, bytes]:
        """What lies beside the disks, by the names that it has in a point."""
        tpm = {f"tpm-{path.name}": path.read_bytes() for path in self.tpm.glob("tpm2*")}
        return {NVRAM: self.nvram.read_bytes(), **tpm}

    def wait_until_written(self) -> None:
        """Let the firmware run until it has written its variables, and rests."""
        deadline = time.monotonic() + 90
        empty, last, since = EMPTY_NVRAM.read_bytes(), self.beside(), time.monotonic()
        while last[NVRAM] == empty or time.monotonic() < since + AT_REST:
            assert time.monotonic() < deadline, "the firmware wrote nothing"
            time.sleep(0.2)
            if self.beside() != last:
                last, since = self.beside(), time.monotonic()

    def newest(self) -> Path:
        """The folder of the newest point."""
        return max(self.store.glob("*/*/*-*/point.json")).parent


@pytest.fixture(scope="module")
def machine(
    libvirtd: PrivateLibvirtd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A VM whose firmware has run, with a point; paused now, so that nothing changes."""
    folder = tmp_path_factory.mktemp("beside") / "w"
    with closing(Machine(libvirtd, folder, NAME, running=True)) as world:
        fresh = (world.tpm / STATE).read_bytes()
        world.wait_until_written()
        world.vm.suspend()
        world.power = "paused"
        assert world.beside()[f"tpm-{STATE}"] != fresh, "the firmware left the TPM alone"
        world.host.call("set_autostart", world.vm.name, True)
        manifest = world.backup()
        assert manifest["warnings"] == []
        yield world


def manifest_files(folder: Path) -> dict[str, Json]:
    body = json.loads((folder / "point.json").read_text())["body"]
    return {file["name"]: file for file in body["files"]}


def test_a_point_holds_what_firmware_and_tpm_had_written(machine: Machine) -> None:
    folder, beside = machine.newest(), machine.beside()
    assert set(beside) == {NVRAM, f"tpm-{STATE}"}
    assert {name: (folder / name).read_bytes() for name in beside} == beside
    files = manifest_files(folder)
    assert set(files) == {"domain.xml", *beside}
    assert files[NVRAM]["origin"] == str(machine.nvram)
    assert files[f"tpm-{STATE}"]["origin"] == str(machine.tpm / STATE)
    assert json.loads((folder / "point.json").read_text())["body"]["autostart"] is True
    machine.assert_restores(next(iter(machine.references)))
    machine.assert_tidy(bitmaps=1)


def put_back(restored: Path, machine: Machine) -> None:
    """Do what FORMAT.md says is to be done by hand, for the places of this VM."""
    by_hand.do("nvram.fd", {"nvram": machine.nvram, "like": restored}, restored)
    by_hand.do("tpm-", {"tpm": machine.tpm, "like": restored}, restored)


def test_a_vm_runs_again_from_what_is_restored(machine: Machine, tmp_path: Path) -> None:
    beside = machine.beside()
    to = tmp_path / "to, here"
    said = machine.call("restore", "--to", str(to), "--", machine.vm.name, "latest").stdout
    assert {name: (to / name).read_bytes() for name in beside} == beside
    assert f"Note: {NVRAM} belongs at {str(machine.nvram)!r}." in said
    assert f"Note: tpm-{STATE} belongs at {str(machine.tpm / STATE)!r}." in said
    assert "Note: the VM was set to start with the host." in said
    machine.vm.stop()
    machine.nvram.unlink()
    shutil.rmtree(machine.tpm.parent)
    put_back(to, machine)
    machine.vm.start()
    assert machine.beside() == beside


def test_a_damaged_nvram_is_found(machine: Machine, tmp_path: Path) -> None:
    file = machine.newest() / NVRAM
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        done = machine.call("verify", "--", machine.vm.name, expect=12)
        assert f"BAD: {NVRAM}: its content is not what was written" in done.stdout
        arguments = ("restore", "--to", str(tmp_path / "to"), "--", machine.vm.name, "latest")
        assert NVRAM in machine.call(*arguments, expect=12).stderr
        assert not (tmp_path / "to").exists()
    finally:
        file.write_bytes(whole)
    machine.call("verify", "--", machine.vm.name)


# -- a VM that is only paused, whose files tests may spoil ---------------------------------


@pytest.fixture
def still(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[Machine]:
    with closing(Machine(libvirtd, tmp_path / "w", "still", running=False)) as world:
        yield world


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_backup_killed_while_it_saves_is_no_point_and_the_next_one_goes_on(
    still: Machine, nth: int
) -> None:
    still.die(Fault("die", "return", "LocalDraft.save", nth))
    assert len(list(still.store.rglob(NVRAM))) == 1  # it was at it
    still.assert_lists([])
    still.backup()
    still.assert_lists(still.references)
    still.assert_tidy(bitmaps=1)
    beside = still.beside()
    assert {name: (still.newest() / name).read_bytes() for name in beside} == beside


def lose_nvram(machine: Machine) -> str:
    machine.nvram.rename(machine.nvram.with_suffix(".away"))
    return f"the NVRAM is not included: {str(machine.nvram)!r}: No such file or directory"


def lose_tpm(machine: Machine) -> str:
    machine.tpm.rename(machine.tpm.with_suffix(".away"))
    return f"the TPM state is not included: {str(machine.tpm)!r}: No such file or directory"


def put_link(machine: Machine) -> str:
    (machine.tpm / "tpm2-01.permall").symlink_to("/etc/hostname")
    path = str(machine.tpm / "tpm2-01.permall")
    return f"the TPM state is not complete: {path!r} is a link, which is not followed"


@pytest.mark.parametrize("spoil", [lose_nvram, lose_tpm, put_link])
def test_what_cannot_be_read_is_a_warning(still: Machine, spoil: Callable[[Machine], str]) -> None:
    warning = spoil(still)
    manifest = still.backup(expect=3)
    assert manifest["warnings"] == [warning]
    still.assert_restores(next(iter(still.references)))
    assert f"Warning: {warning}." in still.call("backup", "--", still.vm.name, expect=3).stdout


def test_a_backup_that_is_stopped_by_a_failing_store_leaves_nothing(still: Machine) -> None:
    still.call("backup", "--", still.vm.name, faults=[Fault("fail", "step", "save")], expect=1)
    still.assert_lists([])
    assert not list(still.store.rglob(NVRAM))
    assert still.host.call("job", still.vm.name) == 0
