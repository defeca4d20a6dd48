"""Names in the backup folder: legal everywhere, told apart, and read back."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.points import VM_UUID
from vm_babysitter.adapters.store import layout
from vm_babysitter.domain.point import point_directory

FORBIDDEN = set('<>:"/\\|?*') | {chr(n) for n in range(32)} | {"\x7f"}
RESERVED = {
    *("con", "prn", "aux", "nul"),
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
}
TAIL = "-5eed5eed"
AWKWARD = ["", ".", "..", " ", "-rf", "con", "NUL.txt", "a/b", "猫" * 90, "x" * 79 + ". .y", "a\0"]

names = st.text() | st.sampled_from(AWKWARD) | st.from_regex(r"[-./ ]*(con|lpt1)?[. ]*[a-z]?")


@given(names)
@example("x" * 78 + " .abc")
@example("con .x")
def test_a_vms_directory_is_legal_on_linux_and_on_smb(name: str) -> None:
    found = layout.vm_directory(name, VM_UUID)
    assert found.endswith(TAIL)
    assert not FORBIDDEN & set(found)
    assert len(found.encode()) <= 80 + 1 + len(TAIL)
    assert found[0] not in "-. "
    assert found[-1] not in ". "
    stem = found.removesuffix(TAIL)
    assert stem
    assert stem.split(".")[0].rstrip().lower() not in RESERVED


@given(names, st.uuids(), st.uuids())
def test_vms_of_one_name_are_told_apart_by_the_uuid(name: str, one: object, other: object) -> None:
    same = str(one)[:8] == str(other)[:8]
    found = {layout.vm_directory(name, str(uuid)) for uuid in (one, other)}
    assert len(found) == (1 if same else 2)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Windows 11", "Windows 11"),
        ('it\'s a "VM": 1/2?', "it's a _VM__ 1_2_"),
        ("猫", "猫"),
        (" . ", "vm"),
        ("-n", "_-n"),
        ("AUX", "_AUX"),
        ("a" * 100, "a" * 80),
        ("猫" * 30, "猫" * 26),
        ("a\tb\x7f", "a_b_"),
    ],
)
def test_a_name_stays_readable(name: str, stem: str) -> None:
    assert layout.vm_directory(name, VM_UUID) == stem + TAIL


@given(
    st.integers(0, 250_000_000_000),
    st.integers(-14, 14),
)
def test_a_chains_directory_is_its_moment_in_utc_and_sorts_by_time(
    seconds: int, hours: int
) -> None:
    local = datetime.fromtimestamp(seconds, timezone(timedelta(hours=hours)))
    found = layout.chain_directory(local)
    assert layout.CHAIN_PATTERN.fullmatch(found)
    parsed = datetime.strptime(found, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert parsed == local
    assert layout.chain_directory(local + timedelta(seconds=1)) > found


def test_the_names_are_the_documented_ones() -> None:
    assert layout.chain_directory(datetime(2026, 11, 22, 2, 15, tzinfo=UTC)) == "20261122T021500Z"
    assert layout.attempt_file("000002-inc") == "000002-inc.attempt.json"
    assert layout.target_file("vda", "qcow2") == "vda.qcow2"
    assert layout.backing_path("000000-full", "vda.qcow2") == "../000000-full/vda.qcow2"


@given(st.integers(0, 999_999), st.sampled_from(["full", "inc"]))
def test_a_points_directory_is_read_back(seq: int, level: str) -> None:
    name = point_directory(seq, level)
    assert layout.parse_point_directory(name) == (seq, level)
    attempt = layout.ATTEMPT_PATTERN.fullmatch(layout.attempt_file(name))
    assert attempt is not None
    assert attempt[1] == name


@pytest.mark.parametrize(
    "name",
    ["", "000000", "000000-", "000000-Full", "00000-full", "0000000-full", "000000-full~", "x"],
)
def test_other_directories_are_not_taken_for_points(name: str) -> None:
    assert layout.parse_point_directory(name) is None


@pytest.mark.parametrize(
    ("name", "begun"),
    [
        ("chain.json", True),
        (".chain.json.tmp", True),
        (".000000-full.attempt.json.tmp", True),
        ("000000-full.attempt.json", False),
        ("000000-full", False),
        ("chainxjson", False),
        ("notes.txt", False),
        ("", False),
    ],
)
def test_a_chain_is_empty_only_with_what_beginning_it_wrote(name: str, begun: bool) -> None:
    assert bool(layout.BEGUN_CHAIN_PATTERN.fullmatch(name)) is begun
