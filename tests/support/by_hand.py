"""The commands of FORMAT.md, which get data out of a backup folder without our program."""

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

_FORMAT = Path(__file__).parents[2] / "FORMAT.md"
_SECTION = re.compile(r"^## Getting your data out by hand$(.*?)^## ", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_WORD = re.compile(r"<([a-z]+)>")


def commands(about: str) -> str:
    """The one block of commands that has these words in it."""
    section = _SECTION.search(_FORMAT.read_text())
    assert section is not None
    found = [block for block in _BLOCK.findall(section[1]) if about in block]
    assert len(found) == 1, f"{len(found)} blocks have {about!r}"
    return str(found[0])


def blocks() -> int:
    """How many blocks of commands there are."""
    section = _SECTION.search(_FORMAT.read_text())
    assert section is not None
    return len(_BLOCK.findall(section[1]))


def do(
    about: str, words: Mapping[str, str | Path], folder: Path = Path("/"), **variables: str
) -> str:
    """Do in a folder what a block says, each ``<word>`` replaced as its reader does.

    Returns what was said.
    """
    text = _WORD.sub(lambda match: shlex.quote(str(words[match[1]])), commands(about))
    done = subprocess.run(
        ["bash", "-euc", text],
        cwd=folder,
        env=os.environ | variables,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout
