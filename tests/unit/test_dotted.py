"""Values in documents by dotted paths."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_babysitter.cli.dotted import (
    NoSuchKey,
    join,
    leaves,
    merged,
    split,
    value_at,
    with_value,
    without,
)

DOCUMENT: dict[str, Any] = {"a": {"b": 1, "c.d": {"e": None}}, "l": [{"x": 1}, {"x": 2}], "s": [1]}
keys = st.lists(st.text(min_size=1), min_size=1)


@given(keys)
def test_any_keys_are_written_as_a_path_and_read_again(parts: list[str]) -> None:
    assert list(split(join(parts))) == parts


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a\\"])
def test_what_is_no_path_is_told(path: str) -> None:
    with pytest.raises(NoSuchKey):
        split(path)


@pytest.mark.parametrize(
    ("path", "value"), [("a.b", 1), (r"a.c\.d.e", None), ("l.1.x", 2), ("s", [1]), ("s.0", 1)]
)
def test_a_value_is_found_changed_and_removed_and_nothing_else(path: str, value: object) -> None:
    where = split(path)
    assert value_at(DOCUMENT, where) == value
    assert value_at(with_value(DOCUMENT, where, "new"), where) == "new"
    assert with_value(with_value(DOCUMENT, where, "new"), where, value) == DOCUMENT
    with pytest.raises(NoSuchKey):
        value_at(without(DOCUMENT, where), where)


@pytest.mark.parametrize("path", ["x", "a.x", "a.b.x", "l.2", "l.-1", "l.x", "s.0.x"])
def test_what_is_not_there_is_not_found(path: str) -> None:
    for do in (value_at, without):
        with pytest.raises(NoSuchKey):
            do(DOCUMENT, split(path))


@pytest.mark.parametrize("path", ["a.b.x", "l.3", "l.-1", "l.x", "s.0.x"])
def test_nothing_is_put_where_nothing_can_be(path: str) -> None:
    with pytest.raises(NoSuchKey):
        with_value(DOCUMENT, split(path), 1)


def test_folders_are_made_and_lists_grow_by_one() -> None:
    assert with_value({}, split("a.b.c"), 1) == {"a": {"b": {"c": 1}}}
    assert with_value({"l": [1]}, split("l.1"), 2) == {"l": [1, 2]}


def test_what_is_above_covers_what_is_below() -> None:
    below = {"a": {"b": 1, "c": 2}, "d": 3, "l": [1]}
    assert merged(below, {"a": {"b": 5}, "l": [], "n": {}}) == {
        "a": {"b": 5, "c": 2},
        "d": 3,
        "l": [],
        "n": {},
    }


def test_each_value_has_a_path() -> None:
    found = {join(where): value for where, value in leaves(DOCUMENT)}
    assert found == {"a.b": 1, r"a.c\.d.e": None, "l.0.x": 1, "l.1.x": 2, "s": [1]}
    assert list(leaves({"e": {}})) == [(("e",), {})]
