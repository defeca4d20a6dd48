"""One call of the command line: the engine put together, results shown, errors told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from vm_babysitter.cli.output import complain, say, say_json
from vm_babysitter.cli.progress import TerminalObserver
from vm_babysitter.cli.stopping import stoppable
from vm_babysitter.cli.suggest import Suggest
from vm_babysitter.domain.errors import BabysitterError, DaemonMissing, SystemFailed
from vm_babysitter.engine.app import App, Compose, Place
from vm_babysitter.engine.cancel import Cancel


@dataclass(frozen=True, slots=True)
class Session:
    """One call of the command line."""

    compose: Compose
    place: Place
    standalone: bool

    @property
    def suggest(self) -> Suggest:
        """What writes the commands that are suggested."""
        return Suggest(self.place)

    @contextmanager
    def app(self, *, as_json: bool) -> Iterator[App]:
        """Put the engine together; errors become exit codes, Ctrl-C stops a job cleanly."""
        observer, cancel = TerminalObserver(), Cancel()
        try:
            with stoppable(cancel):
                if not self.standalone:
                    raise DaemonMissing
                yield self.compose(self.place, observer, cancel)
        except BabysitterError as error:
            observer.close()
            self.fail(error, as_json=as_json)
        except OSError as error:
            observer.close()
            self.fail(as_ours(error), as_json=as_json)
        finally:
            observer.close()

    def fail(self, error: BabysitterError, *, as_json: bool, **found: Any) -> NoReturn:
        """End with an error; ``found`` is what can be told to programs all the same."""
        hint = self.suggest.completed(error.hint)
        if as_json:
            say_json({"error": problem_of(error, hint), **found})
        complain(f"Error: {error.message}")
        if hint:
            complain(hint)
        raise SystemExit(int(error.exit_code)) from error


def as_ours(error: OSError) -> SystemFailed:
    """Return an error of the operating system as one of ours."""
    about = "" if error.filename is None else f": {error.filename!r}"
    return SystemFailed(f"{error.strerror or error}{about}")


def problem_of(error: BabysitterError, hint: str) -> dict[str, Any]:
    """Return an error as data for programs."""
    fields = {k: v if isinstance(v, int | str) else str(v) for k, v in error.fields.items()}
    return {"code": error.code, "message": error.message, "hint": hint, "fields": fields}


def show(as_json: bool, data: Callable[[], Any], text: Callable[[], str]) -> None:
    """Print a result, as JSON for programs or as text for people."""
    if as_json:
        say_json(msgspec.to_builtins(data(), str_keys=True), indent=1)
    else:
        say(text())
