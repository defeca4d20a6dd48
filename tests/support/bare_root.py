"""A root that holds only what Unraid has, for what its package installs: no Python, no qemu-nbd."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

_PROGRAMS = (
    "bash",
    "cat",
    "chroot",
    "dirname",
    "env",
    "ln",
    "ls",
    "mkdir",
    "qemu-img",
    "rm",
    "rmdir",
    "sh",
)
_GLIBC = (
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libm.so.6",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
)
LIBVIRT = ("libvirt.so.0", "libvirt-qemu.so.0")
OPENSSL = ("libcrypto.so.3", "libssl.so.3")
_LIBRARIES = Path("/lib/x86_64-linux-gnu")
_ENVIRONMENT = {"HOME": "/root", "PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"}
_ENTER = """
set -eu
root=$1; shift
for place in /proc /sys /dev; do mount --rbind "$place" "$root$place"; done
while [ "$1" != -- ]; do
  mkdir -p "$root$1"; mount --bind "$1" "$root$1"; shift
done
shift
exec chroot "$root" "$@"
"""


class BareRoot:
    """A folder with the loader, a shell, and the libraries that are named, with all they need."""

    def __init__(self, root: Path, libraries: Iterable[str] = ()) -> None:
        self.root = root
        self.bound: tuple[Path, ...] = ()
        """Folders of ours that all its commands see."""
        self.environment: dict[str, str] = {}
        """What all its commands are told besides."""
        for name in ("proc", "sys", "dev", "tmp", "run", "root", "boot", "usr/local/etc/rc.d"):
            (root / name).mkdir(parents=True)
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
        shutil.copy("/etc/localtime", root / "etc/localtime")
        (root / "etc/rc.d").symlink_to("../usr/local/etc/rc.d")  # as on Unraid
        (root / "usr/bin").mkdir()
        (root / "lib64").mkdir()
        (root / _LIBRARIES.relative_to("/")).mkdir(parents=True)
        for name in _GLIBC:
            self._bring(_LIBRARIES / name)
        shutil.copy("/lib64/ld-linux-x86-64.so.2", root / "lib64")
        for name in _PROGRAMS:
            self.have_program(name)
        (root / "bin").symlink_to("usr/bin")
        for name in libraries:
            self.have_library(name)

    def have_program(self, name: str) -> None:
        """Have a program of this machine, with its libraries."""
        found = shutil.which(name)
        assert found, name
        shutil.copy(Path(found).resolve(), self.root / "usr/bin" / name)
        self._bring_needed_by(Path(found))

    def have_library(self, name: str) -> None:
        """Have a library of this machine, with those that it needs."""
        self._bring(_LIBRARIES / name)
        self._bring_needed_by(_LIBRARIES / name)

    def library(self, name: str) -> Path:
        """Where a library lies in this root."""
        return self.root / _LIBRARIES.relative_to("/") / name

    def unpack(self, package: Path) -> None:
        """Unpack a package as Unraid's package tools do, without running what it brings."""
        _run("tar", "--extract", "--keep-directory-symlink", "--file", package, "-C", self.root)

    def install(self, package: Path) -> None:
        """Unpack a package, and run its script as at boot."""
        self.unpack(package)
        self.call("/bin/sh", "install/doinst.sh", "-install")
        shutil.rmtree(self.root / "install")

    def argv(self, *command: str | Path, bound: Sequence[Path] = ()) -> list[str]:
        """What runs a command in there, as the same process, with folders of ours in place."""
        enter = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", _ENTER, "sh"]
        places = [str(place) for place in (*self.bound, *bound)]
        return [*enter, str(self.root), *places, "--", *(str(word) for word in command)]

    def call(
        self,
        *command: str | Path,
        bound: Sequence[Path] = (),
        expect: int = 0,
        environment: dict[str, str] | None = None,
    ) -> str:
        """Run a command in there, which must end with this status; returns what it printed."""
        done = subprocess.run(
            self.argv(*command, bound=bound),
            env={**_ENVIRONMENT, **self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == expect, (command, done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def start(
        self, *command: str | Path, printed: Path, bound: Sequence[Path]
    ) -> subprocess.Popen[bytes]:
        """Start a command in there."""
        with printed.open("ab") as file:
            return subprocess.Popen(
                self.argv(*command, bound=bound),
                env={**_ENVIRONMENT, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def _bring_needed_by(self, path: Path) -> None:
        for found in re.findall(r"=> (/\S+)", _run("ldd", path)):
            self._bring(Path(found))

    def _bring(self, path: Path) -> None:
        target = self.library(path.name)
        if not target.exists():
            shutil.copy(path.resolve(), target)


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout
