"""``qemu-img``: describe, create and check image files."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vm_babysitter.adapters.process import execute, run, start
from vm_babysitter.adapters.qemu.nodes import as_filename, file_node, shared_chain
from vm_babysitter.domain.errors import CommandFailed, ImageUnreadable, InvalidInput
from vm_babysitter.ports import ImageInfo

PROGRAM = "qemu-img"
TIMEOUT = 120.0
"""Seconds for what reads or writes little metadata; a sleeping hard disk needs 15 of them."""
CHECK_TIMEOUT = 3600.0
"""Seconds for a check, which reads all metadata."""

_LOCKED = re.compile(r'Failed to get .*"(write|consistent read|resize)" lock')  # QEMU's words
_CORRUPT, _LEAKS, _NOT_SUPPORTED = 2, 3, 63  # exit statuses of `qemu-img check`
_DIFFERENT = 1  # exit status of `qemu-img compare`
_LOOK_SECONDS = 0.2


def info(path: Path) -> ImageInfo:
    """Describe one image, its backing files left aside. The format is probed from the content.

    Raises:
        ImageUnreadable: with QEMU's words.
    """
    name = as_filename({"file": file_node(path)})
    try:
        text = run([PROGRAM, "info", "--output=json", "-U", name], timeout=TIMEOUT)
    except CommandFailed as error:
        raise ImageUnreadable(str(path), words(error.output, path)) from error
    return _parsed(path, json.loads(text))


def create(path: Path, format: str, size: int, cluster_size: int | None = None) -> None:
    """Create an empty image of ``size`` bytes.

    Raises:
        InvalidInput: there is something of this name.
        CommandFailed: no space, no such format, ...
    """
    path = path.absolute()
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        rule = "exists; it is not overwritten"
        raise InvalidInput("path", str(path), rule, "Choose another name.") from None
    options = [] if cluster_size is None else ["-o", f"cluster_size={cluster_size}"]
    try:
        argv = [PROGRAM, "create", "-q", "-f", format, *options, "--", str(path), str(size)]
        run(argv, timeout=TIMEOUT)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def check(path: Path) -> str:
    """Check the metadata of one image and return what is wrong with it, empty if nothing is.

    Raises:
        ImageUnreadable: it could not be checked; with QEMU's words.
    """
    name = as_filename({"file": file_node(path)})
    done = execute([PROGRAM, "check", "-U", name], timeout=CHECK_TIMEOUT)
    match done.status:
        case 0:
            return ""
        case s if s == _NOT_SUPPORTED:  # raw images have no metadata
            return ""
        case s if s in (_CORRUPT, _LEAKS):
            lines = (done.stderr + done.stdout).splitlines()
            return "\n".join(line for line in lines if line and not line.startswith("Image end"))
    raise ImageUnreadable(str(path), words(done.stderr or done.stdout, path))


def same_content(
    left: tuple[Path, str], right: tuple[Path, str], go_on: Callable[[], None]
) -> bool:
    """Compare two images, each with its format; ``go_on`` may end it by raising.

    Raises:
        ImageUnreadable: with QEMU's words.
    """
    if info(left[0]).virtual_size != info(right[0]).virtual_size:
        return False
    names = [as_filename(shared_chain([image])) for image in (left, right)]
    go_on()
    with start([PROGRAM, "compare", "-q", "-U", *names], grace=0) as program:
        while not program.exited(_LOOK_SECONDS):
            go_on()
        match program.stop():
            case 0:
                return True
            case s if s == _DIFFERENT:
                return False
        said = program.stderr_tail()
    culprit = right[0] if f"'{right[0].absolute()}'" in said else left[0]
    raise ImageUnreadable(str(culprit), words(said, culprit))


def words(output: str, path: Path) -> str:
    """Return what QEMU says of an image, without the parts that only repeat its name."""
    line = next((x for x in output.splitlines() if x.strip()), "no reason was given")
    for name_ends in (f"{path.absolute()}': ", "}': "):
        _, found, rest = line.rpartition(name_ends)
        if found:
            line = rest
            break
    return line.removeprefix("qemu-img: ").strip().rstrip(".")


def is_locked(output: str) -> bool:
    """Whether QEMU says that another program's lock keeps it from opening an image."""
    return _LOCKED.search(output) is not None


def _parsed(path: Path, told: dict[str, Any]) -> ImageInfo:
    specific = told.get("format-specific", {}).get("data", {})
    bitmaps = specific.get("bitmaps", [])
    return ImageInfo(
        path=path,
        format=told["format"],
        virtual_size=told["virtual-size"],
        backing_file=told.get("backing-filename"),
        backing_format=told.get("backing-filename-format"),
        cluster_size=told.get("cluster-size"),
        compat=specific.get("compat", "") if told["format"] == "qcow2" else "",
        data_file=specific.get("data-file", ""),
        allocated=_allocated(path, told),
        bitmaps=tuple((bitmap["name"], frozenset(bitmap["flags"])) for bitmap in bitmaps),
        internal_snapshots=len(told.get("snapshots", ())),
    )


def _allocated(path: Path, told: dict[str, Any]) -> int | None:
    if "backing-filename" in told or "data-file" in told.get("format-specific", {}).get("data", {}):
        return None
    if path.is_block_device():  # of which nothing is known but its size
        return int(told["virtual-size"])
    size: int | None = told.get("actual-size")
    return size
