"""What the daemon needs is looked at before it starts, and told in plain words."""

import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.mounts import ram_disk
from vm_babysitter.adapters.self_check import self_check
from vm_babysitter.cli.main import cli
from vm_babysitter.cli.session import Parts
from vm_babysitter.engine.app import ServeOptions
from vm_babysitter.views import PartState, PartView

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("run/libvirt", "boot/config/plugins", "mnt/cache/system", "mnt/cache/state"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def checked(
    root: Path, state: str = "mnt/cache/system/vm-babysitter", allow_ram: bool = True
) -> dict[str, PartView]:
    options = ServeOptions(
        settings=root / "boot/config/plugins/vm-babysitter/settings.json",
        state=root / state,
        socket=root / "run/vm-babysitter/api/api.socket",
        allow_ram_store=allow_ram,
    )
    return {part.name: part for part in self_check(options, root)}


def test_all_is_as_it_should_be(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as libvirtd:
        libvirtd.bind(str(root / "run/libvirt/libvirt-sock"))
        libvirtd.listen()
        found = checked(root)
    assert {part.state for part in found.values()} == {PartState.OK}
    assert list(found) == ["python", "libvirt", "socket", "state", "settings"]


def test_nothing_is_written(root: Path) -> None:
    before = sorted(root.rglob("*"))
    checked(root)
    assert sorted(root.rglob("*")) == before


def test_a_vm_service_that_is_not_there_is_waited_for(root: Path) -> None:
    found = checked(root)["libvirt"]
    assert (found.state, found.text) == (
        PartState.WAITS,
        "The VM service does not run yet; backups wait for it.",
    )
    (root / "boot/config/domain.cfg").write_text('SERVICE="disable"\n')
    assert "switched off" in checked(root)["libvirt"].text


def test_a_folder_for_the_state_that_is_missing(root: Path) -> None:
    found = checked(root, "mnt/disk9/system/vm-babysitter")["state"]
    assert found.state is PartState.FAILED
    assert "mnt/disk9/system is not there." in found.text


@as_root
def test_a_folder_for_the_state_in_ram(root: Path) -> None:
    with ram_disk(root / "mnt/cache/system", 1 << 20):
        found = checked(root, allow_ram=False)["state"]
    assert found.state is PartState.FAILED
    assert "lies in RAM" in found.text


def test_a_socket_folder_that_is_a_file(root: Path) -> None:
    (root / "run/vm-babysitter").write_text("")
    assert checked(root)["socket"].state is PartState.FAILED


def invoked(*parts: PartView, as_json: bool = False) -> Result:
    def look(options: ServeOptions) -> tuple[PartView, ...]:
        return parts

    def nothing(*_: object) -> None:
        raise AssertionError

    arguments = ["self-check", *(["--json"] if as_json else [])]
    return CliRunner().invoke(cli, arguments, obj=Parts(nothing, None, look))  # type: ignore[arg-type]


FAILED = PartView("state", PartState.FAILED, "No disk\nis there.", "Start the array.")


def test_the_command_ends_with_what_is_worst() -> None:
    good = PartView("python", PartState.OK, "Good.")
    worse = PartView("settings", PartState.WARNING, "Read-only.")
    waits = PartView("libvirt", PartState.WAITS, "Off.")
    assert invoked(good, waits).exit_code == 0
    assert invoked(good, worse).exit_code == 3
    assert invoked(worse, FAILED).exit_code == 1


def test_the_command_says_each_in_a_line() -> None:
    assert invoked(FAILED).output == "failed\tstate\tNo disk is there. Start the array.\n"
    assert '"state": "failed"' in invoked(FAILED, as_json=True).output
