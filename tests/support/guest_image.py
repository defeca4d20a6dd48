"""The kernel and the initramfs of the test guest, made from Debian packages.

The packages are unpacked, never installed. What comes of it is kept in the checkout, under a
name made from the recipe and the versions of the packages.
"""

import hashlib
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_INIT = Path(__file__).with_name("guest_init.sh")
_CACHE = Path(__file__).parents[2] / ".cache" / "guest"
_KERNEL = "linux-image-cloud-amd64"
_AGENT = "qemu-guest-agent"
_BUSYBOX = "busybox-static"
_MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
)
"""In the order of loading. ext4 and the serial line are part of the kernel image."""
_APPLETS = (
    *("sh", "cat", "chmod", "grep", "insmod", "killall", "mkdir", "mount", "rm", "sleep"),
    *("stty", "sync", "true", "usleep"),
)


@dataclass(frozen=True, slots=True)
class GuestImage:
    """What a VM boots."""

    kernel: Path
    initramfs: Path


def guest_image() -> GuestImage:
    """Return the guest's kernel and initramfs; the first time on a machine they are made."""
    recipe = _digest(Path(__file__).read_bytes() + _INIT.read_bytes())
    packages = _packages()
    if not packages:  # no package lists: what was made before will do
        made = sorted(_CACHE.glob(f"{recipe}-*"))
        if not made:
            _apt("update", "-q")
            packages = _packages()
    if packages:
        made = [_CACHE / f"{recipe}-{_digest(' '.join(packages).encode())}"]
    if not made[-1].exists():
        _make(packages, made[-1])
    return GuestImage(made[-1] / "vmlinuz", made[-1] / "initramfs")


def _packages() -> list[str]:
    """Return the packages as ``name=version``; none if the machine does not know them all."""
    text = _output("apt-cache", "depends", _KERNEL)
    kernel = re.search(r"Depends: (linux-image-\S+)", text)
    names = [kernel[1] if kernel else "", _AGENT, _BUSYBOX]
    found = []
    for name in names:
        candidate = re.search(r"Candidate: (\S*\d\S*)", _output("apt-cache", "policy", name))
        if not candidate:
            return []
        found.append(f"{name}={candidate[1]}")
    return found


def _make(packages: list[str], place: Path) -> None:
    """Download the packages and make ``place``, whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=place.parent, prefix="making-"))
    try:
        _download(packages, folder)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
        result = folder / "result"
        result.mkdir()
        (kernel,) = folder.glob("root/boot/vmlinuz-*")
        kernel.rename(result / "vmlinuz")
        (result / "initramfs").write_bytes(_initramfs(folder / "root"))
        if not place.exists():  # somebody else may have been quicker
            result.rename(place)
        for older in set(place.parent.glob("[!m]*")) - {place}:  # not what others are making
            shutil.rmtree(older, ignore_errors=True)
    finally:
        shutil.rmtree(folder)


def _download(packages: list[str], folder: Path) -> None:
    try:
        _apt("download", "-q", *packages, folder=folder)
    except subprocess.CalledProcessError:  # the lists are older than the mirror
        _apt("update", "-q")
        _apt("download", "-q", *_packages(), folder=folder)


def _initramfs(root: Path) -> bytes:
    """Return the archive: busybox, the agent and its libraries, the modules, the init."""
    agent = root / "usr/sbin/qemu-ga"
    files = {"init": _INIT, "bin/busybox": root / "bin/busybox", "bin/qemu-ga": agent}
    # The libraries are those of this machine: QEMU's own tools depend on the same ones.
    for library in re.findall(r"(?:=> |^\s+)(/\S+)", _output("ldd", str(agent)), re.MULTILINE):
        files[library.lstrip("/")] = Path(library)
    for name in _MODULES:
        (files[f"modules/{name}.ko"],) = (root / "lib/modules").rglob(f"{name}.ko")
    archive = _Archive()
    for name, path in files.items():
        archive.add(name, path.read_bytes())
    for applet in _APPLETS:
        archive.add(f"bin/{applet}", b"busybox", stat.S_IFLNK | 0o777)
    archive.add("modules/order", "".join(f"{name}\n" for name in _MODULES).encode())
    # Standard output of the init, before it has mounted anything.
    archive.add("dev/console", b"", stat.S_IFCHR | 0o600, device=(5, 1))
    return archive.finish()


class _Archive:
    """A cpio archive in the format that the kernel reads ("newc")."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._folders: set[str] = set()
        self._inode = 0

    def add(
        self,
        name: str,
        data: bytes,
        mode: int = stat.S_IFREG | 0o755,
        device: tuple[int, int] = (0, 0),
    ) -> None:
        """Add a file, and the folders it lies in."""
        for folder in reversed(Path(name).parents):
            if str(folder) not in {".", *self._folders}:
                self._folders.add(str(folder))
                self._entry(str(folder), b"", stat.S_IFDIR | 0o755, (0, 0))
        self._entry(name, data, mode, device)

    def finish(self) -> bytes:
        """Return the archive."""
        self._entry("TRAILER!!!", b"", 0, (0, 0))
        return bytes(self._content)

    def _entry(self, name: str, data: bytes, mode: int, device: tuple[int, int]) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        user = group = time = major = minor = checksum = 0
        start = (self._inode, mode, user, group, 1, time, len(data), major, minor)
        fields = (*start, *device, len(encoded), checksum)
        self._content += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._pad()
        self._content += data
        self._pad()

    def _pad(self) -> None:
        self._content += bytes(-len(self._content) % 4)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _apt(*arguments: str, folder: Path | None = None) -> None:
    # Not as apt's own user, who may not write into the folder.
    command = ["apt-get", "-o", "APT::Sandbox::User=root", *arguments]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
