"""What Unraid's plugin manager does with a plugin's file, told from its own description.

In a bare root. The package tools are stand-ins: they unpack, run the package's script, and note
what is installed, in the folder where the real ones do.
"""

import hashlib
import shutil
from pathlib import Path

from lxml import etree

from tests.support.bare_root import BareRoot

_FLASH = "boot/config/plugins"
_RECORDS = "var/lib/pkgtools/packages"
_UPGRADEPKG = f"""#!/bin/bash
set -eu
[[ $1 == --install-new && $2 == --reinstall ]]
name=${{3##*/}}; name=${{name%.txz}}
for old in /{_RECORDS}/*; do [[ -e $old ]] && rm "$old"; done
tar --extract --keep-directory-symlink --file "$3" -C /
tar --list --file "$3" | grep -v '/$' >/tmp/inline-list
cd / && sh install/doinst.sh -install && rm -r install
mv /tmp/inline-list "/{_RECORDS}/$name"
"""
_REMOVEPKG = f"""#!/bin/bash
set -eu
cd /
while read -r file; do rm -f "$file"; done <"/{_RECORDS}/$1"
rm "/{_RECORDS}/$1"
echo "$1" >>/removed
"""


class InstallFailed(Exception):
    """What the plugin manager says when it gives up."""


class PluginManager:
    """``plugin install`` and ``plugin remove`` in a bare root; ``web``: what can be downloaded."""

    def __init__(self, bare: BareRoot) -> None:
        self.bare = bare
        self.web: dict[str, bytes] = {}
        self.said: list[str] = []
        for folder in (_FLASH, _RECORDS):
            (bare.root / folder).mkdir(parents=True)
        for name, text in (("upgradepkg", _UPGRADEPKG), ("removepkg", _REMOVEPKG)):
            path = bare.root / "usr/bin" / name
            path.write_text(text)
            path.chmod(0o755)
        for name in ("cmp", "curl", "grep", "mv", "sleep", "stat", "tail", "tar", "timeout", "xz"):
            bare.have_program(name)

    @property
    def installed(self) -> list[str]:
        """The packages that are installed."""
        return sorted(path.name for path in (self.bare.root / _RECORDS).iterdir())

    @property
    def flash(self) -> Path:
        """The folder of our plugin on the flash drive."""
        return self.bare.root / _FLASH / "vm-babysitter"

    def install(self, plg: Path) -> None:
        """Install a plugin, or do so at boot. Raises InstallFailed."""
        kept = self.bare.root / _FLASH / "vm-babysitter.plg"
        if plg != kept and kept.exists() and _version(plg) < _version(kept):
            raise InstallFailed("not installing older version")
        self._perform(plg, "install")
        if plg != kept:
            shutil.copy(plg, kept)

    def remove(self) -> str:
        """Remove it; returns what it says to the user."""
        before = len(self.said)
        plg = self.bare.root / _FLASH / "vm-babysitter.plg"
        self._perform(plg, "remove")
        plg.unlink()
        return "".join(self.said[before:])

    def reboot(self) -> None:
        """Lose all but the flash drive, as far as it is ours."""
        for path in (self.bare.root / _RECORDS).iterdir():
            path.unlink()
        for place in ("usr/local/vm-babysitter", "usr/local/emhttp", "usr/local/sbin"):
            shutil.rmtree(self.bare.root / place, ignore_errors=True)
        for path in (self.bare.root / "usr/local/etc/rc.d").iterdir():
            path.unlink()

    def _perform(self, plg: Path, method: str) -> None:
        parser = etree.XMLParser(resolve_entities=True, strip_cdata=True, no_network=True)
        for number, file in enumerate(etree.parse(plg, parser).getroot().findall("FILE")):
            if method in file.get("Method", "install").split():
                self._file(file, f"/tmp/inline{number}-vm-babysitter.sh")

    def _file(self, file: etree._Element, script: str) -> None:
        name, runs = file.get("Name"), file.get("Run")
        inline = file.findtext("INLINE")
        if name:
            self._have(self.bare.root / name.lstrip("/"), file)
        elif inline is not None:
            name = script
            path = self.bare.root / script.lstrip("/")
            path.write_text(inline.strip() + "\n")
        if runs:
            assert name
            try:
                self.said.append(self.bare.call("/bin/bash", "-c", f"{runs} {name}"))
            except AssertionError as e:
                raise InstallFailed(f"run failed: {e}") from e

    def _have(self, path: Path, file: etree._Element) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = (file.findtext("SHA256") or "").strip()
        if path.exists() and digest and _sha256(path) != digest:
            path.unlink()
        if path.exists():
            return
        url = (file.findtext("URL") or "").strip()
        if url not in self.web:
            raise InstallFailed(f"{url}: download failure")
        path.write_bytes(self.web[url])
        if _sha256(path) != digest:
            raise InstallFailed(f"{url}: bad file SHA256")


def _version(plg: Path) -> str:
    return str(etree.parse(plg).getroot().get("version"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
