"""Which images definitions name, and how one is exchanged. Pure: no calls, no files."""

from collections.abc import Iterator

from lxml import etree

from vm_babysitter.adapters.libvirt.xml import parse_document
from vm_babysitter.ports import DiskSource

_KEPT_WITH_ANY_IMAGE = frozenset({"seclabel"})


def named_images(domain_xml: str) -> Iterator[tuple[str, str]]:
    """Return target and path of each file or block device that is a disk or beneath one."""
    for disk in parse_document(domain_xml).findall("devices/disk"):
        for source in disk.iter("source"):
            path = source.get("file") or source.get("dev")
            if path:
                yield _target(disk), path


def source_of(domain_xml: str, target: str) -> DiskSource | None:
    """Return the image of one disk; None if there is no such disk."""
    disk = _find(parse_document(domain_xml), target)
    return None if disk is None else _source(disk)


def switched_disk(domain_xml: str, target: str, old: DiskSource, new: DiskSource) -> str | None:
    """Return the ``<disk>`` with another image, all else as it is; None if it has not ``old``."""
    disk = _find(parse_document(domain_xml), target)
    if disk is None or _source(disk) != old:
        return None
    source, driver = disk.find("source"), disk.find("driver")
    if source is None or driver is None:
        return None
    source.set("file", new.file)
    driver.set("type", new.format)
    return etree.tostring(disk, encoding="unicode", with_tail=False)


def _find(root: etree._Element, target: str) -> etree._Element | None:
    return next((d for d in root.findall("devices/disk") if _target(d) == target), None)


def _target(disk: etree._Element) -> str:
    target = disk.find("target")
    return "" if target is None else target.get("dev", "")


def _source(disk: etree._Element) -> DiskSource:
    source, driver = disk.find("source"), disk.find("driver")
    if source is None or disk.get("type", "file") != "file":
        return DiskSource("", "")
    bound = [
        etree.QName(child).localname
        for child in source
        if isinstance(child.tag, str) and child.tag not in _KEPT_WITH_ANY_IMAGE
    ]
    backing, mirror = disk.find("backingStore"), disk.find("mirror")
    bound += ["backingStore"] if backing is not None and len(backing) else []
    bound += ["mirror"] if mirror is not None else []
    bound += ["encryption"] if disk.find("encryption") is not None else []
    format = "" if driver is None else driver.get("type", "")
    return DiskSource(source.get("file", ""), format, tuple(bound))
