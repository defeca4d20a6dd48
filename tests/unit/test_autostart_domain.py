"""The start of VMs in order, as a decision: what is done next."""

from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_babysitter.domain.autostart import (
    AGAIN_SECONDS,
    Awaited,
    Close,
    Condition,
    Entry,
    Mark,
    Otherwise,
    Probe,
    Seen,
    Start,
    Step,
    Turn,
    Wait,
    next_step,
    next_turn,
    parse_condition,
)
from vm_babysitter.domain.errors import InvalidInput

TCP = Condition(Awaited.TCP, "192.168.1.1", 53)
VM = Entry("u", "vm", delay=10, wait_for=(TCP,), timeout=60)
AT_ITS_TURN = Turn(VM, waited=10)
NO_ANSWER = ("nothing answers at 192.168.1.1:53",)


# -- what people write ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("vm:router", Condition(Awaited.VM, "router")),
        ('vm:My "VM": & co', Condition(Awaited.VM, 'My "VM": & co')),
        ("agent:-x", Condition(Awaited.AGENT, "-x")),
        ("tcp:nas.local:22", Condition(Awaited.TCP, "nas.local", 22)),
        ("tcp:[fe80::1%br0]:65535", Condition(Awaited.TCP, "[fe80::1%br0]", 65535)),
        ("path:/mnt/remotes/NAS share", Condition(Awaited.PATH, "/mnt/remotes/NAS share")),
    ],
)
def test_conditions_are_read_and_written_the_same(text: str, condition: Condition) -> None:
    assert parse_condition(text) == condition
    assert str(condition) == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must be vm:NAME"),
        ("router", "must be vm:NAME"),
        ("ping:router", "must be vm:NAME"),
        ("vm:", "must be vm:NAME"),
        ("vm:a\nb", "must be vm:NAME"),
        ("tcp:nas", "must name a host and a port"),
        ("tcp:nas:", "must end with a port"),
        ("tcp:nas:0", "must end with a port"),
        ("tcp:nas:65536", "must end with a port"),
        ("tcp:nas:²", "must end with a port"),
        ("tcp:nas;reboot:22", "must name a host and a port"),
        ("tcp:fe80::1:22", "must name a host and a port"),
        ("path:mnt/x", "must be the whole path"),
        ("path:/mnt/../etc", "must be the whole path"),
        ("path:/" + "ä" * 600, "must be the whole path"),
    ],
)
def test_a_wrong_condition_is_named_with_its_rule_and_a_way_out(text: str, rule: str) -> None:
    with pytest.raises(InvalidInput) as wrong:
        parse_condition(text)
    assert (wrong.value.field, wrong.value.value) == ("wait_for", text)
    assert wrong.value.rule.startswith(rule)
    assert "For example" in wrong.value.hint


@given(st.text())
def test_no_text_makes_reading_fail_in_another_way(text: str) -> None:
    with suppress(InvalidInput):
        assert str(parse_condition(text))


# -- one step -------------------------------------------------------------------------------------


def test_the_delay_comes_first_then_what_it_waits_for_then_the_start() -> None:
    assert next_step(replace(AT_ITS_TURN, waited=4), Seen.OFF, None) == Wait(6)
    assert next_step(AT_ITS_TURN, Seen.OFF, None) == Probe((TCP,))
    assert next_step(AT_ITS_TURN, Seen.OFF, NO_ANSWER) == Wait(60)
    assert next_step(AT_ITS_TURN, Seen.OFF, ()) == Start()


def test_what_does_not_come_in_time_is_not_waited_for_any_longer() -> None:
    late = replace(AT_ITS_TURN, waited=70)
    assert next_step(late, Seen.OFF, NO_ANSWER) == Start(NO_ANSWER)
    skipped = replace(late, entry=replace(VM, otherwise=Otherwise.SKIP))
    assert next_step(skipped, Seen.OFF, NO_ANSWER) == Close(Mark.SKIPPED, NO_ANSWER[0])


def test_a_start_that_fails_is_tried_again_so_often_and_no_more() -> None:
    turn = replace(AT_ITS_TURN, mark=Mark.BEGUN, failures=("no image",), since_failure=2)
    assert next_step(turn, Seen.OFF, None) == Wait(AGAIN_SECONDS - 2)
    turn = replace(turn, since_failure=AGAIN_SECONDS)
    assert next_step(turn, Seen.OFF, None) == Start()
    turn = replace(turn, failures=("a", "b", "no image"))
    assert next_step(turn, Seen.OFF, None) == Close(Mark.FAILED, "no image")


def test_a_start_at_which_somebody_died_is_done_again_at_once() -> None:
    assert next_step(Turn(VM, mark=Mark.BEGUN), Seen.OFF, None) == Start()


def test_a_vm_that_runs_is_done_and_one_that_is_gone_has_failed() -> None:
    assert next_step(Turn(VM), Seen.ON, None) == Close(Mark.DONE)
    assert next_step(Turn(VM), Seen.GONE, None) == Close(Mark.FAILED, "libvirt has no such VM")


@given(
    st.builds(
        Turn,
        st.just(VM),
        st.just(Mark.STOPPED),
        st.floats(0, 1e4),
        st.lists(st.text(), max_size=3).map(tuple),
        st.floats(0, 10),
    ),
    st.sampled_from(Seen),
    st.sampled_from([None, (), NO_ANSWER]),
)
def test_a_vm_that_a_user_stopped_is_never_started(
    turn: Turn, seen: Seen, unmet: tuple[str, ...] | None
) -> None:
    assert next_step(turn, seen, unmet) == Close(Mark.STOPPED)


# -- a whole run ----------------------------------------------------------------------------------

ENTRIES = st.lists(
    st.builds(
        Entry,
        st.integers(0, 30).map(str),
        st.just("vm"),
        delay=st.floats(0, 100),
        wait_for=st.sampled_from([(), (TCP,)]),
        timeout=st.floats(0, 100),
        otherwise=st.sampled_from(Otherwise),
        tries=st.integers(1, 10),
    ),
    max_size=12,
    unique_by=lambda entry: entry.uuid,
)


@dataclass
class Run:
    """Plays a run; whatever is not decided comes from hypothesis."""

    entries: list[Entry]
    data: st.DataObject
    marks: dict[str, Mark] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    turn: Turn | None = None

    def play(self) -> None:
        while (entry := next_turn(self.entries, self.marks)) is not None:
            self._user_stops_one()
            if self.turn is None or self.turn.entry is not entry:
                self.turn = Turn(entry)
            self.turn = replace(self.turn, mark=self.marks.get(entry.uuid))
            unmet = self.data.draw(st.sampled_from([(), NO_ANSWER]))
            self._do(self.turn, next_step(self.turn, Seen.OFF, unmet))

    def _user_stops_one(self) -> None:
        if self.data.draw(st.integers(0, 9)) == 0:
            uuid = self.data.draw(st.sampled_from(self.entries)).uuid
            self.marks.setdefault(uuid, Mark.STOPPED)

    def _do(self, turn: Turn, step: Step) -> None:
        uuid = turn.entry.uuid
        match step:
            case Start() if self.data.draw(st.booleans()):
                self.started.append(uuid)
                self.marks[uuid] = Mark.DONE
            case Start():
                self.marks[uuid] = Mark.BEGUN
                self.turn = replace(turn, failures=(*turn.failures, "no"), since_failure=0)
            case Wait(seconds):
                assert seconds > 0
                waited, since = turn.waited + seconds, turn.since_failure + seconds
                self.turn = replace(turn, waited=waited, since_failure=since)
            case Close(mark):
                self.marks[uuid] = mark


@given(ENTRIES, st.data())
def test_the_order_is_kept_and_no_vm_is_started_twice_or_against_a_users_will(
    entries: list[Entry], data: st.DataObject
) -> None:
    run = Run(entries, data)
    run.play()
    assert next_turn(entries, run.marks) is None
    assert run.started == [e.uuid for e in entries if run.marks[e.uuid] is Mark.DONE]
