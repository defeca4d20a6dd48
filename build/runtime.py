"""The private Python: Debian's, with our libraries, in a folder that runs wherever it lies.

It is made once for what the locks and this code say, and kept in the cache.
"""

import hashlib
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from build import bindings, bytecode, downloads
from build.binaries import is_binary, look_for_libraries_in, needed, soname, strip
from build.locks import (
    NOTICE,
    RUNTIME,
    TOOL,
    Deb,
    canonical,
    read_debs,
    read_requirements,
)
from build.places import BUILD, CACHE, DEBIAN_LOCK, LICENSES, PACKAGES, PYTHON, REQUIREMENTS_LOCK
from build.programs import run

LAYERS = CACHE / "layers"
_STDLIB = PYTHON / "lib/python3.11"
# For developers and terminals, for languages that we do not speak, for protocols that we do not
# use; some would want libraries that Unraid may lack (readline, ncurses, nis, dbm).
_UNWANTED_STDLIB = (
    "aifc.py",
    "cgi.py",
    "cgitb.py",
    "chunk.py",
    "config-*",
    "cProfile.py",
    "crypt.py",
    "curses",
    "dbm",
    "distutils",
    "doctest.py",
    "ensurepip",
    "EXTERNALLY-MANAGED",
    "idlelib",
    "imaplib.py",
    "lib2to3",
    "mailbox.py",
    "mailcap.py",
    "msilib",
    "nntplib.py",
    "pdb.py",
    "pickletools.py",
    "plistlib.py",
    "poplib.py",
    "profile.py",
    "pstats.py",
    "_pydecimal.py",
    "pydoc.py",
    "pydoc_data",
    "_pyio.py",
    "_distutils_system_mod.py",
    "sitecustomize.py",
    "smtpd.py",
    "sunau.py",
    "tabnanny.py",
    "telnetlib.py",
    "test",
    "tkinter",
    "trace.py",
    "turtle.py",
    "turtledemo",
    "unittest",
    "uu.py",
    "venv",
    "wave.py",
    "xdrlib.py",
    "xmlrpc",
    "email/architecture.rst",
    "encodings/big5*",
    "encodings/cp42*",
    "encodings/cp[0-35-9]*",
    "encodings/euc_*",
    "encodings/gb*",
    "encodings/hp_*",
    "encodings/hz.py",
    "encodings/iso2022*",
    "encodings/iso8859_1[013-6]*",
    "encodings/iso8859_[2-9]*",
    "encodings/johab.py",
    "encodings/koi8_*",
    "encodings/kz*",
    "encodings/mac_*",
    "encodings/palmos.py",
    "encodings/ptcp*",
    "encodings/shift_*",
    "encodings/tis_*",
    "lib-dynload/_codecs_*",
    "lib-dynload/_crypt.*",
    "lib-dynload/_ctypes_test.*",
    "lib-dynload/_curses*",
    "lib-dynload/_dbm.*",
    "lib-dynload/_test*",
    "lib-dynload/_xx*",
    "lib-dynload/nis.*",
    "lib-dynload/readline.*",
    "lib-dynload/xx*",
)
# What is for those who compile against a library, and what is there twice.
_UNWANTED_OF_WHEELS = (
    "*.c",
    "*.h",
    "*.pxd",
    "*.pyi",
    "*.pyx",
    "*.dist-info/RECORD",
    "*/_cffi.*.so",
    "certifi/tests/*",
    "lxml/doctestcompare.py",
    "lxml/includes/*",
    "lxml/html/_difflib.*.so",
    "lxml/html/diff.*.so",
    "lxml/isoschematron/*",
    "lxml/objectify.*.so",
    "werkzeug/debug/shared/*",
)
_UNWANTED_LIBRARIES = ("libexpatw.so.1",)
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
_LICENCE_WORDS = ("licen", "copying", "notice", "authors")
_KEPT_LAYERS = 2


def layer() -> Path:
    """Return the folder with the private Python, below the root's path; made if it is not there."""
    place = LAYERS / fingerprint()
    if not place.is_dir():
        LAYERS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=LAYERS, prefix=".new-") as scratch:
            made = Path(scratch) / "layer"
            make(made, Path(scratch))
            made.rename(place)
        _forget_old_ones(place)
    return place


def fingerprint() -> str:
    """Return what tells one private Python from another: locks, code, compiler."""
    digest = hashlib.sha256()
    code = ("runtime.py", "bindings.py", "binaries.py", "downloads.py", "bytecode.py")
    for path in (DEBIAN_LOCK, REQUIREMENTS_LOCK, *(BUILD / name for name in code)):
        digest.update(path.read_bytes() + b"\0")
    for tool in ("gcc", "strip"):
        digest.update(run(tool, "--version").encode())
    return digest.hexdigest()[:16]


def make(root: Path, scratch: Path) -> None:
    """Make it anew at ``root``, without the cache of layers."""
    files = downloads.debs(read_debs())
    system = _unpack(scratch / "runtime", files, RUNTIME)
    tools = _unpack(scratch / "tools", files, TOOL)
    notices = _unpack(scratch / "notices", files, NOTICE)
    _python(system, root)
    _wheels(root, tools, scratch)
    _licences_of_debian(root, [system, notices], files)
    _finish_binaries(root, tools / "usr/bin/patchelf")
    bytecode.compile_below(root, PYTHON)


def _unpack(into: Path, files: dict[Deb, Path], use: str) -> Path:
    for deb, path in files.items():
        if deb.use == use:
            run("dpkg-deb", "--extract", path, into)
    return into


def _python(system: Path, root: Path) -> None:
    for folder in ("bin", "lib-fallback"):
        (root / PYTHON / folder).mkdir(parents=True)
    program = root / PYTHON / "bin/python3.11"
    program.write_bytes((system / "usr/bin/python3.11").read_bytes())
    program.chmod(0o755)
    shutil.copytree(system / "usr/lib/python3.11", root / _STDLIB, symlinks=True)
    for pattern in _UNWANTED_STDLIB:
        for path in (root / _STDLIB).glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for place in _LIBRARIES:
        for path in sorted((system / place).glob("*.so.*")):
            name = soname(path) if is_binary(path) else None
            if name and name not in _UNWANTED_LIBRARIES:
                (root / PYTHON / "lib-fallback" / name).write_bytes(path.read_bytes())


def _wheels(root: Path, tools: Path, scratch: Path) -> None:
    place = root / PACKAGES
    place.mkdir(parents=True)
    for path in downloads.wheels(Path(sys.executable), read_requirements()):
        name = path.name.partition("-")[2]
        if name.endswith(".whl"):
            _unzip(path, place)
            continue
        _write_licences(root, downloads.FROM_SOURCE, bindings.licences(path))
        work = scratch / "bindings"
        work.mkdir()
        bindings.compile_bindings(path, tools, work, place)
    for info in sorted(place.glob("*.dist-info")):
        texts = [p for p in info.rglob("*") if p.is_file() and _is_licence(p.name)]
        name = canonical(info.name.split("-")[0])
        _write_licences(root, name, {p.name: p.read_bytes() for p in texts})
        for path in texts:
            path.unlink()
    _remove_empty_folders(place)


def _unzip(wheel: Path, into: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith("/") and not any(fnmatch(name, p) for p in _UNWANTED_OF_WHEELS):
                archive.extract(name, into)


def _is_licence(name: str) -> bool:
    return any(word in name.lower() for word in _LICENCE_WORDS)


def _write_licences(root: Path, part: str, texts: dict[str, bytes]) -> None:
    folder = root / LICENSES / part
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_bytes(text)


def _licences_of_debian(root: Path, trees: Sequence[Path], debs: Iterable[Deb]) -> None:
    for deb in debs:
        for tree in trees:
            path = tree / "usr/share/doc" / deb.name / "copyright"
            if path.is_file():  # it may be a link to that of another package, which is there too
                _write_licences(root, f"debian-{deb.name}", {"copyright": path.read_bytes()})
    common = trees[0] / "usr/share/common-licenses"
    texts = {path.name: path.read_bytes() for path in common.iterdir() if path.is_file()}
    _write_licences(root, "common-licenses", texts)


def _finish_binaries(root: Path, patchelf: Path) -> None:
    binaries = [path for path in (root / PYTHON).rglob("*") if is_binary(path)]
    strip(binaries)
    ours = {path.name for path in (root / PYTHON / "lib-fallback").iterdir()}
    # The loader looks for what a library needs in the library's own places only.
    needing = [path for path in binaries if needed(path) & ours]
    look_for_libraries_in(patchelf, root / PYTHON / "lib", needing)


def _remove_empty_folders(place: Path) -> None:
    for folder in sorted((p for p in place.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def _forget_old_ones(newest: Path) -> None:
    layers = sorted(
        (path for path in LAYERS.iterdir() if path != newest and not path.name.startswith(".")),
        key=lambda path: path.stat().st_mtime,
    )
    for path in layers[: max(0, len(layers) - _KEPT_LAYERS + 1)]:
        shutil.rmtree(path)
