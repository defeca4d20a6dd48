"""QEMU's tools as they are where they were built without zstd."""

import os
import shutil
from pathlib import Path

_SCRIPT = """#!/bin/sh
# Fails as a qemu-img without zstd does, if one of the images named needs it.
for argument; do
  path=$(printf '%s' "$argument" | sed -n 's/.*"filename": "\\(.*\\)".*/\\1/p')
  [ -f "$path" ] || continue
  if [ "$(od -An -tu1 -j79 -N1 "$path" | tr -d ' ')" = 8 ]; then
    echo "qemu-img: Could not open '$path': qcow2: unknown compression type: 1" >&2
    exit 1
  fi
done
exec {real} "$@"
"""


def without_zstd(folder: Path) -> str:
    """Make a folder with such a ``qemu-img``; returns a PATH that begins with it."""
    real = shutil.which("qemu-img")
    assert real is not None
    folder.mkdir()
    program = folder / "qemu-img"
    program.write_text(_SCRIPT.replace("{real}", real))
    program.chmod(0o755)
    return os.pathsep.join([str(folder), os.environ["PATH"]])
