"""Commands that are suggested to the user, ready for the shell that this one was called from."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vm_babysitter.engine.app import DEFAULT_SOCKET, DEFAULT_URI, Place

PROGRAM = "vm-babysitter"
_NAMED = re.compile(f"`{PROGRAM} (--standalone )?")


@dataclass(frozen=True, slots=True)
class Suggest:
    """Writes commands with the options that say where things are, as they were given."""

    place: Place
    standalone: bool = True
    socket: Path = DEFAULT_SOCKET

    def command(self, verb: str, *arguments: str, options: Sequence[str] = ()) -> str:
        """Return a command, quoted; ``arguments`` may be anything, VMs' names for instance."""
        end = ["--"] if any(argument.startswith("-") for argument in arguments) else []
        return shlex.join([*self._program(), verb, *options, *end, *arguments])

    def completed(self, text: str) -> str:
        """Return a text with these options put into the commands that it names in backquotes."""

        def complete(found: re.Match[str]) -> str:
            without = found[1] is not None and not self.standalone
            return found[0] if without else f"`{shlex.join(self._program())} "

        return _NAMED.sub(complete, text)

    def _program(self) -> list[str]:
        if not self.standalone:
            at = [] if self.socket == DEFAULT_SOCKET else ["--socket", str(self.socket)]
            return [PROGRAM, *at]
        words = [PROGRAM, "--standalone"]
        if self.place.uri != DEFAULT_URI:
            words += ["--uri", self.place.uri]
        if self.place.store is not None:
            words += ["--store", str(self.place.store)]
        if self.place.allow_ram_store:
            words.append("--allow-ram-store")
        return words
