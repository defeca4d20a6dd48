"""VM Babysitter: incremental backups of libvirt/QEMU virtual machines."""

__version__ = "2026.11.24"
