"""One call of the command line: who does the work, results shown, errors told."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec

from vm_babysitter.cli.client import Daemon
from vm_babysitter.cli.colours import bad
from vm_babysitter.cli.failure import Failure, Refused, as_ours
from vm_babysitter.cli.output import complain, say, say_json
from vm_babysitter.cli.progress import TerminalObserver
from vm_babysitter.cli.reader import EngineReader, Reader
from vm_babysitter.cli.render_settings import errors_text
from vm_babysitter.cli.stopping import stoppable
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.errors import BabysitterError, Cancelled
from vm_babysitter.engine.app import (
    DEFAULT_SOCKET,
    DEFAULT_URI,
    App,
    Compose,
    Place,
    Serve,
    ServeOptions,
)
from vm_babysitter.engine.cancel import Cancel
from vm_babysitter.views import PartView

SelfCheck = Callable[[ServeOptions], Sequence[PartView]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the composition root hands to the command line."""

    compose: Compose
    serve: Serve | None = None
    """Runs a daemon; None where there is none to run."""
    self_check: SelfCheck | None = None
    """Looks at what a daemon needs; None where there is none to run."""


@dataclass(frozen=True, slots=True)
class Session:
    """One call of the command line."""

    parts: Parts
    place: Place
    standalone: bool
    socket: Path = DEFAULT_SOCKET

    @property
    def suggest(self) -> Suggest:
        """What writes the commands that are suggested."""
        return Suggest(self.place, self.standalone, self.socket)

    @contextmanager
    def app(self, *, as_json: bool) -> Iterator[App]:
        """Put the engine together; errors become exit codes, Ctrl-C stops a job cleanly."""
        observer, cancel = TerminalObserver(), Cancel()
        with self.told(as_json=as_json):
            try:
                with stoppable(cancel):
                    yield self.parts.compose(self.place, observer, cancel)
            finally:
                observer.close()

    @contextmanager
    def daemon(self, *, as_json: bool) -> Iterator[Daemon]:
        """Talk to the daemon; errors become exit codes."""
        if self.standalone:
            raise click.UsageError("This asks the daemon: leave out --standalone.")
        if self.place != Place(DEFAULT_URI, None):
            rule = "go with --standalone only: the daemon has its own"
            raise click.UsageError(f"--store, --uri and --allow-ram-store {rule}.")
        with self.told(as_json=as_json):
            yield Daemon(self.socket)

    @contextmanager
    def reader(self, *, as_json: bool) -> Iterator[Reader]:
        """Look at VMs and backups, in this process or through the daemon."""
        if self.standalone:
            with self.app(as_json=as_json) as app:
                yield EngineReader(app)
        else:
            with self.daemon(as_json=as_json) as daemon:
                yield daemon

    def fail(self, error: BabysitterError | Failure, *, as_json: bool, **found: Any) -> NoReturn:
        """End with an error; ``found`` is what can be told to programs all the same."""
        failure = error if isinstance(error, Failure) else Failure.of(error)
        hint = self.suggest.completed(failure.hint)
        if as_json:
            say_json({"error": failure.data(hint), **msgspec.to_builtins(found, str_keys=True)})
        if not failure.errors:
            complain(f"{bad('Error:')} {failure.message}")
        for line in errors_text(failure.errors):
            complain(line)
        if hint:
            complain(hint)
        raise SystemExit(failure.exit_code)

    @contextmanager
    def told(self, *, as_json: bool) -> Iterator[None]:
        """Have errors become exit codes, told to people and programs."""
        try:
            yield
        except Refused as error:
            self.fail(error.failure, as_json=as_json)
        except BabysitterError as error:
            self.fail(error, as_json=as_json)
        except OSError as error:
            self.fail(as_ours(error), as_json=as_json)
        except KeyboardInterrupt:
            self.fail(Cancelled(), as_json=as_json)


def show(as_json: bool, data: Callable[[], Any], text: Callable[[], str]) -> None:
    """Print a result, as JSON for programs or as text for people."""
    if as_json:
        say_json(msgspec.to_builtins(data(), str_keys=True), indent=1)
    else:
        say(text())
