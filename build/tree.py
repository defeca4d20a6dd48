"""Puts together what the package holds: the private Python, the program, the plugin, its pages."""

import json
import shutil
from pathlib import Path

from build import bytecode, release, runtime
from build.locks import RUNTIME, read_debs, read_requirements
from build.places import BACKEND, HOME, LICENSES, NAME, PACKAGES, PLUGIN, REPOSITORY

_TREES = {"plugin": Path(), "webgui": PLUGIN}
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")


def assemble(root: Path, layer: Path) -> None:
    """Fill an empty folder with all that the package holds."""
    shutil.copytree(layer, root, dirs_exist_ok=True)
    for tree, place in _TREES.items():
        if (REPOSITORY / tree).is_dir():
            shutil.copytree(REPOSITORY / tree, root / place, ignore=_LEFT_OUT, dirs_exist_ok=True)
    package = "vm_babysitter"
    shutil.copytree(REPOSITORY / "backend" / package, root / BACKEND / package, ignore=_LEFT_OUT)
    bytecode.compile_below(root, BACKEND)
    (root / PACKAGES / f"{NAME}.pth").write_text(f"/{BACKEND}\n")
    own = root / LICENSES / NAME
    own.mkdir()
    shutil.copy(REPOSITORY / "LICENSE", own)
    (root / HOME / "parts.json").write_text(json.dumps(_parts(), indent=1, sort_keys=True) + "\n")


def _parts() -> dict[str, object]:
    return {
        "version": release.version(),
        "python": runtime.fingerprint(),
        "debian": {deb.name: deb.version for deb in read_debs() if deb.use == RUNTIME},
        "pypi": {library.name: library.version for library in read_requirements()},
    }
