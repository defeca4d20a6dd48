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
_REGISTERED = "var/log/plugins"
_CRONTAB = "etc/cron.d/root"
_PROGRAMS = (
    *("cmp", "cp", "curl", "df", "find", "flock", "grep", "mv", "rmdir", "setsid", "sleep"),
    *("stat", "tail", "tar", "timeout", "tr", "xz"),
)
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
_UPDATE_CRON = f"""#!/bin/bash
rm -f /{_CRONTAB}
for link in /{_REGISTERED}/*.plg; do
  name=${{link##*/}}
  for file in /{_FLASH}/"${{name%.plg}}"/*.cron; do
    [[ -e $file ]] && cat "$file" >>/{_CRONTAB}
  done
done
exit 0
"""


class InstallFailed(Exception):
    """What the plugin manager says when it gives up."""


class PluginManager:
    """``plugin install`` and ``plugin remove`` in a bare root; ``web``: what can be downloaded."""

    def __init__(self, bare: BareRoot) -> None:
        self.bare = bare
        self.web: dict[str, bytes] = {}
        self.said: list[str] = []
        for folder in (_FLASH, _RECORDS, _REGISTERED, "etc/cron.d", "usr/local/sbin"):
            (bare.root / folder).mkdir(parents=True)
        for name, text in {
            "usr/bin/upgradepkg": _UPGRADEPKG,
            "usr/bin/removepkg": _REMOVEPKG,
            "usr/local/sbin/update_cron": _UPDATE_CRON,
        }.items():
            path = bare.root / name
            path.write_text(text)
            path.chmod(0o755)
        for name in _PROGRAMS:
            bare.have_program(name)

    @property
    def installed(self) -> list[str]:
        """The packages that are installed."""
        return sorted(path.name for path in (self.bare.root / _RECORDS).iterdir())

    @property
    def flash(self) -> Path:
        """The folder of our plugin on the flash drive."""
        return self.bare.root / _FLASH / "vm-babysitter"

    @property
    def crontab(self) -> str:
        """What cron does for plugins."""
        path = self.bare.root / _CRONTAB
        return path.read_text() if path.exists() else ""

    def install(self, plg: Path) -> None:
        """Install a plugin, or do so at boot. Raises InstallFailed."""
        kept = self.bare.root / _FLASH / "vm-babysitter.plg"
        if plg != kept and kept.exists() and _version(plg) < _version(kept):
            raise InstallFailed("not installing older version")
        self._perform(plg, "install")
        if plg != kept:
            shutil.copy(plg, kept)
        self._link.unlink(missing_ok=True)
        self._link.symlink_to("/" + str(kept.relative_to(self.bare.root)))

    def remove(self) -> str:
        """Remove it; returns what it says to the user."""
        before = len(self.said)
        plg = self.bare.root / _FLASH / "vm-babysitter.plg"
        self._link.unlink()
        self._perform(plg, "remove")
        plg.unlink()
        return "".join(self.said[before:])

    def reboot(self) -> None:
        """Lose all but the flash drive, as far as it is ours."""
        for path in (self.bare.root / _RECORDS).iterdir():
            path.unlink()
        for place in ("usr/local/vm-babysitter", "usr/local/emhttp"):
            shutil.rmtree(self.bare.root / place, ignore_errors=True)
        for path in (
            *(self.bare.root / "usr/local/etc/rc.d").iterdir(),
            self.bare.root / "usr/local/sbin/vm-babysitter",
            self.bare.root / _CRONTAB,
            self._link,
        ):
            path.unlink(missing_ok=True)

    @property
    def _link(self) -> Path:
        """By this a plugin is registered."""
        return self.bare.root / _REGISTERED / "vm-babysitter.plg"

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
