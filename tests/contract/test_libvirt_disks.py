"""What the adapter makes of the disks in real definitions, on a real libvirt."""

from pathlib import Path

import pytest

from tests.support.bench import FIRST, SIZE, RealBench, RealVm, tracked, whole
from tests.support.qemu_img import run
from tests.support.vm import DiskSpec, run_qemu_img
from vm_babysitter.adapters.libvirt.xml import parse_disks
from vm_babysitter.domain.errors import VmNotEligible
from vm_babysitter.domain.trust import find_trusted
from vm_babysitter.domain.vm import DiskVerdict, Verdict, judge_disk
from vm_babysitter.engine.planning import check_eligible

TRACKED, COMPARED, OUT, REFUSED = (
    Verdict.TRACKED,
    Verdict.COMPARED,
    Verdict.LEFT_OUT,
    Verdict.REFUSED,
)
ODD_NAME = "a: \"b\", 'c' {d} %s 日本 #?&=;.img"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images of all kinds."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, *options in (
        ("plain.qcow2", "-f", "qcow2"),
        ("misnamed.img", "-f", "qcow2"),
        ("old.qcow2", "-f", "qcow2", "-o", "compat=0.10"),
        ("other.vdi", "-f", "vdi"),
        ("raw.img", "-f", "raw"),
        ("shared.img", "-f", "raw"),
    ):
        run_qemu_img("create", "-q", *options, str(folder / name), str(SIZE))
    hollow = f"data_file={folder}/hollow.data"
    run_qemu_img(
        "create", "-q", "-f", "qcow2", "-o", hollow, str(folder / "hollow.qcow2"), str(SIZE)
    )
    (folder / "garbage.qcow2").write_bytes(b"\xa5" * 65536)
    (folder / "torn.qcow2").write_bytes(b"QFI\xfb" + b"\xff" * 65532)
    (folder / "link").symlink_to("plain.qcow2")
    (folder / "circle").symlink_to("circle")
    return folder


def disk(source: str, target: str, inner: str = "", kind: str = "disk", form: str = "raw") -> str:
    """Return a ``<disk>``; ``source`` is its ``<source>``'s attributes after the type."""
    type_, _, place = source.partition(" ")
    tag = f"<source {place}/>" if place else ""
    bus = {"f": "fdc", "s": "scsi"}[target[0]]
    return (
        f'<disk type="{type_}" device="{kind}"><driver name="qemu" type="{form}"/>{tag}'
        f'<target dev="{target}" bus="{bus}"/>{inner}</disk>'
    )


def judged(bench: RealBench, vm: RealVm) -> dict[str, DiskVerdict]:
    """Return the verdict of each disk."""
    return {d.target: judge_disk(d) for d in bench.hypervisor.vm(vm.uuid).disks}


CASES = {
    "cdrom": (disk("file file='{0}/raw.img'", "sda", kind="cdrom"), OUT, "CD/DVD"),
    "empty cdrom": (disk("file", "sda", kind="cdrom"), OUT, "CD/DVD"),
    "missing iso": (disk("file file='/nope.iso'", "sda", kind="cdrom"), OUT, "CD/DVD"),
    "floppy": (disk("file file='{0}/raw.img'", "fda", kind="floppy"), OUT, "floppy"),
    "read-only": (disk("file file='{0}/raw.img'", "sda", "<readonly/>"), OUT, "read-only"),
    "read-only and missing": (disk("file file='/nope'", "sda", "<readonly/>"), OUT, "read-only"),
    "shareable": (disk("file file='{0}/shared.img'", "sda", "<shareable/>"), OUT, "shared"),
    "transient": (disk("file file='{0}/raw.img'", "sda", "<transient/>"), OUT, "transient"),
    "network": (disk("network protocol='nbd' name='x'", "sda"), OUT, "type network"),
    "volume": (disk("volume pool='p' volume='v'", "sda"), OUT, "type volume"),
    "passed through": (disk("block dev='/dev/null'", "sda", kind="lun"), OUT, "passed through"),
    "raw": (disk("file file='{0}/raw.img'", "sda"), COMPARED, "raw"),
    "qcow2": (disk("file file='{0}/plain.qcow2'", "sda", form="qcow2"), TRACKED, "qcow2"),
    "misnamed": (disk("file file='{0}/misnamed.img'", "sda", form="qcow2"), TRACKED, "qcow2"),
    "old qcow2": (disk("file file='{0}/old.qcow2'", "sda", form="qcow2"), COMPARED, "version 2"),
    "qcow2 used as raw": (
        disk("file file='{0}/plain.qcow2'", "sda"),
        COMPARED,
        "uses the qcow2 file as raw",
    ),
    "qcow2 with a data file": (
        disk("file file='{0}/hollow.qcow2'", "sda", form="qcow2"),
        COMPARED,
        "content lies in another file",
    ),
    "another format": (disk("file file='{0}/other.vdi'", "sda", form="vdi"), COMPARED, "vdi"),
    "garbage": (disk("file file='{0}/garbage.qcow2'", "sda", form="qcow2"), COMPARED, "raw"),
    "link": (disk("file file='{0}/link'", "sda", form="qcow2"), TRACKED, "qcow2"),
    "missing": (disk("file file='{0}/nope'", "sda"), REFUSED, "No such file"),
    "torn": (disk("file file='{0}/torn.qcow2'", "sda", form="qcow2"), REFUSED, "cannot be read"),
    "circle": (disk("file file='{0}/circle'", "sda"), REFUSED, "symbolic links"),
    "folder": (disk("file file='{0}'", "sda"), REFUSED, "cannot be read"),
    "no device": (disk("block dev='/dev/nope'", "sda"), REFUSED, "No such file"),
}


@pytest.mark.parametrize(("xml", "verdict", "words"), CASES.values(), ids=CASES)
def test_disk_is_judged_by_its_definition_and_its_content(
    libvirtd_bench: RealBench, images: Path, xml: str, verdict: Verdict, words: str
) -> None:
    vm = libvirtd_bench.vm(devices=[xml.format(images)])
    found = judged(libvirtd_bench, vm)
    assert found["vda"].verdict is TRACKED
    (other,) = (found[target] for target in found if target != "vda")
    assert (other.verdict, words in other.reason) == (verdict, True), other.reason


def test_block_device_is_compared(libvirtd_bench: RealBench, images: Path) -> None:
    device = run("losetup", "--find", "--show", str(images / "raw.img")).strip()
    try:
        vm = libvirtd_bench.vm(devices=[disk(f"block dev='{device}'", "sda")])
        found = judged(libvirtd_bench, vm)["sda"]
    finally:
        run("losetup", "--detach", device)
    assert (found.verdict, found.disk.virtual_size) == (COMPARED, SIZE)


def test_verdicts_are_the_same_off_and_running_and_a_backup_leaves_the_rest_alone(
    libvirtd_bench: RealBench, images: Path
) -> None:
    names = ("cdrom", "empty cdrom", "read-only", "shareable", "misnamed", "old qcow2")
    devices = [
        CASES[name][0].format(images).replace('"sda"', f'"sd{"abcdef"[number]}"')
        for number, name in enumerate(names)
    ]
    vm = libvirtd_bench.vm(devices=devices)
    off = {t: (v.verdict, v.reason) for t, v in judged(libvirtd_bench, vm).items()}
    vm.start()
    on = {t: (v.verdict, v.reason) for t, v in judged(libvirtd_bench, vm).items()}
    assert on == off
    assert [t for t, (verdict, _) in on.items() if verdict is not OUT] == ["vda", "sde", "sdf"]
    states = {s.target: s for s in libvirtd_bench.hypervisor.disk_states(vm.uuid)}
    assert {"vda", "sde", "sdf"} <= states.keys()
    request = libvirtd_bench.request(FIRST, whole("vda"), whole("sde"), whole("sdf", track=False))
    libvirtd_bench.hypervisor.begin_backup(vm.uuid, request)
    libvirtd_bench.hypervisor.end_backup(vm.uuid)


@pytest.mark.parametrize(
    ("xml", "encrypted"),
    [
        ("<source file='{0}/plain.qcow2'>{1}</source>", True),
        ("<source file='{0}/plain.qcow2'/>{1}", True),
        ("<source file='{0}/plain.qcow2'/>", False),
    ],
)
def test_what_the_host_encrypts_is_told_by_the_definition(
    images: Path, xml: str, encrypted: bool
) -> None:
    encryption = "<encryption format='luks'><secret type='passphrase' uuid='x'/></encryption>"
    inner = xml.format(images, encryption)
    text = f"<domain><devices><disk type='file'>{inner}<target dev='a'/></disk></devices></domain>"
    (found,) = parse_disks(text)
    assert (found.source, found.encrypted) == (f"{images}/plain.qcow2", encrypted)


def test_what_only_qemu_follows_is_told_by_the_definition() -> None:
    beneath = '<backingStore type="{}">{}<source {}/>{}</backingStore>'
    pool = beneath.format("network", "", 'protocol="nbd" name="x"', "")
    base = beneath.format("file", '<format type="raw"/>', 'file="/a: b"', "{}")
    for written, told in {
        "": (),
        "<backingStore/>": (("", ""),),
        base.format("<backingStore/>"): (("/a: b", "raw"), ("", "")),
        base.format(pool): (("/a: b", "raw"), ("nbd:x", "")),
    }.items():
        text = f'<domain><devices><disk><source file="/i"/>{written}</disk></devices></domain>'
        (found,) = parse_disks(text)
        assert (found.beneath, found.partial) == (told, False)
    (part,) = parse_disks(
        '<domain><devices><disk><source file="/i"><slices><slice type="storage"/></slices>'
        "</source></disk></devices></domain>"
    )
    assert part.partial


def test_two_names_of_one_file_are_known_and_two_files_told_apart(
    libvirtd_bench: RealBench, images: Path
) -> None:
    (images / "hard link").hardlink_to(images / "raw.img")
    names = ("raw.img", "hard link", "shared.img", "nope")
    devices = [
        disk(f"file file='{images}/{name}'", f"sd{letter}")
        for name, letter in zip(names, "abcd", strict=True)
    ]
    vm = libvirtd_bench.vm(devices=devices)
    (known,) = libvirtd_bench.hypervisor.outlines()
    raw, link, shared, missing = [d.file_id for d in known.disks if d.target != "vda"]
    assert known.uuid == vm.uuid
    assert raw == link != shared
    assert missing == ""


def test_missing_image_makes_the_vm_not_eligible_by_name(
    libvirtd_bench: RealBench, images: Path
) -> None:
    vm = libvirtd_bench.vm(devices=[CASES["raw"][0].format(images)])
    vm.start()
    (images / "raw.img").rename(images / "gone")
    with pytest.raises(VmNotEligible, match="sda") as caught:
        check_eligible(libvirtd_bench.hypervisor.vm(vm.uuid))
    assert str(images / "raw.img") in caught.value.hint


@pytest.mark.parametrize("driver", [(), (("copy_on_read", "on"),), (("discard", "unmap"),)])
def test_tracking_is_trusted_whatever_the_image_is_called_and_lies_beneath(
    libvirtd_bench: RealBench, tmp_path: Path, driver: tuple[tuple[str, str], ...]
) -> None:
    path = tmp_path / ODD_NAME
    vm = libvirtd_bench.vm(disks=[DiskSpec(size=SIZE, path=path, driver=driver)])
    vm.start()
    checkpoint = tracked(libvirtd_bench, vm)
    (state,) = libvirtd_bench.hypervisor.disk_states(vm.uuid)
    assert [layer.path for layer in state.layers] == [str(path)]
    assert state.identity == f"inode:{path.stat().st_ino}"
    assert state.layers[0].bitmap(FIRST) is not None
    assert libvirtd_bench.hypervisor.adopt_checkpoint(vm.uuid, checkpoint)
    (verdict,) = judged(libvirtd_bench, vm).values()
    assert find_trusted(verdict, state, (), ())[1].startswith("there is no change tracking")


def test_internal_snapshots_are_counted_with_and_without_a_job(
    libvirtd_bench: RealBench,
) -> None:
    vm = libvirtd_bench.vm()
    for name in ("one", "two"):
        run_qemu_img("snapshot", "-c", name, str(vm.vm.paths["vda"]))
    vm.start()
    assert libvirtd_bench.hypervisor.disk_states(vm.uuid)[0].internal_snapshots == 2
    vm.begin_foreign_backup()
    assert libvirtd_bench.hypervisor.disk_states(vm.uuid)[0].internal_snapshots == 2
