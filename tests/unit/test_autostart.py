"""The start of VMs in order, with everything but the order made up."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.support.fakes.clock import FakeClock
from tests.support.fakes.hypervisor import FakeHypervisor, FakeVm
from tests.support.served import eventually
from vm_babysitter.adapters.autostart_marks import MarkFiles
from vm_babysitter.domain.autostart import Condition, Entry, Mark, Otherwise, parse_condition
from vm_babysitter.domain.errors import (
    HypervisorError,
    HypervisorUnreachable,
    InvalidInput,
    SystemFailed,
)
from vm_babysitter.domain.event import Event, Severity
from vm_babysitter.domain.vm import PowerState, Vm
from vm_babysitter.engine.autostart import Autostart, Progress, RunState
from vm_babysitter.engine.autostart_run import AutostartTools
from vm_babysitter.ports import Hypervisor

AWAY = HypervisorUnreachable("fake:///system", "nobody listens")
REFUSED = HypervisorError("Starting the VM", 38, "cannot access storage file")


class Endless(MarkFiles):
    """Cannot note the end of a run."""

    def finish(self, run: str) -> None:
        raise SystemFailed(f"no space left for {run}")


class Ended(BaseException):
    """The daemon is killed: no line of code after this one is run."""


class Starts(FakeHypervisor):
    """Notes who was started when; may refuse some starts, or be killed at one."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock
        self.began = clock.now()
        self.begun: list[tuple[str, int]] = []
        self.refuse: dict[str, int] = {}
        """How many starts of a VM fail."""
        self.kill_at: tuple[str, str] | None = None
        self.disks_answer = threading.Event()
        self.disks_answer.set()
        self.hangs = ""
        """Whose start takes as long as the test."""
        self.over = threading.Event()
        self.answers = threading.Event()
        self.answers.set()

    def vm(self, name: str) -> Vm:
        self.disks_answer.wait(30)
        return super().vm(name)

    def outlines(self) -> tuple[Vm, ...]:
        self.answers.wait(30)
        return super().outlines()

    def start(self, uuid: str) -> None:
        name = self.machines[uuid].name if uuid in self.machines else uuid
        if self.kill_at == (name, "before"):
            raise Ended
        if self.hangs == name:
            self.over.wait(30)
        if self.refuse.get(name, 0):
            self.refuse[name] -= 1
            raise REFUSED
        self.begun.append((name, self.seconds()))
        super().start(uuid)
        if self.kill_at == (name, "after"):
            raise Ended

    def seconds(self) -> int:
        return int((self.clock.now() - self.began).total_seconds())

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.begun]


@dataclass
class House:
    """A host with VMs that are off, and the daemon's part that starts them."""

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    there: set[str] = field(default_factory=set)
    """What is waited for and is there."""
    events: list[Event] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    held_reason: str = ""
    service: str = "1"
    away: int = 0
    """How many tries to connect fail from now on."""
    passing: list[Callable[[], None]] = field(default_factory=list)
    """What happens at each look from now on, one after the other."""

    def __post_init__(self) -> None:
        self.host = Starts(self.clock)
        self.marks = MarkFiles(self.folder)
        self.boot()

    def boot(self) -> None:
        """Start the daemon's part anew."""
        self.tools = AutostartTools(
            self.marks, self.clock, self._connect, self, lambda: self.entries, self.events.append
        )
        self.autostart = Autostart(self.tools, self, self._pause)

    def add(
        self,
        name: str,
        *waits: str,
        delay: float = 0,
        timeout: float = 300,
        state: PowerState = PowerState.OFF,
    ) -> FakeVm:
        vm = self.host.add(name)
        vm.state = state
        conditions = tuple(map(parse_condition, waits))
        self.entries.append(Entry(name, name, delay, conditions, timeout))
        return vm

    def run(self, name: str | None = "boot-1") -> Progress:
        """Begin a run, and wait for its end."""
        begun = self.autostart.begin(name)
        self.wait()
        return self.autostart.progress_of(begun.run)

    def wait(self) -> None:
        thread = self.autostart._thread
        if thread is not None:
            thread.join(30)
            assert not thread.is_alive()

    def unmet(self, condition: Condition) -> str:
        return "" if str(condition) in self.there else f"{condition.target} is silent"

    def stamp(self) -> str:
        return self.service

    def held(self, *, by_user: bool) -> str:
        return "" if by_user else self.held_reason

    def marked(self, progress: Progress) -> dict[str, str]:
        names = {vm.uuid: vm.name for vm in self.host.machines.values()}
        return {names.get(uuid, uuid): str(mark) for uuid, mark in progress.marks.items()}

    @contextmanager
    def _connect(self) -> Iterator[Hypervisor]:
        if self.away:
            self.away -= 1
            raise AWAY
        yield self.host

    def _pause(self, ended: threading.Event) -> Callable[[float], bool]:
        def pause(seconds: float) -> bool:
            if seconds:
                if self.passing:
                    self.passing.pop(0)()
                self.clock.advance(seconds)
            return ended.is_set()

        return pause


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "autostart")


def test_vms_come_up_in_order_each_after_its_delay(house: House) -> None:
    for name, delay in [("router", 0), ("dns", 10), ("mail", 5)]:
        house.add(name, delay=delay)
    done = house.run()
    assert house.host.begun == [("router", 0), ("dns", 10), ("mail", 15)]
    assert done.state is RunState.FINISHED
    assert house.marked(done) == {"router": "done", "dns": "done", "mail": "done"}
    assert house.events == []


def test_fifty_vms_come_up_in_order(house: House) -> None:
    names = [f'My "VM" & co {number}' for number in range(25)] + [f"-x{n}" for n in range(25)]
    for name in names:
        house.add(name, delay=1)
    house.run()
    assert house.host.order == names


def test_a_vm_waits_for_all_that_it_is_to_wait_for(house: House) -> None:
    house.add("router")
    house.add("mail", "vm:router", "agent:router", "tcp:nas:445", "path:/mnt/disks/usb")
    router = next(iter(house.host.machines.values()))
    house.passing = [
        lambda: setattr(router, "no_agent", ""),
        lambda: house.there.add("tcp:nas:445"),
        lambda: house.there.add("path:/mnt/disks/usb"),
    ]
    house.run()
    assert house.host.begun == [("router", 0), ("mail", 6)]


def test_what_does_not_come_in_time_is_done_without_or_the_vm_is_skipped(house: House) -> None:
    house.add("mail", "tcp:nas:445", timeout=60)
    house.add("web", "tcp:nas:445", timeout=60)
    house.add("last")
    house.entries[1] = replace(house.entries[1], otherwise=Otherwise.SKIP)
    done = house.run()
    assert house.host.begun == [("mail", 60), ("last", 120)]
    assert house.marked(done) == {"mail": "done", "web": "skipped", "last": "done"}
    (event,) = house.events
    assert (event.kind, event.severity) == ("autostart-skipped", Severity.WARNING)
    assert (event.subject, event.vm_name) == ("VM web was not started", "web")
    assert "nas is silent" in event.text


def test_a_start_that_fails_twice_and_then_works_is_told_to_nobody(house: House) -> None:
    house.add("router")
    house.add("mail")
    house.host.refuse = {"router": 2}
    house.run()
    assert house.host.begun == [("router", 10), ("mail", 10)]
    assert house.events == []


def test_a_vm_that_does_not_start_is_told_once_and_the_others_go_on(house: House) -> None:
    house.add("router")
    house.add("mail")
    house.host.refuse = {"router": 99}
    done = house.run()
    assert house.marked(done) == {"router": "failed", "mail": "done"}
    (event,) = house.events
    assert (event.kind, event.severity) == ("autostart-failed", Severity.ALERT)
    assert event.subject == "VM router did not start"
    assert "cannot access storage file" in event.text
    assert "3 times" in event.text
    assert house.host.refuse["router"] == 96


def test_a_vm_that_libvirt_does_not_have_is_told_once(house: House) -> None:
    house.entries.append(Entry("gone", "gone"))
    house.add("mail")
    house.run()
    assert [event.subject for event in house.events] == ["VM gone did not start"]
    assert "no such VM" in house.events[0].text
    assert "`vm-babysitter autostart set --remove gone`" in house.events[0].text
    assert house.host.order == ["mail"]


def test_a_vm_that_runs_already_is_left_alone(house: House) -> None:
    house.add("router", state=PowerState.RUNNING)
    house.add("mail", state=PowerState.PAUSED)
    assert house.marked(house.run()) == {"router": "done", "mail": "done"}
    assert house.host.order == []


def test_a_vm_that_a_user_switches_off_meanwhile_stays_off(house: House) -> None:
    house.add("first", delay=20)
    early = house.add("early")
    house.passing = [
        lambda: setattr(early, "state", PowerState.RUNNING),  # the user starts it
        lambda: None,
        lambda: None,
        lambda: setattr(early, "state", PowerState.OFF),  # and switches it off again
    ]
    done = house.run()
    assert house.host.order == ["first"]
    assert house.marked(done) == {"first": "done", "early": "stopped"}
    assert house.events == []


def test_a_vm_that_was_started_and_is_switched_off_then_is_not_started_again(house: House) -> None:
    first = house.add("first")
    house.add("second", delay=20)
    house.passing = [lambda: None, lambda: None, lambda: setattr(first, "state", PowerState.OFF)]
    done = house.run()
    assert house.host.order == ["first", "second"]
    assert house.marked(done)["first"] == "stopped"


def test_a_vm_taken_off_the_list_meanwhile_is_not_started_nor_one_that_is_added(
    house: House,
) -> None:
    for name in ("first", "second", "third"):
        house.add(name, delay=10)
    late = Entry("late", "late")
    house.host.add("late").state = PowerState.OFF
    changed = [house.entries[0], house.entries[2], late]
    house.passing = [lambda: setattr(house, "entries", changed)]
    house.run()
    assert house.host.order == ["first", "third"]


def test_an_array_start_that_is_told_twice_is_one_run(house: House) -> None:
    first = house.add("first")
    house.run()
    first.state = PowerState.OFF
    assert house.run().state is RunState.FINISHED
    house.boot()
    assert house.run().state is RunState.FINISHED
    assert house.host.order == ["first"]
    house.run("boot-2")
    assert house.host.order == ["first", "first"]


def test_a_user_can_have_it_done_now(house: House) -> None:
    first = house.add("first")
    house.held_reason = "A device could not be prepared."
    done = house.run(None)
    assert done.run.startswith("user-")
    first.state = PowerState.OFF
    house.run(None)
    assert house.host.order == ["first", "first"]


def test_asked_while_a_run_is_under_way_a_user_gets_that_one(house: House) -> None:
    asked: list[Progress] = []
    house.add("first", delay=4)
    house.passing = [lambda: asked.append(house.autostart.begin(None))]
    house.run()
    assert [(each.run, each.state) for each in asked] == [("boot-1", RunState.RUNNING)]


@pytest.mark.parametrize("entries", [0, 1])
def test_where_unraid_holds_vms_back_none_is_started_and_that_is_told_once(
    house: House, entries: int
) -> None:
    for number in range(entries):
        house.add(f"vm{number}")
    house.held_reason = "A device could not be prepared (VFIO)."
    for _ in range(2):
        progress = house.run()
        assert (progress.state, progress.held) == (RunState.HELD, house.held_reason)
        house.boot()
        house.held_reason = house.held_reason  # as long as libvirtd runs
    assert house.host.order == []
    assert [event.kind for event in house.events] == ["autostart-held"] * entries


def test_libvirt_may_be_away_at_first_and_in_between(house: House) -> None:
    house.add("first")
    house.add("second", delay=4)
    house.away = 3
    house.host.kill_at = None

    def lose() -> None:
        house.host.fail["outlines"] = AWAY
        house.away = 2
        house.passing.append(house.host.fail.clear)

    house.passing = [*[lambda: None] * 3, lose]
    assert house.run().state is RunState.FINISHED
    assert house.host.order == ["first", "second"]
    assert house.events == []


def test_while_libvirt_may_belong_to_another_run_soon_nothing_is_started(house: House) -> None:
    """The VM service was restarted: what the old run would start is held in the new one."""
    house.add("first", delay=4)

    def restart() -> None:
        house.host.fail["outlines"] = AWAY
        house.passing.append(house.host.fail.clear)
        house.passing.append(held)

    def held() -> None:
        house.held_reason = "A device could not be prepared (VFIO)."
        assert house.autostart.begin("boot-2").state is RunState.HELD

    house.passing = [restart]
    house.autostart.begin("boot-1")
    house.wait()
    assert house.host.order == []
    assert house.autostart.progress_of("boot-1").state is RunState.FINISHED


def test_a_restarted_libvirtd_begins_no_run(house: House) -> None:
    first = house.add("first")
    house.run()
    first.state = PowerState.OFF
    house.service = "2"
    house.boot()
    house.autostart.start()
    house.wait()
    assert house.host.order == ["first"]


# -- the daemon is killed in the middle ------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("victim", ["first", "second", "third"])
def test_killed_at_a_start_the_next_daemon_goes_on_from_there(
    house: House, victim: str, moment: str
) -> None:
    for name in ("first", "second", "third"):
        house.add(name, "vm:first", delay=5) if name == "second" else house.add(name)
    house.host.kill_at = (victim, moment)
    house.autostart.begin("boot-1")
    house.wait()
    house.host.kill_at = None
    house.boot()
    house.autostart.start()
    house.wait()
    assert house.host.order == ["first", "second", "third"]
    assert house.autostart.progress_of("boot-1").state is RunState.FINISHED
    assert house.events == []


@pytest.mark.parametrize("mark", [None, *Mark])
def test_what_another_has_left_is_gone_on_with(house: House, mark: Mark | None) -> None:
    first = house.add("first")
    house.add("second")
    house.marks.open("boot-1", "1")
    if mark is not None:
        house.marks.mark("boot-1", first.uuid, mark)
    house.autostart.start()
    house.wait()
    again = mark in {None, Mark.BEGUN}
    assert house.host.order == (["first", "second"] if again else ["second"])


def test_a_delay_goes_on_where_the_daemon_was_killed(house: House) -> None:
    house.add("first")
    house.add("second", delay=60)
    house.marks.open("boot-1", "1")
    house.marks.mark("boot-1", house.host.vms()[0].uuid, Mark.DONE)
    record = house.marks.latest()
    assert record is not None
    done = record.marked[house.host.vms()[0].uuid]
    house.clock.advance((done - house.clock.now()).total_seconds() + 45)
    begun = house.clock.now()
    house.autostart.start()
    house.wait()
    assert house.host.order == ["second"]
    assert 15 <= (house.clock.now() - begun).total_seconds() <= 17


def test_a_run_of_another_start_of_the_vm_service_is_not_gone_on_with(house: House) -> None:
    house.add("first")
    house.marks.open("boot-1", "of another libvirtd")
    house.autostart.start()
    house.wait()
    assert house.host.order == []
    house.run("boot-1")  # unless whoever began it says so
    assert house.host.order == ["first"]


def test_stopped_in_the_middle_it_ends_at_once(house: House) -> None:
    house.add("first")
    house.add("second", delay=600)

    def end() -> None:
        house.autostart._ended.set()

    house.passing = [end]
    house.autostart.begin("boot-1")
    house.wait()
    assert house.autostart.stop(5)
    assert house.host.order == ["first"]
    house.boot()
    house.autostart.start()
    house.wait()
    assert house.host.order == ["first", "second"]


# -- what is broken besides ------------------------------------------------------------------------


def test_where_no_mark_can_be_kept_vms_start_all_the_same_and_once(house: House) -> None:
    house.folder.write_text("no folder")
    first = house.add("first")
    house.add("second")
    house.run()
    assert house.host.order == ["first", "second"]
    first.state = PowerState.OFF
    house.run()
    assert house.host.order == ["first", "second"]
    with pytest.raises(SystemFailed):
        house.marks.open("boot-1", "1")


def test_where_the_end_cannot_be_noted_it_is_the_end_all_the_same(house: House) -> None:
    first = house.add("first")
    house.marks = Endless(house.folder)
    house.boot()
    house.run()
    first.state = PowerState.OFF
    house.marks.mark("boot-1", first.uuid, Mark.BEGUN)
    house.run()
    assert house.host.order == ["first"]


def test_a_clock_that_is_set_by_years_ends_no_wait(house: House) -> None:
    house.add("first", delay=100)
    house.passing = [lambda: house.clock.advance(9e8)]
    house.run()
    ((_, at),) = house.host.begun
    assert at - 9e8 > 60


def test_disks_that_do_not_answer_hold_up_nothing(house: House) -> None:
    house.host.disks_answer.clear()
    house.tools = replace(house.tools, look_seconds=0.05)
    house.autostart = Autostart(house.tools, house, house._pause)
    for number in range(3):
        house.add(f"vm{number}")
    house.run()
    house.host.disks_answer.set()
    assert house.host.order == ["vm0", "vm1", "vm2"]


def test_a_start_that_hangs_does_not_keep_the_vms_after_it(house: House) -> None:
    house.tools = replace(house.tools, start_seconds=0.05)
    house.autostart = Autostart(house.tools, house, house._pause)
    house.add("gpu")
    house.add("router")
    house.host.hangs = "gpu"
    done = house.run()
    assert house.host.order == ["router"]
    assert house.marked(done) == {"gpu": "failed", "router": "done"}
    (event,) = house.events
    assert (event.subject, event.severity) == ("VM gpu did not start", Severity.ALERT)
    assert "has been starting it for 0.05 seconds" in event.text
    house.host.over.set()


def test_while_libvirt_does_not_answer_the_shell_script_may_go_on(house: House) -> None:
    house.tools = replace(house.tools, silence_seconds=0.05)
    house.autostart = Autostart(house.tools, house, house._pause)
    house.add("router")
    house.host.answers.clear()
    assert house.autostart.begin("boot-1").state is RunState.RUNNING
    eventually(lambda: house.autostart.progress_of("boot-1").state is RunState.BROKEN)
    assert house.autostart.begin("boot-1").state is RunState.BROKEN
    house.host.answers.set()
    house.wait()
    assert house.autostart.progress_of("boot-1").state is RunState.FINISHED
    assert house.host.order == ["router"]


def test_a_bug_does_not_keep_vms_from_being_started(house: House) -> None:
    house.add("first")
    house.host.fail["outlines"] = ZeroDivisionError()
    house.passing = [house.host.fail.clear]
    house.run()
    assert house.host.order == ["first"]


def test_a_bug_that_stays_hands_the_run_to_the_shell_script(house: House) -> None:
    house.add("first")
    house.host.fail["outlines"] = ZeroDivisionError()
    house.autostart.begin("boot-1")
    house.wait()
    eventually(lambda: house.autostart.progress_of("boot-1").state is RunState.BROKEN)
    for _ in range(3):  # the script asks again and again
        assert house.autostart.begin("boot-1").state is RunState.BROKEN


def test_a_name_of_a_run_that_leads_elsewhere_is_refused(house: House) -> None:
    with pytest.raises(InvalidInput):
        house.autostart.begin("../etc")


def test_an_empty_list_is_a_run_that_is_finished(house: House) -> None:
    assert house.run().state is RunState.FINISHED
    assert house.events == []
