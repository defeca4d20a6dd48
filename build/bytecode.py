"""Compiles Python files with the interpreter that is going to run them, the same bytes each time.

They are compiled for the place where they will lie, and never looked at again: Unraid's files lie
in RAM, where nothing should be written.
"""

from pathlib import Path

from build.places import PYTHON
from build.programs import run

_COMPILE = """
import py_compile, sys
from pathlib import Path
root, folder = Path(sys.argv[1]), Path(sys.argv[2])
for path in sorted((root / folder).rglob("*.py")):
    py_compile.compile(
        str(path), dfile="/" + str(path.relative_to(root)), doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


def compile_below(root: Path, folder: Path) -> None:
    """Compile all files of a folder below ``root``, where the interpreter is, too."""
    interpreter = root / PYTHON / "bin/python3.11"
    run(
        *(interpreter, "-s", "-S", "-P", "-B", "-c", _COMPILE, root, folder),
        environment={
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": "",
        },  # sets of constants are stored in its order
    )
