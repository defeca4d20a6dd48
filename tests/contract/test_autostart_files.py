"""The files of the autostart: marks in RAM, the copy on flash; and what it asks of the host."""

import os
import socket
import threading
from pathlib import Path

import pytest

from tests.support.mounts import ram_disk
from vm_babysitter.adapters.autostart_copy import CopyFile
from vm_babysitter.adapters.autostart_marks import MarkFiles
from vm_babysitter.adapters.probes import HostProbes
from vm_babysitter.adapters.unraid.vm_service import UnraidVmService
from vm_babysitter.domain.autostart import Mark, parse_condition
from vm_babysitter.domain.errors import InvalidInput, SettingsFailed, SystemFailed

A, B = "0d6b2a52-6f0d-4a5f-9a36-6a3a3f1b9f10", "4c0d0d5e-8f0f-4b0e-9d37-0c2f5be0a001"


# -- marks ----------------------------------------------------------------------------------------


def test_marks_are_read_back_by_whoever_comes_next(tmp_path: Path) -> None:
    marks = MarkFiles(tmp_path / "autostart")
    assert marks.latest() is None
    assert marks.open("boot-1", "17") is True
    assert marks.claim("boot-1", A.upper()) is True
    marks.mark("boot-1", A, Mark.DONE)
    assert marks.claim("boot-1", B) is True
    record = MarkFiles(tmp_path / "autostart").latest()
    assert record is not None
    assert (record.run, record.service, record.finished, record.held) == ("boot-1", "17", False, "")
    assert record.marks == {A: Mark.DONE, B: Mark.BEGUN}
    assert set(record.marked) == {A, B}
    assert marks.open("boot-1", "18") is False
    marks.finish("boot-1")
    marks.finish("boot-1")
    assert marks.read("boot-1").finished is True  # type: ignore[union-attr]


def test_of_many_that_claim_a_vm_at_once_one_gets_it(tmp_path: Path) -> None:
    MarkFiles(tmp_path).open("r", "")
    got: list[bool] = []
    threads = [
        threading.Thread(target=lambda: got.append(MarkFiles(tmp_path).claim("r", A)))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 19 + [True]


def test_what_the_shell_script_wrote_is_understood(tmp_path: Path) -> None:
    marks = MarkFiles(tmp_path)
    (tmp_path / "r").mkdir()
    (tmp_path / "guard.pid").write_text("1 r\n")
    assert marks.read("r") is None
    assert marks.open("r", "") is True
    (tmp_path / "r" / A).write_text("done\n")
    (tmp_path / "r" / B).write_text("")  # it died between making the file and writing to it
    (tmp_path / "r" / f".{B}.new").write_text("done\n")
    record = marks.read("r")
    assert record is not None
    assert record.marks == {A: Mark.DONE, B: Mark.BEGUN}


def test_a_run_that_is_held_is_finished_and_says_why(tmp_path: Path) -> None:
    marks = MarkFiles(tmp_path)
    marks.open("r", "")
    marks.hold("r", "Unraid is set not to start VMs.")
    record = marks.latest()
    assert record is not None
    assert (record.finished, record.held) == (True, "Unraid is set not to start VMs.")


@pytest.mark.parametrize("run", ["", "..", "a/b", "a" * 65, "ä", "a\n"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, run: str) -> None:
    with pytest.raises(InvalidInput):
        MarkFiles(tmp_path).open(run, "")
    with pytest.raises(InvalidInput):
        MarkFiles(tmp_path).claim("r", "../x-y")


def test_records_of_old_runs_go(tmp_path: Path) -> None:
    marks = MarkFiles(tmp_path)
    for number in range(9):
        marks.open(f"r{number}", "")
        os.utime(tmp_path / f"r{number}" / "service", (number, number))
    assert len(list(tmp_path.iterdir())) <= 6
    assert marks.latest().run == "r8"  # type: ignore[union-attr]


def test_where_nothing_can_be_kept_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemFailed):
        MarkFiles(tmp_path / "file").open("r", "")


# -- the copy ------------------------------------------------------------------------------------


def test_the_copy_is_written_only_if_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "autostart.tsv"
    copy = CopyFile(path)
    copy.write(())
    assert not path.exists()
    copy.write(((A, 0, 'My "VM" & co'), (B, 30, "a\tb\nc\x85d\udcff")))
    assert path.read_bytes() == (
        "# vm-babysitter autostart 1\n"
        f'{A}\t0\tMy "VM" & co\n'
        f"{B}\t30\ta b c d \n"
    ).encode()  # fmt: skip
    before = path.stat()
    copy.write(((A, 0, 'My "VM" & co'), (B, 30, "a b c d ")))
    assert path.stat() == before
    copy.write(())
    assert path.read_text() == "# vm-babysitter autostart 1\n"


def test_a_copy_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsFailed):
        CopyFile(tmp_path / "missing" / "autostart.tsv").write(((A, 0, "vm"),))


# -- the VM service ------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for folder in ("boot/config", "var/run/libvirt/qemu"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def made(path: Path, at: int) -> None:
    path.write_text("")
    os.utime(path, (at, at))


def test_where_there_is_no_unraid_nothing_is_held(host: Path) -> None:
    service = UnraidVmService(host)
    assert (service.stamp(), service.held(by_user=False)) == ("", "")


@pytest.mark.parametrize("line", ['DISABLE="yes"', "DISABLE=yes\r", "A=1\nDISABLE='YES'\nB=2"])
def test_a_host_that_is_set_not_to_start_vms_starts_none(host: Path, line: str) -> None:
    (host / "boot/config/domain.cfg").write_bytes(line.encode())
    for by_user in (False, True):
        assert "DISABLE" in UnraidVmService(host).held(by_user=by_user)


@pytest.mark.parametrize("line", ['DISABLE="no"', "", '#DISABLE="yes"', "NODISABLE=yes"])
def test_a_host_that_starts_vms_does(host: Path, line: str) -> None:
    (host / "boot/config/domain.cfg").write_text(line)
    assert UnraidVmService(host).held(by_user=False) == ""


def test_a_failed_vfio_binding_suppresses_the_start_but_not_for_a_user(host: Path) -> None:
    libvirt = host / "var/run/libvirt"
    made(libvirt / "qemu/autostarted", 100)
    made(libvirt / "libvirtd.pid", 101)
    service = UnraidVmService(host)
    assert "VFIO" in service.held(by_user=False)
    assert service.held(by_user=True) == ""
    made(libvirt / "qemu/autostarted", 101)  # libvirtd's own
    assert service.held(by_user=False) == ""
    stamp = service.stamp()
    made(libvirt / "libvirtd.pid", 200)
    assert service.stamp() not in {"", stamp}


# -- what VMs wait for ---------------------------------------------------------------------------


def unmet(text: str) -> str:
    return HostProbes().unmet(parse_condition(text))


def test_a_port_is_there_once_something_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert unmet(f"tcp:127.0.0.1:{port}") == ""
    assert unmet(f"tcp:127.0.0.1:{port}").startswith(f"nothing answers at 127.0.0.1:{port}: ")
    assert unmet("tcp:no.such.host.invalid:1").startswith("nothing answers at ")
    assert unmet(f"tcp:{'a' * 200}:1").startswith("nothing answers at ")


def test_a_folder_is_there_once_something_is_mounted(tmp_path: Path) -> None:
    assert unmet(f"path:{tmp_path / 'no'}").endswith("is not there: No such file or directory")
    assert unmet("path:/usr") == "nothing is mounted at /usr"
    assert unmet("path:/proc/self") == ""
    with ram_disk(tmp_path / "disks", 1 << 20) as disks:
        (disks / "usb").mkdir()
        assert unmet(f"path:{disks}") == ""
        assert unmet(f"path:{disks}/usb") == f"nothing is mounted at {disks}/usb"
