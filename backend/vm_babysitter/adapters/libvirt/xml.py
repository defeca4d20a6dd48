"""libvirt's XML, read and made. Pure: no calls, no files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lxml import etree

from vm_babysitter.domain.point import Checkpoint
from vm_babysitter.domain.vm import DiskKind
from vm_babysitter.ports import BackupRequest

_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
_SOURCE_ATTRIBUTES = {"file": "file", "block": "dev", "dir": "dir", "vhostuser": "path"}


@dataclass(frozen=True, slots=True)
class DiskDefinition:
    """One ``<disk>`` as the definition has it."""

    target: str
    kind: DiskKind
    source_type: str
    source: str
    driver_format: str
    read_only: bool
    shareable: bool
    transient: bool
    error_policy: str
    alias: str
    encrypted: bool
    beneath: tuple[tuple[str, str], ...]
    """The images beneath it with their formats; an empty path ends the chain."""
    partial: bool
    """Whether it is only a part of its source."""


def parse_document(text: str) -> etree._Element:
    """Return the root of an XML document of libvirt's."""
    return etree.fromstring(text.encode(), _PARSER)


def parse_disks(domain_xml: str) -> tuple[DiskDefinition, ...]:
    """Return the disks of a domain's XML in its order."""
    root = parse_document(domain_xml)
    return tuple(_parse_disk(disk) for disk in root.findall("devices/disk"))


def _parse_disk(disk: etree._Element) -> DiskDefinition:
    source = disk.find("source")
    source_type = disk.get("type", "file")
    place = "" if source is None else _source_place(source, source_type)
    driver, alias = disk.find("driver"), disk.find("alias")
    target = disk.find("target")
    return DiskDefinition(
        target="" if target is None else target.get("dev", ""),
        kind=DiskKind(disk.get("device", "disk")),
        source_type=source_type if place else "",
        source=place,
        driver_format="" if driver is None else driver.get("type", ""),
        read_only=disk.find("readonly") is not None,
        shareable=disk.find("shareable") is not None,
        transient=disk.find("transient") is not None,
        error_policy="" if driver is None else driver.get("error_policy", ""),
        alias="" if alias is None else alias.get("name", ""),
        encrypted=_is_encrypted(disk),
        beneath=tuple(_beneath(disk)),
        partial=disk.find("source/slices") is not None,
    )


def _is_encrypted(disk: etree._Element) -> bool:
    return any(disk.find(place) is not None for place in ("encryption", "source/encryption"))


def _beneath(disk: etree._Element) -> Iterator[tuple[str, str]]:
    """Return what the definition itself says of the images beneath; mostly nothing."""
    layer = disk.find("backingStore")
    while layer is not None:
        source, format = layer.find("source"), layer.find("format")
        if source is None:
            yield "", ""
            return
        place = _source_place(source, layer.get("type", "file"))
        yield place, "" if format is None else format.get("type", "")
        layer = layer.find("backingStore")


def _source_place(source: etree._Element, source_type: str) -> str:
    if source_type in _SOURCE_ATTRIBUTES:
        return source.get(_SOURCE_ATTRIBUTES[source_type], "")
    if source_type == "volume":
        return f"{source.get('pool', '')}/{source.get('volume', '')}"
    if source_type == "network":
        return f"{source.get('protocol', '')}:{source.get('name', '')}"
    return source_type


def agent_missing(live_domain_xml: str) -> str:
    """Return why there is no guest agent to ask, empty if one is connected."""
    root = parse_document(live_domain_xml)
    for target in root.findall("devices/channel/target"):
        if target.get("name") == "org.qemu.guest_agent.0":
            connected = target.get("state", "connected") == "connected"
            return "" if connected else "no guest agent is running in the VM"
    return "the VM has no guest agent"


def process_owner(live_domain_xml: str) -> tuple[int, int] | None:
    """Return user and group id of a VM's QEMU, None where libvirt does not set them."""
    root = parse_document(live_domain_xml)
    for label in root.findall("seclabel[@model='dac']/label"):
        user, _, group = (label.text or "").partition(":")
        if user.lstrip("+").isdecimal() and group.lstrip("+").isdecimal():
            return int(user.lstrip("+")), int(group.lstrip("+"))
    return None


def backup_xml(request: BackupRequest, other_targets: Sequence[str]) -> str:
    """Return the ``<domainbackup>`` of a pull job; ``other_targets`` are left out of it."""
    root = etree.Element("domainbackup", mode="pull")
    etree.SubElement(root, "server", transport="unix", socket=request.socket)
    disks = etree.SubElement(root, "disks")
    for disk in request.disks:
        node = etree.SubElement(disks, "disk", name=disk.target, backup="yes", type="file")
        if disk.since is None:
            node.set("backupmode", "full")
        else:
            node.set("backupmode", "incremental")
            node.set("incremental", disk.since)
        etree.SubElement(node, "driver", type="qcow2")
        etree.SubElement(node, "scratch", file=disk.scratch)
    for target in other_targets:
        etree.SubElement(disks, "disk", name=target, backup="no")
    return etree.tostring(root, encoding="unicode")


def checkpoint_xml(
    name: str, targets: Sequence[str], other_targets: Sequence[str], created: int | None = None
) -> str:
    """Return a ``<domaincheckpoint>`` with bitmaps on ``targets`` only.

    ``created`` (seconds since the epoch) is for telling libvirt again of an earlier one. It
    never names a parent: a lone checkpoint can be adopted and removed without its ancestors.
    """
    root = etree.Element("domaincheckpoint")
    etree.SubElement(root, "name").text = name
    if created is not None:
        etree.SubElement(root, "creationTime").text = str(created)
    disks = etree.SubElement(root, "disks")
    for target in targets:
        etree.SubElement(disks, "disk", name=target, checkpoint="bitmap")
    for target in other_targets:
        etree.SubElement(disks, "disk", name=target, checkpoint="no")
    return etree.tostring(root, encoding="unicode")


def adoption_xml(checkpoint: Checkpoint, other_targets: Sequence[str]) -> str:
    """Return the XML by which libvirt is told again of an earlier checkpoint."""
    return checkpoint_xml(checkpoint.name, checkpoint.disks, other_targets, checkpoint.created)


def backup_socket(backup_xml_text: str) -> str:
    """Return the NBD socket of a running backup job's XML, empty where it has none."""
    root = parse_document(backup_xml_text)
    server = root.find("server")
    return "" if server is None else server.get("socket", "")
