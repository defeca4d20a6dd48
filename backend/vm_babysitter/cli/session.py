"""One call of the command line: the engine put together, results shown, errors told."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from vm_babysitter.cli.composition import App, Compose, Place
from vm_babysitter.cli.progress import TerminalObserver
from vm_babysitter.cli.stopping import stoppable
from vm_babysitter.domain.errors import BabysitterError, Exit
from vm_babysitter.engine.cancel import Cancel


@dataclass(frozen=True, slots=True)
class Session:
    """One call of the command line."""

    compose: Compose
    place: Place
    standalone: bool

    @contextmanager
    def app(self, *, as_json: bool) -> Iterator[App]:
        """Put the engine together; errors become exit codes, Ctrl-C stops a job cleanly."""
        observer, cancel = TerminalObserver(), Cancel()
        try:
            with stoppable(cancel):
                self._check()
                yield self.compose(self.place, observer, cancel)
        except BabysitterError as error:
            observer.close()
            _complain(error, as_json)
            raise SystemExit(int(error.exit_code)) from error
        except OSError as error:
            observer.close()
            click.echo(f"Error: {error}", err=True)
            raise SystemExit(int(Exit.FAILED)) from error
        finally:
            observer.close()

    def _check(self) -> None:
        if not self.standalone:
            click.echo("There is no daemon to talk to. Use --standalone.", err=True)
            raise SystemExit(int(Exit.UNREACHABLE))


def _complain(error: BabysitterError, as_json: bool) -> None:
    if as_json:
        fields = {k: v if isinstance(v, int | str) else str(v) for k, v in error.fields.items()}
        problem = {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "fields": fields,
        }
        say(json.dumps({"error": problem}, ensure_ascii=False))
    click.echo(f"Error: {error.message}", err=True)
    if error.hint:
        click.echo(error.hint, err=True)


def show(as_json: bool, data: Callable[[], Any], text: Callable[[], str]) -> None:
    """Print a result, as JSON for programs or as text for people."""
    if as_json:
        plain = msgspec.to_builtins(data(), str_keys=True)
        say(json.dumps(plain, ensure_ascii=False, indent=1))
    else:
        say(text())


def say(text: str) -> None:
    """Print a text that may have names of files in it, which need not be UTF-8."""
    click.echo(text.encode(errors="backslashreplace").decode())
