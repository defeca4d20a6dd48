"""What a domain has beside its disks: read from its XML, found in libvirt's folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from lxml import etree

from vm_babysitter.adapters.libvirt.xml import parse_document
from vm_babysitter.ports import Belongings

_USUAL_ROOTS = (
    Path("/var/lib/libvirt/swtpm"),
    Path("/etc/libvirt/qemu/swtpm/tpm-states"),  # Unraid
)
_VERSION_FOLDERS = {"1.2": "tpm1.2", "2.0": "tpm2"}
_ELSEWHERE = "the NVRAM is not included: it lies on a network source"
_EXTERNAL = "the TPM state is not included: the TPM's emulator is not run by libvirt"


def usual_tpm_roots(uri: str) -> tuple[Path, ...]:
    """Return the folders in which libvirt may keep the state of its TPMs."""
    parts = urlsplit(uri)
    root = parse_qs(parts.query).get("root")
    if parts.path == "/embed" and root:
        return (Path(root[0]) / "lib" / "swtpm",)
    return _USUAL_ROOTS


def find_belongings(domain_xml: str, uuid: str, roots: Sequence[Path]) -> Belongings:
    """Return what the XML tells; whether it autostarts or is saved is not in there."""
    root = parse_document(domain_xml)
    nvram, nvram_format, nvram_unread = _nvram(root.find("os/nvram"))
    tpm = _tpm(root, uuid, roots)
    return Belongings(
        nvram=nvram,
        nvram_format=nvram_format,
        tpm=tpm.path,
        tpm_in_one_file=tpm.one_file,
        out_of_reach=tuple(words for words in (nvram_unread, tpm.unread) if words),
    )


def _nvram(element: etree._Element | None) -> tuple[str, str, str]:
    """Return path, format, and why there is no path though there is an NVRAM."""
    if element is None:
        return "", "raw", ""
    format = element.get("format", "raw")
    source = element.find("source")
    if source is None:
        return element.text or "", format, ""
    path = source.get("file") or source.get("dev") or ""
    return path, format, "" if path else _ELSEWHERE


@dataclass(frozen=True, slots=True)
class _Tpm:
    path: str = ""
    one_file: bool = False
    unread: str = ""


def _tpm(root: etree._Element, uuid: str, roots: Sequence[Path]) -> _Tpm:
    for backend in root.findall("devices/tpm/backend"):
        if backend.get("type") == "external":
            return _Tpm(unread=_EXTERNAL)
        if backend.get("type") == "emulator":
            source = backend.find("source")
            if source is not None and source.get("path"):
                return _Tpm(source.get("path", ""), source.get("type") == "file")
            return _Tpm(_state_folder(roots, uuid, backend.get("version", "")))
    return _Tpm()


def _state_folder(roots: Sequence[Path], uuid: str, version: str) -> str:
    """Return where the state lies; where it should lie if it is nowhere."""
    known = _VERSION_FOLDERS.get(version)
    names = [known] if known else ["tpm2", "tpm1.2"]
    folders = [root / uuid / name for root in roots for name in names]
    return str(next((folder for folder in folders if folder.is_dir()), folders[0]))
