"""What people change about a VM between two backups, row by row, on a real QEMU.

Each row of the table is one disk of one VM, and all rows change at once. Whatever changes: the
method is the right one, one sentence says what changed, the exit code is 0, and this point and
those before it restore exactly. Shrinking and growing back are in ``test_wrong_data``.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.libvirt_host import LibvirtRefused
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mounts import bound
from tests.support.qemu_img import named, run
from tests.support.vm import MIB, DiskSpec, TestVm, create_image, run_qemu_img
from tests.support.world import Json, World

KIB = 1024
SIZE = 8 * MIB
Act = Callable[["Hardware", str], None]


class Hardware:
    """A VM whose hardware is changed while it is off."""

    def __init__(self, world: World, stack: ExitStack) -> None:
        self.world = world
        self.disks, self.paths = world.vm.disks, world.vm.paths
        self.stack = stack

    def make(self, target: str, path: Path, **change: object) -> None:
        """Put a new empty image in the place of a disk's."""
        self.disks[target] = replace(self.disks[target], **change)  # type: ignore[arg-type]
        self.paths[target] = path
        create_image(path, self.disks[target])

    def create(self, target: str, *options: str) -> None:
        """Make a disk's image anew, with options of qemu-img's."""
        image = self.paths[target]
        image.unlink()
        run_qemu_img("create", "-q", "-f", "qcow2", *options, str(image), str(SIZE))

    def beside(self, target: str, ending: str) -> Path:
        return self.paths[target].with_name(f"{target} {ending}")


def nothing(_hardware: Hardware, _target: str) -> None:
    pass


# -- what images are like from the start ----------------------------------------------------------


def old_qcow2(hardware: Hardware, target: str) -> None:
    hardware.create(target, "-o", "compat=0.10")


def with_data_file(hardware: Hardware, target: str) -> None:
    data = str(data_of(hardware, target)).replace(",", ",,")
    hardware.create(target, "-o", f"data_file={data},data_file_raw=on")


def linked_clone(hardware: Hardware, target: str) -> None:
    base = hardware.world.folder / "base of many.qcow2"
    if not base.exists():
        run_qemu_img("create", "-q", "-f", "qcow2", str(base), str(SIZE))
        run("qemu-io", "-c", f"write -P 0xba 0 {3 * MIB}", named(base))
        base.chmod(0o444)
    hardware.create(target, "-F", "qcow2", "-b", str(base))


def data_of(hardware: Hardware, target: str) -> Path:
    return hardware.paths[target].with_suffix(".data")


# -- what happens to them while the VM is off -----------------------------------------------------


def other_options(hardware: Hardware, target: str) -> None:
    options = (("cache", "writethrough"), ("discard", "ignore"), ("io", "threads"))
    hardware.disks[target] = replace(hardware.disks[target], driver=options)


def removed(hardware: Hardware, target: str) -> None:
    del hardware.disks[target], hardware.paths[target]


def added(hardware: Hardware, target: str) -> None:
    hardware.disks[target] = DiskSpec(target, size=SIZE)
    hardware.make(target, hardware.world.disks / f"{target}.qcow2")


def replaced(hardware: Hardware, target: str) -> None:
    hardware.make(target, hardware.beside(target, "new.qcow2"))


def replaced_in_place(hardware: Hardware, target: str) -> None:
    image = hardware.paths[target]
    image.rename(hardware.beside(target, "kept"))
    hardware.make(target, image)


def swapped(hardware: Hardware, target: str) -> None:
    other = chr(ord(target[-1]) + 1).join(["vd", ""])
    hardware.paths[target], hardware.paths[other] = hardware.paths[other], hardware.paths[target]


def retargeted(hardware: Hardware, target: str) -> None:
    hardware.disks["hdz"] = replace(hardware.disks.pop(target), target="hdz")
    hardware.paths["hdz"] = hardware.paths.pop(target)


def resized(size: int, *options: str) -> Act:
    def act(hardware: Hardware, target: str) -> None:
        run("qemu-img", "resize", "-q", *options, named(hardware.paths[target]), str(size))
        hardware.disks[target] = replace(hardware.disks[target], size=size)

    return act


def converted(format: str) -> Act:
    def act(hardware: Hardware, target: str) -> None:
        old, spec = hardware.paths[target], hardware.disks[target]
        new = old.with_suffix(f".{format}")
        run_qemu_img("convert", "-f", spec.format, "-O", format, str(old), str(new))
        hardware.paths[target] = new
        hardware.disks[target] = replace(spec, format=format)

    return act


def amended(hardware: Hardware, target: str) -> None:
    run("qemu-img", "amend", "-o", "compat=1.1", named(hardware.paths[target]))


def moved_within_its_pool(hardware: Hardware, target: str) -> None:
    folder = hardware.world.folder / "renamed: by, the GUI"
    folder.mkdir()
    hardware.paths[target] = hardware.paths[target].rename(folder / "vdisk1.img")


def moved_to_another_pool(hardware: Hardware, target: str) -> None:
    folder = hardware.world.folder / "another pool"
    folder.mkdir()
    shutil.copyfile(hardware.paths[target], folder / "vdisk1.img")
    hardware.paths[target].rename(hardware.beside(target, "kept"))
    hardware.paths[target] = folder / "vdisk1.img"


def named_by_a_link(hardware: Hardware, target: str) -> None:
    link = hardware.world.folder / f"link to {target}"
    link.symlink_to(hardware.paths[target])
    hardware.paths[target] = link


def named_by_another_mount(hardware: Hardware, target: str) -> None:
    image, host = hardware.paths[target], hardware.world.host
    pid = int((host.root / "libvirtd.pid").read_text())
    place = hardware.stack.enter_context(bound(image.parent, hardware.world.folder / "mnt", pid))
    hardware.paths[target] = place / image.name


def changed_behind_its_back(hardware: Hardware, target: str) -> None:
    write = f"write -P 0xd7 {5 * MIB} 64k"
    run("qemu-io", "-c", write, named(data_of(hardware, target), "raw"))


# -- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One disk: what is done to it, and what the next backup does and says."""

    happens: Act
    method: str | None
    reason: str
    note: str = ""
    settled: str | None = "bitmap"
    """The method of the backup after it."""
    image: Act = nothing
    format: str = "qcow2"
    target_then: str = ""


ROWS: dict[str, Row] = {
    "vda": Row(nothing, "bitmap", "tracked"),
    "vdb": Row(other_options, "bitmap", "tracked"),
    "vdc": Row(removed, None, "", "is no longer part of the VM", settled=None),
    "vdd": Row(replaced, "scan", "another image", "vdd new.qcow2 now, it was"),
    "vde": Row(replaced_in_place, "scan", "another image", "another file called"),
    "vdf": Row(swapped, "scan", "it was disk vdg", "was disk vdg before"),
    "vdg": Row(nothing, "scan", "it was disk vdf", "was disk vdf before"),
    "vdh": Row(retargeted, "scan", "it was disk vdh", "hdz was disk vdh before", target_then="hdz"),
    "vdi": Row(resized(12 * MIB), "bitmap", "tracked", "has grown from 8 MiB to 12 MiB"),
    "vdj": Row(
        resized(6 * MIB, "--shrink"), "scan", "smaller", "was made smaller from 8 MiB to 6 MiB"
    ),
    "vdk": Row(nothing, "bitmap", "tracked", "has grown from 8 MiB to 16 MiB"),  # live
    "vdl": Row(
        converted("qcow2"), "scan", "another image", "is qcow2 now, it was raw", format="raw"
    ),
    "vdm": Row(converted("raw"), "scan", "raw", "is raw now, it was qcow2", settled="scan"),
    "vdn": Row(moved_within_its_pool, "bitmap", "tracked", "vdisk1.img now, it was"),
    "vdo": Row(moved_to_another_pool, "scan", "another image", "vdisk1.img now, it was"),
    "vdp": Row(named_by_a_link, "bitmap", "tracked"),
    "vdq": Row(named_by_another_mount, "bitmap", "tracked", "mnt/vdq.qcow2 now, it was"),
    "vdr": Row(nothing, "scan", "version 2", settled="scan", image=old_qcow2),
    "vds": Row(amended, "scan", "no change tracking", image=old_qcow2),
    "vdt": Row(
        changed_behind_its_back, "scan", "another file", settled="scan", image=with_data_file
    ),
    "vdu": Row(nothing, "bitmap", "tracked", image=linked_clone),
    "vdv": Row(nothing, "bitmap", "tracked", image=linked_clone),
    "vdw": Row(added, "full", "new", "vdw is new"),
}
LIVE = "vdk"
CDROM = '<disk type="file" device="cdrom">{}<target dev="hda" bus="ide"/><readonly/></disk>'


def test_whatever_is_changed_about_a_vm_the_next_backup_is_right_and_says_what(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    specs = [DiskSpec(t, r.format, SIZE) for t, r in ROWS.items() if r.happens is not added]
    with (
        closing(World(libvirtd, tmp_path / "w", "rows", disks=specs)) as world,
        ExitStack() as stack,
    ):
        hardware = Hardware(world, stack)
        world.vm.stop()
        for target, row in ROWS.items():
            row.image(hardware, target)
        disc = tmp_path / "disc.iso"
        disc.write_bytes(bytes(MIB))
        world.vm.define_again([CDROM.format(f'<source file="{disc}"/>')])
        world.boot()
        world.change()
        assert world.backup()["notes"] == []
        world.vm.stop()
        for target, row in ROWS.items():
            row.happens(hardware, target)
        world.vm.define_again([CDROM.format("")])
        world.boot()
        world.host.call("resize", world.vm.name, LIVE, 16 * MIB)
        world.change()
        is_as_the_table_says(world.backup())
        world.change()
        made = world.backup()
        assert made["notes"] == []
        settled = {r.target_then or t: r.settled for t, r in ROWS.items() if r.settled}
        assert {disk["target"]: disk["method"] for disk in made["disks"]} == settled
        first, changed, last = world.references
        world.assert_restores(first)
        world.assert_restores(changed)
        world.assert_holds(last)
        world.assert_vm_unharmed()


def is_as_the_table_says(made: Json) -> None:
    disks = {disk["target"]: disk for disk in made["disks"]}
    notes = {note.split()[1]: note for note in made["notes"]}
    assert len(notes) == len(made["notes"])
    for then, row in ROWS.items():
        target = row.target_then or then
        disk = disks.pop(target, None)
        method, reason = (disk["method"], disk["reason"]) if disk else (None, "")
        assert (target, method) == (target, row.method)
        assert row.reason in reason, (target, reason)
        note = notes.pop(target, "")
        assert bool(note) == bool(row.note), (target, note)
        assert row.note in note, (target, note)
    assert not disks
    assert not notes


# -- the VM itself --------------------------------------------------------------------------------


@pytest.fixture
def world(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[World]:
    """A VM with one disk and its first backup."""
    with closing(World(libvirtd, tmp_path / "w", "one", disks=[DiskSpec(size=SIZE)])) as world:
        world.backup()
        yield world


def test_two_disks_of_one_target_are_refused_by_libvirt_already(world: World) -> None:
    text = world.vm.xml()
    disk = text[text.index("<disk") : text.index("</disk>") + len("</disk>")]
    with pytest.raises(LibvirtRefused, match="target 'vda' duplicated"):
        world.vm.define(text.replace(disk, disk + disk.replace("vda.qcow2", "b.qcow2")))


def test_two_vms_that_take_turns_with_one_image_each_have_exact_backups(
    world: World, tmp_path: Path
) -> None:
    one = world.vm
    other = TestVm(world.host, tmp_path, "other", [DiskSpec("vda", size=SIZE)])
    try:
        link = tmp_path / "link to it"
        link.hardlink_to(one.paths["vda"])
        other.paths["vda"] = link
        other.define_again()
        with pytest.raises(LibvirtRefused, match='Failed to get "write" lock'):
            other.start()
        for vm, method in ((one, "bitmap"), (other, "full"), (one, "bitmap"), (other, "bitmap")):
            world.vm = vm
            if vm.state == "shutoff":
                vm.start()
            world.change()
            made = world.backup()
            assert [disk["method"] for disk in made["disks"]] == [method]
            third = one if vm is other else other
            assert made["notes"] == [
                f"disk vda is disk vda of VM {third.name!r} as well; only one of the two can run"
            ]
            vm.stop()
        for point in world.references:
            world.assert_holds(point)
        for name in ("one", "other"):
            assert "BAD" not in world.call("verify", name).stdout
    finally:
        world.vm = one
        other.remove()
        world.boot()


def test_a_vm_that_is_renamed_goes_on_and_one_made_anew_begins_anew(world: World) -> None:
    world.vm.stop()
    world.host.call("rename", "one", "another")
    world.vm.name = "another"
    world.boot()
    world.change()
    made = world.backup()
    assert [disk["method"] for disk in made["disks"]] == ["bitmap"]
    assert made["notes"] == ["the VM was called 'one' before"]
    old = world.vm.uuid
    world.vm.stop()
    world.vm.undefine()
    world.vm.uuid = world.vm.define(world.vm.xml())
    assert world.vm.uuid != old
    world.boot()
    for note in (
        [
            f"the backup folder has restore points of a VM called 'another' with another "
            f"UUID ({old}); they stay as they are"
        ],
        [],
    ):
        world.change()
        made = world.backup()
        assert made["notes"] == note
        assert [disk["method"] for disk in made["disks"]] == ["full" if note else "bitmap"]
    assert len(world.references) == 4
    for point in world.references:
        world.assert_holds(point)
    for uuid in (old, world.vm.uuid):
        assert world.call("verify", uuid).stdout.count("good") == 2


# -- content in another file -------------------------------------------------------------------


def test_a_vm_that_is_off_has_changed_if_the_data_file_of_its_disk_has(world: World) -> None:
    world.vm.stop()
    with ExitStack() as stack:
        hardware = Hardware(world, stack)
        with_data_file(hardware, "vda")
        world.boot()
        world.change()
        world.vm.stop()
        time.sleep(2.1)  # what was changed a moment ago is no evidence
        world.backup()
        # Nothing is written to the image itself, as when the VM overwrites what it has.
        data = data_of(hardware, "vda")
        run("qemu-io", "-c", "write -P 0xd1 5M 64k", named(data, "raw"))
        made = world.backup()
        assert [disk["written_bytes"] for disk in made["disks"]] == [64 * KIB]
        assert len(world.references) == 3
        world.boot()
        for point in world.references:
            world.assert_holds(point)


# -- disks that the host encrypts -----------------------------------------------------------------


def encrypted_image(path: Path, key: Path) -> None:
    """Make one; QEMU measures the processor for it, and fails at that now and then."""
    secret = f"secret,id=key,file={str(key).replace(',', ',,')}"
    options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=100"
    for tries in range(20):
        try:
            run_qemu_img(
                *("create", "-q", "-f", "qcow2", "--object", secret, "-o", options),
                *(str(path), str(SIZE)),
            )
        except RuntimeError as error:
            if "CPU usage" not in str(error) or tries == 19:
                raise
        else:
            return


def test_an_encrypted_disk_is_kept_as_the_vm_sees_it_and_the_user_is_told_once(
    world: World, tmp_path: Path
) -> None:
    vm, image, key = world.vm, tmp_path / "encrypted.qcow2", tmp_path / "key"
    key.write_text("open, sesame")
    encrypted_image(image, key)
    uuid = world.host.call("define_secret", "open, sesame")
    vm.stop()
    vm.paths["vda"] = image
    source = f'<source file="{image}"'
    encryption = f'<encryption format="luks"><secret type="passphrase" uuid="{uuid}"/></encryption>'
    vm.define_again()
    text = str(world.host.call("xml", vm.name, True))
    vm.define(text.replace(f"<source file='{image}'/>", f"{source}>{encryption}</source>"))
    world.boot()
    vm.write("vda", MIB, MIB, 0x5A)
    name = ["--json", "--", vm.name]
    told = world.call("backup", *name, expect=3).stdout
    assert "encrypted on the host, but not in the backup" in told
    assert '"method": "scan"' in told
    vm.write("vda", 3 * MIB, MIB, 0x5B)
    told = world.call("backup", *name).stdout
    assert '"method": "bitmap"' in told
    assert '"warnings": []' in told
    restored = tmp_path / "restored"
    said = world.call("restore", "--to", str(restored), "--", vm.name, "latest").stdout
    assert "remove <encryption> of that disk" in said
    patterns = [f"read -P 0x5a {MIB} {MIB}", f"read -P 0x5b {3 * MIB} {MIB}"]
    asked = [part for pattern in patterns for part in ("-c", pattern)]
    assert "failed" not in run("qemu-io", "-r", *asked, named(restored / "vda.qcow2"))
    assert "BAD" not in world.call("verify", "--", vm.name).stdout
    vm.write("vda", 5 * MIB, MIB, 0x5C)
    vm.stop()
    refused = world.call("backup", "--", vm.name, expect=1).stderr
    assert "it is encrypted; it can be read only while the VM runs" in refused
    assert list(tmp_path.rglob("*.attempt.json")) == []
    world.boot()
