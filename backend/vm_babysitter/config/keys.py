"""How one setting is declared: its meaning, limits, unit, example, and the form of its value."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from msgspec import Meta

Where = tuple[str | int, ...]
"""The way to a value: keys, and positions in lists."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a value is not taken."""

    rule: str
    """What it must be, must not be, or is: read after the value, without an end of sentence."""
    hint: str = ""
    """The way out, in whole sentences; empty for that of the key."""
    where: Where = ()
    """Which part of the value is meant."""


class Refused(Exception):
    """A value has not the form that it should have."""

    def __init__(self, rule: str, hint: str = "") -> None:
        super().__init__(rule)
        self.refusal = Refusal(rule, hint)


def _as_it_is(value: object) -> object:
    return value


def _nothing(_value: object) -> Iterator[Refusal]:
    yield from ()


@dataclass(frozen=True, slots=True)
class Form:
    """What a type alone does not say about a value."""

    words: str
    """What it must be: follows "must be"."""
    read: Callable[[object], object] = _as_it_is
    """Makes the stored form of what people write. Raises Refused.

    What it does not understand it returns; the type then says what is wrong.
    """
    judge: Callable[[object], Iterator[Refusal]] = _nothing
    """Finds what is wrong with a value of JSON beyond its type; it may have a wrong type."""
    schema: Mapping[str, object] = field(default_factory=dict)
    """What the JSON schema says in addition; ``x-type`` in place of ``type``."""
    secret: bool = False
    """Whether the value is not repeated in what is said of it."""


def about(  # noqa: PLR0913 - a setting has that many sides
    description: str,
    *,
    example: object = None,
    unit: str = "",
    least: int | None = None,
    most: int | None = None,
    shortest: int | None = None,
    longest: int | None = None,
    form: Form | None = None,
    own: bool = False,
) -> Meta:
    """Declare a setting; stands behind its type in ``Annotated``.

    Args:
        description: what it does, in a sentence or two for users.
        example: a value that makes sense.
        unit: of a number.
        least: the smallest number.
        most: the greatest number.
        shortest: the least length of a text, number of entries of a list.
        longest: the greatest one.
        form: what the type alone does not say.
        own: filled by the program, not by people.
    """
    extra = {"unit": unit, "form": form, "own": own}
    # What is not said here stays as the type has it that is declared more exactly.
    said = {key: value for key, value in extra.items() if value}
    schema = dict(form.schema) if form and form.schema else None
    examples = None if example is None else [example]
    if shortest is None and longest is None:
        return Meta(
            description=description,
            examples=examples,
            ge=least,
            le=most,
            extra_json_schema=schema,
            extra=said,
        )
    return Meta(
        description=description,
        examples=examples,
        min_length=shortest,
        max_length=longest,
        extra_json_schema=schema,
        extra=said,
    )
