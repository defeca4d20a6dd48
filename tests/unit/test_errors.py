"""Errors: every one has a code of its own, and words that survive any name."""

import inspect
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_babysitter.domain import errors
from vm_babysitter.domain.errors import BabysitterError, Exit, InvalidInput

ERRORS: list[type[BabysitterError]] = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, BabysitterError) and found is not BabysitterError
]
ODD = ["{", "}", "{vm}", "{0}", 'it\'s "odd"', "naïve 猫", "", "a\nb", "%s", "\\", "-x", "{!r:>9}"]


def make(kind: type[BabysitterError], text: str, number: int = 7) -> BabysitterError:
    values: dict[str, Any] = {
        f.name: number if f.type is int else text
        for f in fields(kind)  # type: ignore[arg-type]
    }
    return kind(**values)


def test_there_are_errors_and_each_is_its_own_class_with_a_docstring() -> None:
    assert len(ERRORS) > 15
    assert all(inspect.getdoc(kind) for kind in ERRORS)


def test_no_two_errors_share_a_code() -> None:
    codes = [kind.code for kind in ERRORS]
    assert len(set(codes)) == len(codes)
    assert BabysitterError.code not in codes
    assert all(code == code.lower() and " " not in code for code in codes)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.code)
def test_every_field_is_text_or_a_number(kind: type[BabysitterError]) -> None:
    assert {f.type for f in fields(kind)} <= {str, int}  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.code)
def test_every_field_is_told_to_somebody(kind: type[BabysitterError]) -> None:
    words = kind.template + kind.hint_template
    told = {f.name for f in fields(kind) if f"{{{f.name}" in words}  # type: ignore[arg-type]
    untold = {f.name for f in fields(kind)} - told  # type: ignore[arg-type]
    assert untold <= {"seq"}  # for programs; people are told the point's name


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.code)
@pytest.mark.parametrize("text", ODD)
def test_message_and_hint_are_made_from_any_field_values(
    kind: type[BabysitterError], text: str
) -> None:
    error = make(kind, text)
    assert error.message
    assert str(error) == f"{error.message} {error.hint}".strip()
    assert error.args == ()
    assert set(error.fields) >= {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if text in error.fields.values():
        assert text in str(error) or repr(text)[1:-1] in str(error)


@given(st.sampled_from(ERRORS), st.text(), st.integers())
def test_no_text_and_no_number_breaks_the_words_of_an_error(
    kind: type[BabysitterError], text: str, number: int
) -> None:
    error = make(kind, text, number)
    assert isinstance(str(error), str)
    assert isinstance(error.exit_code, Exit)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.code)
def test_an_error_of_ours_never_counts_as_a_success(kind: type[BabysitterError]) -> None:
    assert kind.exit_code not in {Exit.OK, Exit.WARNINGS}


def test_fields_of_the_traceback_machinery_are_not_taken_for_fields() -> None:
    with pytest.raises(InvalidInput) as caught:
        raise InvalidInput("VM", "x", "is wrong") from ValueError("y")
    caught.value.__notes__ = ["a note"]
    assert set(caught.value.fields) == {"field", "value", "rule", "way_out"}
    assert str(caught.value) == "VM: 'x' is wrong."


def test_exit_codes_are_the_promised_ones() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "WARNINGS": 3,
        "NOT_FOUND": 10,
        "BUSY": 11,
        "INTEGRITY": 12,
        "UNREACHABLE": 20,
        "CANCELLED": 130,
    }


def test_each_error_ends_with_the_promised_code() -> None:
    other = {kind.code: int(kind.exit_code) for kind in ERRORS if kind.exit_code != Exit.FAILED}
    assert other == {
        "invalid-cron": 2,
        "invalid-input": 2,
        "invalid-settings": 2,
        "vm-not-found": 10,
        "point-not-found": 10,
        "job-not-found": 10,
        "busy": 11,
        "settings-changed": 11,
        "vm-in-use": 11,
        "unsupported-format": 12,
        "damaged": 12,
        "point-damaged": 12,
        "cancelled": 130,
        "daemon-missing": 20,
        "store-not-given": 2,
    }
