"""The group of all commands, which tells programs of failures that no command gets to see."""

from typing import Any

import click

from vm_babysitter.cli.failure import as_ours
from vm_babysitter.cli.output import complain, say_json
from vm_babysitter.cli.suggest import PROGRAM
from vm_babysitter.domain.errors import Exit

_JSON = "vm_babysitter.json"


class Commands(click.Group):
    """A group of commands of which each takes ``--json``."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the options that all commands have. Raises UsageError, told in JSON as well."""
        as_json = _asks_for_json(args)
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if as_json:
                _tell_usage(error)
            raise
        context.meta[_JSON] = as_json
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. What it fails with, and does not tell itself, is told in JSON as well."""
        as_json = bool(ctx.meta[_JSON])
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if as_json:
                _tell_usage(error)
            raise
        except OSError as error:  # the result cannot be written
            complain(f"Error: {as_ours(error).message}")
            raise SystemExit(int(Exit.FAILED)) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if as_json:
                hint = "This is a mistake in VM Babysitter; please report what standard error says."
                _tell("internal", f"{type(error).__name__}: {error}", hint)
            raise


def _asks_for_json(arguments: list[str]) -> bool:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:end]


def _tell_usage(error: click.UsageError) -> None:
    command = PROGRAM if error.ctx is None else error.ctx.command_path
    _tell("usage", error.format_message(), f"`{command} --help` says how it is used.")


def _tell(code: str, message: str, hint: str) -> None:
    problem = {"code": code, "message": message, "hint": hint, "fields": {}}
    say_json({"error": problem})
