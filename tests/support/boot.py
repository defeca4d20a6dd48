"""Boot sectors: a guest of a few bytes that brings its VM into a state, and then idles."""

from lxml import etree

_SECTOR = 512
_IDLE = b"\xfb\xf4\xeb\xfd"  # sti; again: hlt; jmp again
_PM_CONTROL = (0x604, 0xB004)
"""Where SeaBIOS puts the power management register; the second is that of old machines."""
_ENABLE = 0x2000
_PVPANIC = 0x505

PANIC_DEVICE = "<panic model='isa'><address type='isa' iobase='0x505'/></panic>"


def idles() -> bytes:
    """The guest idles."""
    return _boot_sector(b"")


def suspends() -> bytes:
    """The guest suspends to RAM; ``able`` must have been asked for."""
    return _boot_sector(b"".join(_outw(port, _ENABLE | 1 << 10) for port in _PM_CONTROL))


def powers_off() -> bytes:
    """The guest powers off."""
    return _boot_sector(b"".join(_outw(port, _ENABLE) for port in _PM_CONTROL))


def panics() -> bytes:
    """The guest tells the panic device that it has crashed."""
    return _boot_sector(b"\xba" + _word(_PVPANIC) + b"\xb0\x01\xee")


def writes(drive: int) -> bytes:
    """The guest writes the first sector of a drive of the BIOS (0x80 is the first)."""
    return _boot_sector(
        b"\x31\xc0\x8e\xc0\xbb\x00\x7c"  # es = 0, bx = 0x7c00
        b"\xb8\x01\x03\xb9\x01\x00"  # ax = write 1 sector, cx = cylinder 0, sector 1
        b"\xba" + bytes([drive, 0]) + b"\xcd\x13"  # dx = head 0 of the drive; int 13h
    )


def able(xml: str) -> str:
    """Return a definition of a test VM whose guest can suspend, power off and crash.

    Without KVM, where boot code is not always welcome.
    """
    domain = etree.fromstring(xml)
    domain.set("type", "qemu")
    if domain.find("features/acpi") is None:
        etree.SubElement(etree.SubElement(domain, "features"), "acpi")
    etree.SubElement(etree.SubElement(domain, "pm"), "suspend-to-mem", enabled="yes")
    crash = domain.find("on_crash")
    if crash is None:
        crash = etree.SubElement(domain, "on_crash")
    crash.text = "preserve"
    etree.strip_elements(domain, "boot")
    for number, disk in enumerate(domain.findall("devices/disk"), 1):  # else it sees the first only
        etree.SubElement(disk, "boot", order=str(number))
    return etree.tostring(domain, encoding="unicode")


def _boot_sector(code: bytes) -> bytes:
    return (code + _IDLE).ljust(_SECTOR - 2, b"\x00") + b"\x55\xaa"


def _outw(port: int, value: int) -> bytes:
    return b"\xba" + _word(port) + b"\xb8" + _word(value) + b"\xef"


def _word(value: int) -> bytes:
    return value.to_bytes(2, "little")
