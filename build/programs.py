"""Runs the programs that a build needs; a failure is told with what they said."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


class BuildFailed(Exception):
    """The build cannot go on; the text says why, and what to do."""


def run(
    *command: str | Path, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run a program and return what it printed.

    ``environment`` is added to ours. Raises BuildFailed, with what it complained about.
    """
    argv = [str(word) for word in command]
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as e:
        raise BuildFailed(f"the program {argv[0]} is missing: run build/setup.sh package") from e
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise BuildFailed(f"{' '.join(argv[:4])} … ended with {done.returncode}:\n{said}")
    return done.stdout
