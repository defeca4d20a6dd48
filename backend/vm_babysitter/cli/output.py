"""Writes to standard output and error, whatever these are."""

import codecs
import io
import json
import logging
import os
import sys
from typing import Any

import click


def have_streams() -> None:
    """Have something open as standard input, output and error, of those that are closed.

    Else the next file that is opened, an image for instance, would get the number of standard
    error, and libvirt's messages would be written into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            while os.open(os.devnull, os.O_RDWR) < number:
                pass


def say(text: str, *, end: bool = True) -> None:
    """Print a text that may have names in it which the terminal, or UTF-8, has no letters for.

    A line feed follows at its ``end``. That nobody reads it any more (``| head -1``) is no failure
    of what was done.

    Raises:
        OSError: it cannot be written, since the disk is full for instance.
    """
    encoding = _encoding()
    try:
        printable = text.encode(encoding, errors="backslashreplace").decode(encoding)
        click.echo(printable, nl=end, color=_colours())
    except BrokenPipeError:
        _give_up_output()
    except OSError:
        _give_up_output()
        raise


def say_json(data: Any, indent: int | None = None) -> None:
    """Print data for programs. Raises OSError as ``say`` does."""
    say(json.dumps(data, ensure_ascii=_encoding() != "utf-8", indent=indent))


def screen_lines() -> int | None:
    """Return how many lines the terminal shows; None if standard output is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).lines or None
    except (OSError, ValueError, AttributeError):
        return None


def complain(text: str) -> None:
    """Print a text on standard error; it is lost if nobody is there."""
    try:
        click.echo(text, err=True, color=_colours())
    except OSError:
        return


class Once(logging.Handler):
    """Puts what is logged on standard error, the same only once: folders are looked at often."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, if it is new."""
        text = self.format(record)
        if text not in self._said:
            self._said.add(text)
            complain(text)


def log_elsewhere() -> None:
    """Put nothing that is logged on standard error any more: a daemon has logs of its own."""
    logger = logging.getLogger("vm_babysitter")
    for handler in [handler for handler in logger.handlers if isinstance(handler, Once)]:
        logger.removeHandler(handler)


def _colours() -> bool | None:
    """Return False where nobody wants colours; None: wherever a terminal shows them."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _encoding() -> str:
    return codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name


def _give_up_output() -> None:
    """Have what is still to be written, at the end for instance, go nowhere."""
    try:
        number = sys.stdout.fileno()
    except (io.UnsupportedOperation, ValueError, AttributeError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
