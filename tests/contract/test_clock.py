"""Time and chance, of the system and of the tests."""

import re
import uuid
from datetime import UTC, timedelta

import pytest

from tests.support.fakes.clock import FakeClock
from vm_babysitter.adapters.clock import SystemClock
from vm_babysitter.domain.point import chain8
from vm_babysitter.ports import Clock


@pytest.fixture(params=[FakeClock, SystemClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


def test_time_is_utc_and_does_not_run_backwards(clock: Clock) -> None:
    first, second = clock.now(), clock.now()
    assert first.tzinfo is UTC
    assert timedelta(0) <= second - first < timedelta(minutes=1)


def test_ids_are_uuids_whose_beginnings_differ(clock: Clock) -> None:
    ids = [clock.new_id() for _ in range(50)]
    assert all(str(uuid.UUID(id_)) == id_ and uuid.UUID(id_).version == 4 for id_ in ids)
    assert len({chain8(id_) for id_ in ids}) == 50


def test_nonces_are_six_hex_digits_and_differ(clock: Clock) -> None:
    nonces = {clock.new_nonce() for _ in range(20)}
    assert len(nonces) >= 19  # two alike among twenty: once in 90,000 runs
    assert all(re.fullmatch(r"[0-9a-f]{6}", nonce) for nonce in nonces)


def test_fake_time_passes_when_told() -> None:
    clock = FakeClock()
    before = clock.now()
    clock.advance(1.5)
    assert clock.now() - before == timedelta(seconds=1.5)
