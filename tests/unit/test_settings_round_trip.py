"""Whatever settings come, they are refused with reasons or kept as they are."""

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_babysitter.config.check import check
from vm_babysitter.config.context import Context, VmRef
from vm_babysitter.config.document import decode, encode, tag_of
from vm_babysitter.config.settings import Settings

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=12)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
FINITE = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def some(keys: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keys)


SIZE = st.integers(65536, 1 << 30) | st.integers(1, 1023).map("{} MiB".format)
SPACE = st.integers(0, 99).map("{} %".format) | st.integers(1, 900).map("{}GiB".format)
LISTED = st.lists(NAMES, max_size=3)
HOOK = some(
    {
        "argv": st.just([]) | LISTED.map(lambda words: ["/bin/x", *words]),
        "timeout": st.integers(1, 3600),
        "on_failure": st.sampled_from(["warn", "stop"]),
    }
)
BACKUP = {
    "compress": st.booleans(),
    "limit": st.just(0) | SIZE,
    "low_priority": st.booleans(),
    "reread_runs": st.integers(0, 10_000),
    "longest": st.integers(0, 240),
    "track_snapshots": st.booleans(),
}
HOOKS = some({"before": HOOK, "after": HOOK})
SCHEDULE = st.fixed_dictionaries(
    {"name": NAMES, "when": st.sampled_from(["@daily", "0 2 * * 7", "*/5 1-3 * jan mon"])},
    optional={
        "kind": st.sampled_from(["backup", "verify"]),
        "vms": LISTED,
        "enabled": st.booleans(),
    },
)
RIGHT = some(
    {
        "store": some({"path": st.just("/mnt/x"), "id": TEXTS, "filesystem": TEXTS}),
        "schedules": st.lists(SCHEDULE, max_size=3, unique_by=lambda one: one["name"]),
        "vms": some(
            {
                "mode": st.sampled_from(["all", "chosen"]),
                "ignored": LISTED,
                "chosen": LISTED,
                "include_new": st.booleans(),
                "seen": st.none() | LISTED,
                "groups": st.dictionaries(NAMES, LISTED, max_size=3),
            }
        ),
        "backup": some({**BACKUP, "parallel": st.integers(1, 4)}),
        "hooks": HOOKS,
        "space": some({"warn_free": SPACE, "stop_free": st.just(0)}),
        "waits": some({"parity": st.sampled_from(["wait", "ignore"])}),
        "log": some({"size": SIZE, "level": st.sampled_from(["error", "debug"])}),
        "per_vm": st.dictionaries(
            NAMES, some({"backup": some(BACKUP), "hooks": HOOKS}), max_size=3
        ),
        "unknown": FINITE,
    }
)
KNOWN = Context((VmRef("0d6b2a52-6f0d-4a5f-9a36-6a3a3f1b9f10", "a"), VmRef("b", "b")))


@given(RIGHT)
@settings(deadline=None)
def test_right_settings_are_taken_and_survive_the_file(raw: dict[str, Any]) -> None:
    first = check({"version": 1, **raw}, KNOWN)
    assert first.errors == ()
    again = check(decode(encode(first.document), "x"), KNOWN)
    assert again == first
    assert encode(again.document) == encode(first.document)
    assert tag_of(again.document) == tag_of(first.document)
    assert first.document.get("unknown") == raw.get("unknown")


@given(RIGHT)
@settings(deadline=None)
def test_written_out_in_full_they_mean_the_same(raw: dict[str, Any]) -> None:
    meant = check({"version": 1, **raw}).settings
    assert meant is not None
    full = json.loads(msgspec.json.encode(meant))
    assert check({"version": 1, **full}).settings == meant


def swapped(document: Any, pick: int, junk: Any) -> Any:
    """Put junk in some place of a document."""
    places: list[tuple[Any, Any]] = []
    todo = [document]
    while todo:
        one = todo.pop()
        keys = one if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in list(keys):
            places.append((one, key))
            todo.append(one[key])
    where, key = places[pick % len(places)]
    where[key] = junk
    return document


@given(RIGHT, st.integers(0, 200), JSON)
@settings(deadline=None)
def test_no_value_in_any_place_breaks_the_check(raw: dict[str, Any], pick: int, junk: Any) -> None:
    checked = check(swapped({"version": 1, **raw}, pick, junk), KNOWN)
    assert (checked.settings is None) == bool(checked.errors)
    for error in checked.errors:
        assert error.rule
        str(error).encode()
    if checked.settings is not None:
        assert isinstance(checked.settings, Settings)
        assert check(decode(encode(checked.document), "x"), KNOWN) == checked


@given(JSON)
def test_nothing_at_all_breaks_the_check(raw: Any) -> None:
    assert check(raw).settings is None or raw["version"] == 1
