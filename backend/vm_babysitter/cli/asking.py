"""What of a command's options was given, for the daemon: the rest is as its settings say."""

import click
from click.core import ParameterSource

from vm_babysitter.domain.job import Option


def given(*names: str) -> dict[str, Option]:
    """Return the options of the running command that were given, by their names."""
    context = click.get_current_context()
    found = {name: context.params[name] for name in names if _was_given(context, name)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}


def effort_given() -> dict[str, Option]:
    """Return how hard a job may work, as far as that was said."""
    asked = given("limit")
    if "priority" in given("priority"):
        asked["low_priority"] = click.get_current_context().params["priority"] == "low"
    return asked


def _was_given(context: click.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}
