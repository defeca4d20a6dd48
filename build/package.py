"""`make package`: the package for Unraid, and the documents that name it."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from build import archive, documents, release, runtime, tree
from build.downloads import Unavailable
from build.locks import sha256
from build.places import CACHE, DIST, HOME, REPOSITORY
from build.programs import BuildFailed, run

MIB = 1 << 20
LARGEST_PACKED, LARGEST_UNPACKED = 16 * MIB, 60 * MIB
_LISTED = 5


def build(folder: Path, root: Path, effort: int = archive.BEST) -> Path:
    """Assemble the package's content in ``root``, which is empty, and pack it into ``folder``."""
    tree.assemble(root, runtime.layer())
    version = release.version()
    package = folder / release.package_file(version)
    archive.pack(root, package, release.moment(version), effort)
    return package


def size(path: Path) -> int:
    """Return the bytes in all files below a folder, or those of a file."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def largest_parts(root: Path) -> list[tuple[str, int]]:
    """Return the largest parts, largest first: libraries, the program, what lies beside them."""
    sizes = {str(path.relative_to(root / HOME)): size(path) for path in _parts(root / HOME)}
    return sorted(sizes.items(), key=lambda item: -item[1])[:_LISTED]


def _parts(home: Path) -> Iterator[Path]:
    """Yield what counts as one part: parts are what could be left out by itself."""
    deeper = {"python", "python/lib", "python/lib/python3", "python/lib/python3/dist-packages"}
    for path in home.iterdir():
        yield from _divided(home, path, deeper)


def _divided(home: Path, path: Path, deeper: set[str]) -> Iterator[Path]:
    if str(path.relative_to(home)) in deeper:
        for child in path.iterdir():
            yield from _divided(home, child, deeper)
    else:
        yield path


def make(options: argparse.Namespace) -> None:
    """Build it, write the documents, and say how large it is."""
    begun = time.monotonic()
    options.packages.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="root-") as scratch:
        root = Path(scratch)
        effort = archive.QUICK if options.quick else archive.BEST
        package = build(options.packages, root, effort)
        unpacked = size(root)
        parts = largest_parts(root)
    made = documents.Package(release.version(), sha256(package))
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    rendered = documents.render(made, release.publisher(), changelog)
    documents.write(rendered, options.documents)
    packed = package.stat().st_size
    _say(f"{package}: {packed / MIB:.1f} MiB, unpacked {unpacked / MIB:.1f} MiB")
    for part, length in parts:
        _say(f"  {part:<44} {length / MIB:5.1f} MiB")
    _say(f"made in {time.monotonic() - begun:.0f} s; {', '.join(rendered)} name it")
    if (not options.quick and packed > LARGEST_PACKED) or unpacked > LARGEST_UNPACKED:
        raise BuildFailed("that is too large: it lies on the flash drive, and in RAM")


def make_of_what_there_is(arguments: list[str]) -> None:
    """Do the same with the versions that can be had today, in a process with other locks."""
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="locks-") as locks:
        environment = {"VMB_BUILD_LOCKS": locks}
        run(sys.executable, "-m", "build.lock", folder=REPOSITORY, environment=environment)
        command = (sys.executable, "-m", "build.package", *arguments)
        sys.stdout.write(run(*command, folder=REPOSITORY, environment=environment))


def main(arguments: list[str]) -> None:
    """Read the options, and build it."""
    parser = argparse.ArgumentParser(prog="python -m build.package", description=__doc__)
    parser.add_argument("--packages", type=Path, default=DIST, help="folder of the package")
    parser.add_argument("--documents", type=Path, default=REPOSITORY, help="folder of the others")
    parser.add_argument("--quick", action="store_true", help="compress less, to try something")
    parser.add_argument(
        "--any-version",
        action="store_true",
        help="where Debian has replaced what build/debian.lock names, take what there is",
    )
    options = parser.parse_args(arguments)
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        make(options)
    except Unavailable:
        if not options.any_version:
            raise
        make_of_what_there_is([word for word in arguments if word != "--any-version"])


def _say(text: str) -> None:
    sys.stdout.write(f"package: {text}\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BuildFailed as e:
        sys.exit(f"package: {e}")
