"""What a domain has beside its disks, read from XML of old and new libvirts."""

from pathlib import Path

import pytest
from lxml import etree

from vm_babysitter.adapters.libvirt.belongings import find_belongings, usual_tpm_roots
from vm_babysitter.ports import Belongings

UUID = "5eed5eed-1111-4222-8333-444455556666"
ODD = '/vms/it\'s "my" <VM>, ü & co/vars: a.fd'


def found(system: str = "", devices: str = "", roots: tuple[Path, ...] = ()) -> Belongings:
    text = f"<domain><os>{system}</os><devices>{devices}</devices></domain>"
    return find_belongings(text, UUID, roots or (Path("/nowhere"),))


def with_attribute(element: str, name: str, value: str) -> str:
    root = etree.fromstring(element)
    root.set(name, value)
    return etree.tostring(root, encoding="unicode")


def test_a_vm_of_bios_and_without_tpm_has_nothing() -> None:
    assert found('<loader readonly="yes" type="pflash">/x.fd</loader>') == Belongings()


def test_an_nvram_is_named_in_any_way() -> None:
    element = etree.Element("nvram", template="/usr/share/OVMF/x")
    element.text = ODD
    assert found(etree.tostring(element, encoding="unicode")) == Belongings(nvram=ODD)
    for kind, attribute in (("file", "file"), ("block", "dev")):
        source = with_attribute("<source/>", attribute, ODD)
        named = f'<nvram type="{kind}" format="qcow2">{source}</nvram>'
        assert found(named) == Belongings(nvram=ODD, nvram_format="qcow2")


def test_an_nvram_that_is_yet_to_be_made_is_none() -> None:
    assert found('<nvram template="/usr/share/OVMF/x"/>') == Belongings()


def test_an_nvram_on_the_network_is_out_of_reach() -> None:
    source = '<source protocol="iscsi" name="iqn/1"><host name="x"/></source>'
    has = found(f'<nvram type="network" format="raw">{source}</nvram>')
    assert has.nvram == ""
    assert has.out_of_reach == ("the NVRAM is not included: it lies on a network source",)


@pytest.mark.parametrize(("version", "folder"), [("2.0", "tpm2"), ("1.2", "tpm1.2")])
def test_the_state_of_an_emulated_tpm_lies_in_the_folder_of_its_version(
    tmp_path: Path, version: str, folder: str
) -> None:
    device = f'<tpm model="tpm-crb"><backend type="emulator" version="{version}"/></tpm>'
    (tmp_path / "b" / UUID / "tpm1.2").mkdir(parents=True)
    (tmp_path / "b" / UUID / "tpm2").mkdir(parents=True)
    has = found(devices=device, roots=(tmp_path / "a", tmp_path / "b"))
    assert has == Belongings(tpm=str(tmp_path / "b" / UUID / folder))


@pytest.mark.parametrize("there", ["tpm1.2", "tpm2"])
def test_the_state_of_a_tpm_of_unknown_version_is_what_is_there(tmp_path: Path, there: str) -> None:
    (tmp_path / UUID / there).mkdir(parents=True)
    device = '<tpm><backend type="emulator"/></tpm>'
    assert found(devices=device, roots=(tmp_path,)).tpm == str(tmp_path / UUID / there)


def test_a_state_that_is_nowhere_is_named_where_it_should_be(tmp_path: Path) -> None:
    device = '<tpm><backend type="emulator" version="2.0"/></tpm>'
    roots = (tmp_path / "a", tmp_path / "b")
    assert found(devices=device, roots=roots).tpm == str(tmp_path / "a" / UUID / "tpm2")


@pytest.mark.parametrize("kind", ["dir", "file"])
def test_a_state_whose_place_is_given_lies_there(kind: str) -> None:
    source = with_attribute(f'<source type="{kind}"/>', "path", ODD)
    device = f'<tpm><backend type="emulator" version="2.0">{source}</backend></tpm>'
    assert found(devices=device) == Belongings(tpm=ODD, tpm_in_one_file=kind == "file")


def test_an_emulator_that_libvirt_does_not_run_is_out_of_reach() -> None:
    source = '<source type="unix" mode="connect" path="/x.sock"/>'
    has = found(devices=f'<tpm><backend type="external">{source}</backend></tpm>')
    assert has.tpm == ""
    assert "not run by libvirt" in has.out_of_reach[0]


def test_a_tpm_of_the_host_is_none_of_the_vms() -> None:
    device = '<tpm><backend type="passthrough"><device path="/dev/tpm0"/></backend></tpm>'
    assert found(devices=device) == Belongings()


def test_an_embedded_libvirt_keeps_tpms_under_its_root() -> None:
    uri = "qemu:///embed?root=/tmp/my%20root"
    assert usual_tpm_roots(uri) == (Path("/tmp/my root/lib/swtpm"),)
    for usual in ("qemu:///system", "qemu+unix:///system?socket=/x", "test:///default"):
        assert usual_tpm_roots(usual)[0] == Path("/var/lib/libvirt/swtpm")
        assert Path("/etc/libvirt/qemu/swtpm/tpm-states") in usual_tpm_roots(usual)
