"""`status`, `plan` and `repair`: what they say, and how they end."""

import shutil
from pathlib import Path

import pytest

from tests.support.engine_world import EngineWorld
from tests.support.fakes.app import NAME, FakeApp
from tests.support.fakes.disk import FakeDisk
from vm_babysitter.domain.vm import PowerState
from vm_babysitter.ports import ActiveJob, JobKind


@pytest.fixture
def app(ram_path: Path) -> FakeApp:
    return FakeApp(EngineWorld(ram_path, name=NAME))


def lose(app: FakeApp, pattern: str) -> None:
    for path in app.world.path.glob(pattern):
        path.unlink()


def test_all_is_well(app: FakeApp) -> None:
    app.world.backup()
    result = app.call("status")
    assert result.exit_code == 0
    header, row = result.stdout.splitlines()
    assert header.split() == ["VM", "STATE", "NEWEST", "POINT", "BACKUPS"]
    assert row.startswith(NAME)
    assert row.endswith("/000000  good")
    text = app.call("plan", NAME).stdout
    assert text.startswith(f"The backups of {NAME!r} are good.\nThe next backup")
    assert "Nothing was to be repaired." in app.call("repair", NAME).stdout


def test_there_is_nothing_yet(app: FakeApp) -> None:
    result = app.call("status")
    assert (result.exit_code, "no backup yet" in result.stdout) == (0, True)
    app.world.hypervisor.machines.clear()
    assert app.call("status").stdout == "There is no VM, and no backup of one.\n"
    assert app.call("status", NAME).exit_code == 10


def test_an_interrupted_backup_is_explained_and_repaired(app: FakeApp) -> None:
    app.world.backup()
    app.world.backup_killed_at("copy")
    for command in (("status",), ("status", NAME), ("plan", NAME)):
        text = app.call(*command).stdout
        assert f"The backups of {NAME!r} go on; what is wrong is repaired by itself." in text
        assert "  - a backup, 20" in text
        assert "      its job is still running in QEMU" in text
        assert "What is done about it:\n  1. undo what the interrupted backup" in text
        assert "Nothing is lost." in text
    assert app.call("status").exit_code == 3
    (data,) = app.json("status", code=3)
    assert (data["health"], data["lost"]) == ("repairable", [])
    assert [finding["code"] for finding in data["findings"]] == ["interrupted"]
    assert [step["kind"] for step in data["steps"]] == ["undo", "backup"]
    result = app.call("repair", NAME)
    assert result.exit_code == 0
    assert result.stdout.startswith("Done: undo what the interrupted backup")
    assert f"The backups of {NAME!r} are good." in result.stdout
    assert app.call("status").exit_code == 0
    data = app.json("repair", NAME)
    assert (data["done"], data["left"], data["after"]["health"]) == ([], [], "good")


def relink(app: FakeApp, *, spoilt: bool) -> None:
    """Give the image of the newest of two points another backing file, and a flipped bit."""
    app.world.backup()
    app.world.disk.write(0, b"x")
    app.world.backup()
    (path,) = app.world.path.glob("*/*/000001-inc/vda.qcow2")
    content = bytearray(path.read_bytes())
    at = content.index(b"../000000-full")
    content[at + 3 : at + 9] = b"000009"
    content[70000] ^= spoilt
    path.write_bytes(content)


def test_what_has_to_be_put_back_first_is_not_called_safe_before_that(app: FakeApp) -> None:
    relink(app, spoilt=False)
    for command in ("status", "plan"):
        text = app.call(command, NAME).stdout
        assert "Nothing is lost." not in text
        assert "Nothing is known to be lost. Whole only once the above is done: 1 restore" in text
    result = app.call("repair", NAME)
    assert result.exit_code == 0
    assert result.stdout.startswith("Done: put the header of ")
    assert "once the above" not in result.stdout


def test_what_was_tried_in_vain_is_not_called_done(app: FakeApp) -> None:
    relink(app, spoilt=True)
    result = app.call("repair", NAME)
    assert result.exit_code == 3
    assert "Done: " not in result.stdout
    assert result.stdout.startswith("Tried in vain, more is wrong: put the header of ")
    assert "Lost, as a whole: 1 restore point: " in result.stdout


def test_programs_are_told_what_was_tried_in_vain(app: FakeApp) -> None:
    relink(app, spoilt=True)
    data = app.json("repair", NAME, code=3)
    assert (data["done"], data["left"]) == ([], [])
    assert [step["kind"] for step in data["failed"]] == ["relink"]


def test_what_can_be_done_about_an_oddity_is_told(app: FakeApp) -> None:
    app.world.backup()
    (vm,) = (path.parent for path in app.world.path.glob("*/vm.json"))
    shutil.copytree(vm, vm.with_name("a copy"))
    (finding,) = app.json("status")[0]["findings"]
    assert finding["way_out"]
    assert f"      -> {finding['way_out']}\n" in app.call("plan", NAME).stdout


def test_a_lost_point_is_named_and_its_removal_waits_for_a_word(app: FakeApp) -> None:
    app.world.backup()
    app.world.disk.write(0, b"x")
    app.world.backup()
    lose(app, "*/*/000001-inc/vda.qcow2")
    text = app.call("status").stdout
    assert "/000000  repaired by the next backup, 1 lost" in text
    assert "/000001 is damaged" in text
    assert "      vda.qcow2: it is missing" in text
    assert "Lost, as a whole: 1 restore point: " in text
    assert "lost by it: what only an expert" in text
    assert "Only if you say so: vm-babysitter --standalone repair --remove-lost 'it'" in text
    assert "builds on restore point 000000" in app.call("plan", NAME).stdout


def test_all_is_lost(app: FakeApp) -> None:
    app.world.backup()
    lose(app, "*/*/000000-full/vda.qcow2")
    result = app.call("status")
    assert result.exit_code == 12
    assert "LOST: none can be restored as a whole" in result.stdout
    assert "is a full backup, in a new backup series" in app.call("plan", NAME).stdout
    assert app.call("repair", NAME).exit_code == 12


def test_what_cannot_be_read_is_neither_good_nor_lost_nor_none(app: FakeApp) -> None:
    app.world.backup()
    (document,) = app.world.path.glob("*/*/chain.json")
    document.write_text(document.read_text().replace('"format": 1', '"format": 2'))
    result = app.call("status")
    assert result.exit_code == 3
    assert "not known: they cannot be read now" in result.stdout
    assert "Install a newer version" in result.stdout
    assert "Whether anything is lost cannot be told now." in result.stdout
    for words in ("no backup yet", "Nothing is lost", "are good."):
        assert words not in result.stdout
    (data,) = app.json("status", code=3)
    assert (data["health"], data["newest"]) == ("unknown", None)


def test_a_damaged_file_beside_the_disks_is_no_lost_disk(app: FakeApp) -> None:
    app.world.backup()
    lose(app, "*/*/000000-full/domain.xml")
    result = app.call("status")
    assert result.exit_code == 3
    assert "is damaged, but all its disks are whole" in result.stdout
    assert "No disk is lost." in result.stdout
    assert "--remove-lost" not in result.stdout


def test_many_lost_points_are_not_all_listed(app: FakeApp) -> None:
    for number in range(12):
        app.world.disk.write(0, bytes([number + 1]))
        app.world.backup()
    lose(app, "*/*/000000-full/vda.qcow2")
    text = app.call("status").stdout
    assert "Lost, as a whole: 12 restore points: " in text
    assert "/000007 and 4 more." in text


def test_a_vm_that_is_gone_keeps_its_backups(app: FakeApp) -> None:
    app.world.backup()
    app.world.hypervisor.machines.clear()
    app.world.hypervisor.add("-another", FakeDisk())
    result = app.call("status")
    assert result.exit_code == 0
    rows = result.stdout.splitlines()[1:]
    assert [" gone " in row for row in rows] == [False, True]
    assert "libvirt has no such VM any more" in app.call("plan", NAME).stdout
    assert app.call("plan", NAME).exit_code == 10
    (data,) = app.json("status", NAME)
    assert data["state"] is None


def test_a_plan_that_is_hindered_says_how_the_backups_are_and_fails_as_before(
    app: FakeApp,
) -> None:
    app.world.backup()
    app.world.vm.state = PowerState.SHUTTING_DOWN
    result = app.call("plan", NAME)
    assert result.exit_code == 11
    assert "it is shutting down" in result.stdout
    assert app.json("plan", NAME, code=11)["error"]["code"] == "busy"
    app.world.vm.state = PowerState.OFF
    app.world.backup()
    text = app.call("plan", NAME).stdout
    assert f"The backups of {NAME!r} are good." in text
    assert "has nothing to do: it is off and has not changed" in text
    data = app.json("plan", NAME)
    assert (data["level"], data["diagnosis"]["health"]) == (None, "good")
    assert data["unchanged_since"] == data["diagnosis"]["unchanged_since"]


def test_what_keeps_the_next_backup_waiting_is_told_though_it_is_no_fault(app: FakeApp) -> None:
    app.world.backup()
    app.world.vm.foreign_job = ActiveJob(JobKind.BACKUP, "", "/run/other.socket")
    result = app.call("status")
    assert (result.exit_code, "a backup job" in result.stdout) == (0, True)


def test_a_series_of_which_nothing_can_be_read_is_no_lack_of_backups(app: FakeApp) -> None:
    app.world.backup()
    (folder,) = app.world.path.glob("*/20*Z")
    for document in (folder / "chain.json", folder / "000000-full" / "point.json"):
        document.write_text("{")
    result = app.call("status")
    assert (result.exit_code, "LOST" in result.stdout) == (12, True)
    assert "is a backup series of which nothing can be read; it is left alone" in result.stdout
    assert "Which restore points are lost cannot be told." in result.stdout
    app.world.backup()
    assert app.call("status").exit_code == 0
    assert (folder / "000000-full" / "vda.qcow2").exists()
