"""Compiles libvirt-python, of which PyPI has the source only, against Debian's libvirt.

Not by the library's own setup: that would want libvirt's development files installed.
"""

import sys
import tarfile
from pathlib import Path

from build.programs import run

_SHARED = ("typewrappers.c", "libvirt-utils.c")
_PYTHON_MODULES = ("libvirt.py", "libvirt_qemu.py")
_FLAGS = ("-O2", "-g0", "-fPIC", "-shared", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2")
_LINKING = ("-Wl,-z,relro,-z,now", "-Wl,--build-id=none")
# The way of the library's own setup: one module for all versions of Python.
_LIMITED = "-DPy_LIMITED_API=0x03060000"


def compile_bindings(source: Path, system: Path, scratch: Path, into: Path) -> None:
    """Put the modules of the ``source`` archive into a folder.

    ``system`` holds unpacked Debian packages with the declarations of libvirt and Python.
    """
    run("tar", "--extract", "--file", source, "--directory", scratch)
    (work,) = scratch.iterdir()
    (work / "build").mkdir(exist_ok=True)
    _module(work, system, into, "libvirt", "libvirtmod", ("virt",))
    _module(work, system, into, "libvirt-qemu", "libvirtmod_qemu", ("virt-qemu", "virt"))
    for name in _PYTHON_MODULES:
        (into / name).write_bytes((work / "build" / name).read_bytes())


def licences(source: Path) -> dict[str, bytes]:
    """Return the texts of its licence, by file name."""
    found = {}
    with tarfile.open(source) as archive:
        for member in archive:
            name = Path(member.name)
            file = archive.extractfile(member) if name.name in {"COPYING", "AUTHORS"} else None
            if file is not None and len(name.parts) == len(("folder", "file")):
                found[name.name] = file.read()
    return found


def _module(
    work: Path, system: Path, into: Path, library: str, module: str, linked: tuple[str, ...]
) -> None:
    api = system / f"usr/share/libvirt/api/{library}-api.xml"
    for language in ("c", "py"):
        run(sys.executable, "generator.py", library, api, language, folder=work)
    sources = (f"{library}-override.c", f"build/{library}.c", *_SHARED)
    include = system / "usr/include"
    run(
        *("gcc", *_FLAGS, _LIMITED, f"-ffile-prefix-map={work}=."),
        *("-I.", "-Ibuild", f"-I{include}", f"-I{include}/python3.11"),
        *sources,
        *(f"-L{system}/usr/lib/x86_64-linux-gnu", *(f"-l{name}" for name in linked)),
        *_LINKING,
        *("-o", into / f"{module}.abi3.so"),
        folder=work,
    )
