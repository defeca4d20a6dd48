"""The next version of the package, made of the one built: its settings are of a newer version."""

import re
from pathlib import Path

from build import archive, bytecode, documents, release
from build.locks import sha256
from build.places import BACKEND
from build.programs import run
from build.release import Publisher

VERSION = "2099.12.31"
SETTINGS = 2
ADDED = "from-version-1"
"""A group that the way from settings of version 1 to those of version 2 adds, of no VMs."""
_STEP = f'''
def _second(document: Document) -> Document:
    vms = dict(document.get("vms", {{}}))
    return {{**document, "vms": {{**vms, "groups": {{**vms.get("groups", {{}}), "{ADDED}": []}}}}}}


STEPS: tuple[Step, ...] = (_second,)
'''


def make(package: Path, folder: Path, publisher: Publisher) -> Path:
    """Make its package and its plugin file in a folder; returns the latter."""
    root = folder / "root"
    root.mkdir(parents=True)
    run("tar", "--extract", "--file", package, "-C", root)
    program = root / BACKEND / "vm_babysitter"
    _change(program / "__init__.py", r'__version__ = ".*"', f'__version__ = "{VERSION}"')
    _change(program / "config/migrate.py", r"\nSTEPS: .*\n", _STEP)
    bytecode.compile_below(root, BACKEND)
    made = folder / release.package_file(VERSION)
    archive.pack(root, made, release.moment(VERSION), archive.QUICK)
    rendered = documents.render(documents.Package(VERSION, sha256(made)), publisher, "")
    plg = folder / f"{VERSION}.plg"
    plg.write_text(rendered[documents.PLG])
    return plg


def _change(path: Path, old: str, new: str) -> None:
    text, changed = re.subn(old, lambda _: new, path.read_text())
    assert changed == 1, path
    path.write_text(text)
