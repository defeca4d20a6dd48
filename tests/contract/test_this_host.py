"""By what a machine is told from others, and one run of it from the next."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vm_babysitter.adapters.this_host import runs_with, this_host

INI = 'version="7.0.1"\nflashGUID="0781-5571-0000-AB12"\nflashProduct="x=y"\n'


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_real_machine_has_an_identity_a_name_and_a_boot() -> None:
    host = this_host()
    assert host == this_host()
    assert (len(host.id), host.name) == (32, socket.gethostname())
    assert host.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip() != ""


def test_the_surest_that_is_there_tells_machines_apart(tmp_path: Path) -> None:
    ids = [this_host(tmp_path).id]
    for name, text in (
        ("sys/class/dmi/id/product_uuid", "4C4C4544-0042\n"),
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("var/local/emhttp/var.ini", INI),
    ):
        write(tmp_path, name, text)
        ids.append(this_host(tmp_path).id)
    assert len(set(ids)) == 4
    (tmp_path / "etc/machine-id").write_text("another\n")
    assert this_host(tmp_path).id == ids[-1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("var/local/emhttp/var.ini", INI.replace("0781-5571-0000-AB12", "")),
        ("var/local/emhttp/var.ini", "\0\n[x"),
        ("etc/machine-id", "uninitialized\n"),
        ("etc/machine-id", ""),
    ],
)
def test_what_says_nothing_is_passed_over(tmp_path: Path, name: str, text: str) -> None:
    nameless = this_host(tmp_path)
    write(tmp_path, name, text)
    assert this_host(tmp_path) == nameless
    assert nameless.boot_id == ""


def test_neither_licence_nor_machine_id_can_be_read_from_the_identity(tmp_path: Path) -> None:
    write(tmp_path, "var/local/emhttp/var.ini", INI)
    assert "5571" not in this_host(tmp_path).id


def test_programs_are_told_by_an_option_and_its_value() -> None:
    word = f"vmb-{os.getpid()}"
    sleep = ["-c", "import time; time.sleep(60)", "-uuid", word, "-x"]
    with subprocess.Popen([sys.executable, *sleep]) as one:
        try:
            while not (found := runs_with("-uuid", word)):
                time.sleep(0.01)
            assert found == runs_with("-uuid", word)
            assert found.startswith(f"{one.pid}-")
            assert runs_with("-uuid", word[:-1]) == runs_with("uuid", word) == ""
        finally:
            one.kill()
            one.wait()
    assert runs_with("-uuid", word) == ""
