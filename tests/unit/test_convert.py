"""Converting a disk of a VM in memory whose images are real files."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fakes.disk import FakeDisk
from tests.support.fakes.observer import RecordingObserver
from tests.support.house import BLOCK, GONE, House
from tests.support.read_qcow2 import read_layers
from vm_babysitter.adapters.qemu.own_images import FileImages
from vm_babysitter.adapters.qemu.qcow2_writer import Qcow2Writer
from vm_babysitter.domain.conversion import ImageFile, Note, Stage
from vm_babysitter.domain.errors import (
    BabysitterError,
    Busy,
    Cancelled,
    ConversionFailed,
    Damaged,
    HypervisorUnreachable,
    NotConverted,
    NotEnoughSpace,
    StoreFailed,
)
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.engine.convert import Convert
from vm_babysitter.ports import Belongings, DiskSource


@pytest.fixture
def house(ram_path: Path) -> House:
    return House(ram_path)


def start_on_old(house: House) -> None:
    """Start the VM with the image it had before the switch."""
    house.vm.state = PowerState.RUNNING
    house.definitions.running[house.vm.uuid, "vda"] = DiskSource(str(house.raw), "raw")


def test_a_raw_disk_becomes_qcow2_and_raw_again(house: House) -> None:
    result = house.convert()
    house.assert_new()
    assert (result.image, result.kept) == (str(house.new), str(house.raw))
    assert (result.undone, result.content_bytes) == (False, BLOCK + 1536)
    note = house.files.read_note(result.note)
    assert note is not None
    assert note.stage is Stage.DONE
    assert house.observer.amounts[-1][0] == house.observer.amounts[-1][1]
    house.images.calls.clear()
    assert house.back().undone
    assert "same_content" not in house.images.calls  # nobody has touched them
    house.assert_raw(house.new, house.note_path)
    assert house.back().undone
    with pytest.raises(NotConverted, match="is what an earlier conversion of this disk made"):
        house.convert()


def test_a_disk_that_was_written_to_is_compared_and_goes_back_only_on_demand(house: House) -> None:
    house.convert()
    house.new.touch()
    house.images.fail["same_content"] = AssertionError("not that")
    with pytest.raises(AssertionError):
        house.back()
    house.images.fail.clear()
    house.back()
    house.definitions.switch_disk(
        house.vm.uuid, "vda", DiskSource(str(house.raw), "raw"), DiskSource(str(house.new), "qcow2")
    )
    house.raw.write_bytes(b"z" + house.content[1:])
    with pytest.raises(NotConverted, match="all that would be lost") as refused:
        house.back()
    words = refused.value.hint.split("`")[1].split()
    assert words[:5] == ["vm-babysitter", "convert", "--undo", "--lose-changes", "--"]
    assert words[5:] == [house.vm.name, "vda"]
    house.back(lose_changes=True)
    house.assert_raw(house.new, house.note_path)


def test_a_wrong_copy_is_never_used(house: House) -> None:
    house.images.lies[BLOCK] = 7
    house.images.same_content = lambda *_a, **_k: False  # type: ignore[method-assign]
    with pytest.raises(NotConverted, match="the copy of its image is not what the image holds"):
        house.convert()
    house.assert_raw()


@pytest.mark.parametrize(
    ("step", "do"),
    [
        ("copy", lambda h: h.cancel.request()),
        ("compare", lambda h: h.cancel.request()),
        ("name", lambda h: h.cancel.request()),
        ("compare", lambda h: h.raw.touch()),
        ("switch", lambda h: h.raw.touch()),
        ("name", lambda h: setattr(h.vm, "state", PowerState.PAUSED)),
        ("switch", lambda h: setattr(h.vm, "state", PowerState.SHUTTING_DOWN)),
        ("name", lambda h: (h.folder / "vdisk1.qcow2").write_bytes(b"mine")),
    ],
)
def test_what_comes_in_between_undoes_all(
    house: House, step: str, do: Callable[[House], object]
) -> None:
    house.at(step, lambda: do(house))
    with pytest.raises((Cancelled, BabysitterError)):
        house.convert()
    mine = {house.new} if house.new.exists() else set()
    for file in mine:  # and what somebody put there is not touched
        assert file.read_bytes() == b"mine"
        assert {p.name for p in house.folder.iterdir()} == {
            house.raw.name,
            house.new.name,
            house.note_path.name,
        }
        file.unlink()
    house.vm.state = PowerState.OFF
    house.observer.at.clear()
    house.cancel = Cancel()
    house.convert()
    house.assert_new()


def test_a_vm_that_started_with_the_old_image_gets_its_definition_back(house: House) -> None:
    house.at("look again", lambda: start_on_old(house))
    with pytest.raises(Busy, match="its definition names that again"):
        house.convert()
    house.assert_raw()


def test_a_vm_that_started_with_the_new_image_is_converted(house: House) -> None:
    house.at("look again", lambda: setattr(house.vm, "state", PowerState.RUNNING))
    house.convert()
    house.assert_new()


def test_killed_after_the_switch_a_start_with_the_old_image_is_still_seen(house: House) -> None:
    house.die_at("look again")
    start_on_old(house)
    with pytest.raises(Busy, match="its definition names that again"):
        house.convert()
    house.assert_raw()


def test_killed_after_the_switch_what_the_old_image_got_is_still_seen(house: House) -> None:
    house.die_at("look again")
    house.raw.touch()
    with pytest.raises(Busy):
        house.convert()
    house.assert_raw()


@pytest.mark.parametrize("runs_on", ["vdisk1.img", "overlay.qcow2"])
def test_a_new_image_that_was_written_to_is_not_given_up_for_what_the_vm_runs_with(
    house: House, runs_on: str
) -> None:
    die_after_the_switch(house)
    house.new.touch()
    start_on_old(house)
    running = DiskSource(str(house.folder / runs_on), "raw")
    house.definitions.running[house.vm.uuid, "vda"] = running
    with pytest.raises(NotConverted, match="only you can say"):
        house.convert()
    assert house.source == DiskSource(str(house.new), "qcow2")


@pytest.mark.parametrize("runs_on", ["vdisk1.qcow2", "overlay.qcow2"])
def test_what_the_old_image_got_does_not_take_the_new_one_from_a_vm_that_runs_on_it(
    house: House, runs_on: str
) -> None:
    """It may have written nothing yet."""
    die_after_the_switch(house)
    house.raw.touch()
    start_on_old(house)
    running = DiskSource(str(house.folder / runs_on), "qcow2")
    house.definitions.running[house.vm.uuid, "vda"] = running
    with pytest.raises(NotConverted, match="only you can say"):
        house.convert()
    house.assert_new()


def test_a_vm_that_is_just_being_started_on_the_new_image_keeps_it(house: House) -> None:
    die_after_the_switch(house)
    house.raw.touch()
    fence = house.files.fence

    @contextmanager
    def fenced(path: str) -> Iterator[None]:
        if path == str(house.new):
            raise Busy(path, "a QEMU has it open for writing")
        with fence(path):
            yield

    house.files.fence = fenced  # type: ignore[method-assign]
    with pytest.raises(Busy, match="open for writing"):
        house.convert()
    house.assert_new()


def test_if_both_images_were_written_to_nothing_is_decided(house: House) -> None:
    house.die_at("look again")
    house.new.touch()
    house.raw.touch()
    with pytest.raises(NotConverted, match="only you can say"):
        house.convert()
    assert house.source == DiskSource(str(house.new), "qcow2")
    assert house.raw.exists()


def test_an_old_image_that_only_changed_its_owner_is_no_matter_once_the_new_one_is_in_use(
    house: House,
) -> None:
    house.die_at("look again")
    house.new.touch()
    house.raw.chmod(0o600)
    house.convert()
    house.assert_new()


def test_while_libvirt_does_not_tell_nothing_is_removed(house: House) -> None:
    def fail() -> None:
        house.definitions.fail["disk_source"] = GONE
        house.definitions.fail_after["switch_disk"] = GONE

    house.at("switch", fail)
    with pytest.raises(HypervisorUnreachable):
        house.convert()
    house.definitions.fail.clear()
    house.definitions.fail_after.clear()
    assert house.new.exists()
    house.observer.at.clear()
    house.convert()
    house.assert_new()


@pytest.mark.parametrize("step", ["copy", "compare", "name", "switch"])
def test_what_a_killed_run_left_is_cleaned_up(house: House, step: str) -> None:
    house.die_at(step)
    assert len(list(house.folder.iterdir())) > 1
    house.convert()
    house.assert_new()


def test_a_finished_image_that_changed_or_is_used_is_not_removed(house: House) -> None:
    house.die_at("switch")
    other = house.hypervisor.add("other", FakeDisk("vdb", path=str(house.new)))
    other.state = PowerState.OFF
    for _ in range(2):
        with pytest.raises(NotConverted, match="exists"):
            house.convert()
        house.assert_raw(house.new, house.note_path)
        other.disks["vdb"].path = "/elsewhere"
        house.new.touch()


def test_a_note_that_was_tampered_with_is_not_followed(house: House, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    house.die_at("switch")
    note = house.files.read_note(str(house.note_path))
    assert note is not None
    for wrong in (
        replace(note, nonce="../../../victim"),
        replace(note, old_path=str(victim)),
        replace(note, old_source=str(victim)),
        replace(note, new_path=str(victim)),
        replace(note, vm_uuid="other"),
        replace(note, target="vdb"),
    ):
        house.files.write_note(str(house.note_path), wrong)
        with pytest.raises(NotConverted, match="tells of the conversion of another disk"):
            house.convert()
    house.note_path.write_bytes(b"{}")
    with pytest.raises(Damaged):
        house.convert()
    assert victim.read_bytes() == b"precious"
    assert house.new.exists()


def test_a_note_cannot_have_a_vm_go_back_to_a_foreign_file(house: House, tmp_path: Path) -> None:
    house.convert()
    note = house.files.read_note(str(house.note_path))
    assert note is not None
    shutil.copyfile(house.raw, tmp_path / "vdisk1.img")
    wrong = replace(note, old_source=str(tmp_path / "vdisk1.img"))
    house.files.write_note(str(house.note_path), wrong)
    with pytest.raises(NotConverted, match="there is no note"):
        house.back()


def test_space_is_looked_at_before_and_meanwhile(house: House) -> None:
    house.files.free = 1 << 20
    with pytest.raises(NotEnoughSpace):
        house.convert()
    house.assert_raw()


class FullDisk(FileImages):
    """Takes no image."""

    def qcow2(self, path: Path, size: int) -> Qcow2Writer:
        path.touch()
        raise StoreFailed(str(path), f"no room for {size} bytes")


def test_a_full_disk_is_told_in_words_of_a_conversion(house: House) -> None:
    tools = replace(house.tools(), own_images=FullDisk())
    with pytest.raises(ConversionFailed, match="no room for"):
        Convert(tools).run("vm", "vda")
    house.assert_raw()


@pytest.mark.parametrize("stage", [Stage.COPYING, Stage.WHOLE, Stage.SWITCHING, Stage.DONE])
def test_a_note_that_cannot_be_written_leaves_a_whole_image_and_the_next_run_goes_on(
    house: House, stage: Stage
) -> None:
    write = house.files.write_note

    def fail(path: str, note: Note) -> None:
        if note.stage is stage:
            raise ConversionFailed(path, "No space left on device")
        write(path, note)

    house.files.write_note = fail  # type: ignore[method-assign]
    with pytest.raises(ConversionFailed):
        house.convert()
    if stage is Stage.DONE:
        house.assert_new()
    else:
        house.assert_raw()
    house.files.write_note = write  # type: ignore[method-assign]
    house.convert()
    house.assert_new()


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda h: setattr(h.vm, "state", PowerState.CRASHED), "the VM is crashed"),
        (
            lambda h: setattr(h.vm, "belongings", Belongings(managed_save=True)),
            "libvirt has saved the VM's memory",
        ),
        (lambda h: h.definitions.snapshot_names.update({h.vm.uuid: {"s1"}}), "has snapshots"),
        (lambda h: setattr(h.vm.disks["vda"], "format", "qcow2"), "already"),
        (lambda h: setattr(h.vm.disks["vda"], "unreadable", "gone"), "cannot be read: gone"),
    ],
)
def test_what_is_not_fit_is_refused(
    house: House, prepare: Callable[[House], object], says: str
) -> None:
    prepare(house)
    before = house.source
    with pytest.raises(NotConverted, match=says):
        house.convert()
    assert house.source == before
    assert list(house.folder.iterdir()) == [house.raw]


def test_two_at_once_do_not_get_into_each_others_way(house: House) -> None:
    second: list[type[BaseException]] = []

    def again() -> None:
        with pytest.raises(Busy, match="another conversion") as caught:
            Convert(replace(house.tools(), observer=RecordingObserver())).run("vm", "vda")
        second.append(caught.type)

    house.at("copy", again)
    house.convert()
    assert second == [Busy]
    house.assert_new()


def test_an_image_that_was_written_to_is_not_even_switched(house: House) -> None:
    for step, last in (("compare", "compare"), ("switch", "switch")):
        house.observer.steps.clear()
        house.at(step, house.raw.touch)
        with pytest.raises(Busy, match="was written to meanwhile"):
            house.convert()
        assert house.observer.steps[-1] == last
        assert "switch_disk" not in house.definitions.calls
        house.assert_raw()
        house.observer.at.clear()


def test_if_the_answer_to_the_switch_is_lost_the_new_image_stays(house: House) -> None:
    house.definitions.fail_after["switch_disk"] = GONE
    with pytest.raises(HypervisorUnreachable):
        house.convert()
    house.assert_new()
    house.definitions.fail_after.clear()
    house.convert()
    house.assert_new()


def test_a_new_image_that_the_definition_would_not_find_is_not_used(
    house: House, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.touch()
    house.files.elsewhere[str(house.new)] = str(other)
    with pytest.raises(NotConverted, match="is not found under"):
        house.convert()
    house.assert_raw()


@pytest.mark.parametrize(
    "prepare",
    [
        lambda h: setattr(h.vm, "state", PowerState.PAUSED),
        lambda h: setattr(h.vm, "belongings", Belongings(managed_save=True)),
        lambda h: h.definitions.snapshot_names.update({h.vm.uuid: {"s1"}}),
    ],
)
def test_what_forbids_to_convert_forbids_to_go_back(
    house: House, prepare: Callable[[House], object]
) -> None:
    house.convert()
    prepare(house)
    with pytest.raises(NotConverted):
        house.back()
    with pytest.raises(NotConverted):
        house.back(lose_changes=True)
    house.assert_new()


def test_going_back_loses_nothing_that_comes_in_between(house: House) -> None:
    house.convert()
    house.at("switch", house.new.touch)
    with pytest.raises(Busy, match="was written to meanwhile"):
        house.back()
    house.assert_new()

    def start_on_new() -> None:
        house.vm.state = PowerState.RUNNING
        house.definitions.running[house.vm.uuid, "vda"] = DiskSource(str(house.new), "qcow2")

    house.observer.at.clear()
    house.at("look again", start_on_new)
    with pytest.raises(Busy, match="keeps its image"):
        house.back()
    house.assert_new()


def test_an_image_whose_time_was_put_back_after_a_write_is_not_removed(house: House) -> None:
    house.die_at("switch")
    before = house.new.stat()
    with house.new.open("r+b") as file:
        file.seek(BLOCK)
        file.write(b"mine")
    os.utime(house.new, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(NotConverted, match="exists"):
        house.convert()
    assert house.new.exists()


def die_after_the_switch(house: House) -> None:
    house.die_at("look again")
    assert house.source == DiskSource(str(house.new), "qcow2")


def test_killed_after_the_switch_the_only_image_is_never_removed(house: House) -> None:
    """The user saw that the VM has its qcow2 image, and deleted the raw one."""
    die_after_the_switch(house)
    house.raw.unlink()
    house.convert()
    assert house.source == DiskSource(str(house.new), "qcow2")
    assert read_layers([house.new]) == house.content
    note = house.files.read_note(str(house.note_path))
    assert note is not None
    assert note.stage is Stage.DONE


@pytest.mark.parametrize("other", [b"another file", b""])
def test_killed_after_the_switch_a_file_that_took_the_old_ones_name_is_not_gone_back_to(
    house: House, other: bytes
) -> None:
    die_after_the_switch(house)
    house.raw.rename(house.folder / "moved.img")
    house.raw.write_bytes(other)
    with pytest.raises(NotConverted, match="only you can say"):
        house.convert()
    assert house.source == DiskSource(str(house.new), "qcow2")
    assert read_layers([house.new]) == house.content


def test_killed_after_the_switch_an_old_image_that_was_cut_off_is_not_gone_back_to(
    house: House,
) -> None:
    die_after_the_switch(house)
    os.truncate(house.raw, 0)
    with pytest.raises(NotConverted, match="only you can say"):
        house.convert()
    assert house.source == DiskSource(str(house.new), "qcow2")
    assert read_layers([house.new]) == house.content


def test_an_image_made_from_another_file_than_the_vm_has_now_is_not_removed(house: House) -> None:
    """It may be the only one with what that file held."""
    die_after_the_switch(house)
    house.raw.unlink()
    house.raw.write_bytes(bytes(len(house.content)))  # from an older copy, say
    house.vm.disks["vda"].path, house.vm.disks["vda"].format = str(house.raw), "raw"
    with pytest.raises(NotConverted, match="exists"):
        house.convert()
    assert read_layers([house.new]) == house.content


def test_memory_saved_or_a_snapshot_made_meanwhile_keeps_the_image_it_belongs_to(
    house: House,
) -> None:
    saved = Belongings(managed_save=True)
    house.at("switch", lambda: setattr(house.vm, "belongings", saved))
    with pytest.raises(NotConverted, match="has saved the VM's memory"):
        house.convert()
    house.assert_raw()
    house.vm.belongings = Belongings()
    house.at("switch", lambda: house.definitions.snapshot_names.update({house.vm.uuid: {"s1"}}))
    with pytest.raises(NotConverted, match="has snapshots"):
        house.convert()
    house.assert_raw()
    house.observer.at.clear()
    house.definitions.snapshot_names.clear()
    house.convert()
    house.at("switch", lambda: setattr(house.vm, "belongings", saved))
    with pytest.raises(NotConverted, match="has saved the VM's memory"):
        house.back()
    house.assert_new()


def test_other_room_taken_by_the_same_content_is_no_write(house: House) -> None:
    """File systems give back, or count, the room of a file some time after its last write."""
    look = house.files.look

    def counted(path: str) -> ImageFile | None:
        found = look(path)
        return found if found is None else replace(found, allocated=found.allocated + grown)

    house.files.look = counted  # type: ignore[method-assign]
    grown = 0

    def grow() -> None:
        nonlocal grown
        grown = 512

    house.at("copy", grow)
    house.convert()
    house.assert_new()


def test_going_back_to_a_path_that_leads_to_another_file_is_refused(
    house: House, tmp_path: Path
) -> None:
    house.convert()
    other = tmp_path / "other"
    other.touch()
    house.files.elsewhere[str(house.raw)] = str(other)
    with pytest.raises(NotConverted, match="is not found under"):
        house.back(lose_changes=True)
    house.assert_new()


def test_an_old_image_that_is_written_while_it_is_compared_is_not_gone_back_to(
    house: House,
) -> None:
    house.convert()
    house.new.touch()
    house.at("switch", house.raw.touch)
    with pytest.raises(Busy, match="was written to meanwhile"):
        house.back()
    assert house.source == DiskSource(str(house.new), "qcow2")


def test_changes_are_not_given_up_for_an_image_that_is_not_whole(house: House) -> None:
    house.convert()
    os.truncate(house.raw, 1000)
    with pytest.raises(NotConverted, match="shorter than"):
        house.back(lose_changes=True)
    assert house.source == DiskSource(str(house.new), "qcow2")


def test_what_another_run_has_just_done_is_seen(house: House) -> None:
    """Both began with the same definition; the second one waits for none, but comes later."""
    claim = house.files.claim

    @contextmanager
    def late(name: str) -> Iterator[None]:
        house.files.claim = claim  # type: ignore[method-assign]
        house.convert()
        with claim(name):
            yield

    house.files.claim = late  # type: ignore[method-assign]
    assert house.back().undone
    house.assert_raw(house.new, house.note_path)
