"""The autostart as a part of the daemon: the copy of the list, and what is answered."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_stage import DaemonStage
from tests.support.fakes.feed import GONE
from tests.support.jobs import eventually
from tests.support.settings import write
from vm_babysitter.domain.errors import BabysitterError, Busy, InvalidInput, VmNotFound
from vm_babysitter.domain.vm import PowerState


@pytest.fixture
def stage(ram_path: Path) -> Iterator[DaemonStage]:
    made = DaemonStage(ram_path)
    yield made
    made.libvirt.answers.set()
    made.daemon.stop(10.0)


def listing(stage: DaemonStage, *vms: dict[str, Any], taken: tuple[str, ...] = ()) -> None:
    write(stage.file, autostart={"vms": list(vms), "taken": list(taken)})
    stage.configuration.refresh()


def copied(stage: DaemonStage) -> list[str]:
    path = stage.path / "autostart.tsv"
    return path.read_text().splitlines()[1:] if path.exists() else []


def test_the_copy_has_the_vms_that_there_are_by_uuid_and_name(stage: DaemonStage) -> None:
    stage.start()
    unknown = "e0000000-1111-4222-8333-444444444444"
    listing(stage, {"vm": "gone"}, {"vm": "house", "delay": 7}, {"vm": unknown.upper()})
    wanted = [f"{stage.uuid}\t7\thouse"]
    eventually(lambda: copied(stage)[:1] == wanted, lambda: copied(stage))


def test_settings_that_cannot_be_read_leave_the_copy_as_it_is(stage: DaemonStage) -> None:
    stage.start()
    listing(stage, {"vm": "house"})
    eventually(lambda: copied(stage), lambda: copied(stage))
    before = copied(stage)
    stage.file.write_text("{")
    stage.configuration.refresh()
    stage.autostart._copy()
    assert copied(stage) == before


def test_while_it_is_not_known_which_vms_there_are_the_copy_stays(stage: DaemonStage) -> None:
    (stage.path / "autostart.tsv").write_text("# vm-babysitter autostart 1\nkept\n")
    stage.libvirt.absent = GONE
    listing(stage, {"vm": "house"})
    stage.daemon.start()
    stage.autostart._copy()
    assert copied(stage) == ["kept"]


def test_the_list_says_who_starts_a_vm_too(stage: DaemonStage) -> None:
    stage.start()
    stage.world.hypervisor.set_own_autostart(stage.uuid, on=True)
    listing(stage, {"vm": "gone"}, {"vm": stage.uuid.upper()})
    gone, house = stage.services.autostart().vms
    assert (gone.vm, gone.uuid, gone.own, gone.note) == (
        "gone",
        "",
        None,
        "libvirt has no such VM.",
    )
    assert (house.vm, house.uuid, house.own, house.taken) == ("house", stage.uuid, True, False)
    assert "comes up at once" in house.note
    house = stage.services.take_over_autostart("house", take=True).vms[1]
    assert (house.own, house.taken, house.note) == (False, True, "")
    stage.world.hypervisor.set_own_autostart(stage.uuid, on=True)
    house = stage.services.autostart().vms[1]
    assert "turned its own Autostart switch on again" in house.note
    house = stage.services.take_over_autostart("house", take=False).vms[1]
    assert (house.own, house.taken) == (True, False)
    with pytest.raises(VmNotFound):
        stage.services.take_over_autostart("gone", take=True)
    listing(stage)
    with pytest.raises(InvalidInput):
        stage.services.take_over_autostart("house", take=True)


def test_without_libvirt_the_list_is_there_all_the_same(stage: DaemonStage) -> None:
    listing(stage, {"vm": "house"})
    stage.libvirt.absent = GONE
    stage.daemon.start()
    eventually(lambda: "not there" in stage.daemon.watch.now().trouble)
    (house,) = stage.services.autostart().vms
    assert (house.vm, house.own) == ("house", None)


def test_a_run_starts_the_vm_and_says_so(stage: DaemonStage) -> None:
    stage.start()
    stage.world.vm.state = PowerState.OFF
    listing(stage, {"vm": "house"})
    assert stage.services.autostart().run is None
    assert stage.services.begin_autostart("boot-1").run == "boot-1"

    def ended() -> bool:
        run = stage.services.autostart().run
        return run is not None and run.state == "finished"

    eventually(ended, stage.services.autostart)
    run = stage.services.autostart().run
    assert run is not None
    assert [(one.vm, one.mark) for one in run.vms] == [("house", "done")]
    assert stage.world.vm.state is PowerState.RUNNING


def test_before_the_list_is_known_no_run_begins_so_that_the_script_does_it(
    stage: DaemonStage,
) -> None:
    with pytest.raises(Busy):
        stage.services.begin_autostart("boot-1")
    stage.file.write_text("{")
    stage.daemon.start()
    with pytest.raises(BabysitterError):
        stage.services.begin_autostart("boot-1")
    write(stage.file, autostart={"vms": [{"vm": "house"}]})
    stage.configuration.refresh()
    stage.world.vm.state = PowerState.OFF
    stage.services.begin_autostart("boot-1")
    eventually(lambda: stage.world.vm.state is PowerState.RUNNING)


def test_what_left_the_list_gets_its_own_switch_back(stage: DaemonStage) -> None:
    stage.start()
    listing(stage, taken=(stage.uuid,))
    eventually(lambda: stage.world.hypervisor.own_autostart(stage.uuid))
    eventually(lambda: stage.configuration.settings.autostart.taken == ())
