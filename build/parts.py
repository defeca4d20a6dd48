"""Which Debian packages a package is made of and with."""

from build.locks import NOTICE, RUNTIME, TOOL

DEBIAN = {
    RUNTIME: (
        "base-files",  # texts of licences that others refer to
        "libbz2-1.0",
        "libexpat1",
        "libffi8",
        "libgcc-s1",
        "liblzma5",
        "libpython3.11-minimal",
        "libpython3.11-stdlib",
        "libsqlite3-0",
        "libssl3",
        "libuuid1",
        "python3.11-minimal",
        "zlib1g",
    ),
    # libvirt-python is compiled against libvirt 9.0: it asks for nothing that a newer one lacks.
    TOOL: ("libpython3.11-dev", "libvirt-dev", "libvirt0", "patchelf"),
    # Of libraries that wheels of lxml and zstandard have inside.
    NOTICE: ("libxml2", "libxslt1.1", "libzstd1"),
}
