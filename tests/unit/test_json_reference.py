"""JSON.md says what there is: all commands, and all keys of their documents."""

import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

from tests.unit.test_views import VIEWS
from vm_babysitter.cli.main import cli

TEXT = (Path(__file__).parents[2] / "JSON.md").read_text()
DOCUMENTS = dict(re.findall(r"^\| `(\w+View)` \| [^|]* \| ([^|]*) \|$", TEXT, re.MULTILINE))


def test_each_command_is_there() -> None:
    told = {name.split()[0] for name in re.findall(r"`([a-z-]+(?: \w+)?)`", TEXT)}
    assert set(cli.commands) <= told
    for name, group in cli.commands.items():
        if isinstance(group, click.Group):
            assert {f"{name} {own}" for own in group.commands} <= set(
                re.findall(r"`([^`]+)`", TEXT)
            )


def test_each_document_that_is_named_is_told() -> None:
    assert set(re.findall(r"\w+View", TEXT)) == set(DOCUMENTS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_has_the_keys_that_are_told(name: str) -> None:
    assert DOCUMENTS[name].split() == [f"`{field.name}`" for field in fields(VIEWS[name])]
