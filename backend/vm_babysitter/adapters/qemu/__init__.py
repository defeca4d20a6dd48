"""QEMU's tools, its block export protocol and its image format."""
