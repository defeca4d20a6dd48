"""Where things are in the repository, and where the package puts them."""

import os
from pathlib import Path

NAME = "vm-babysitter"

REPOSITORY = Path(__file__).resolve().parents[1]
BUILD = REPOSITORY / "build"
LOCKS = Path(os.environ.get("VMB_BUILD_LOCKS", BUILD))
DEBIAN_LOCK = LOCKS / "debian.lock"
REQUIREMENTS_LOCK = LOCKS / "requirements.lock"
TEMPLATES = BUILD / "templates"
INSTALL = BUILD / "install"
RELEASE = BUILD / "release.toml"
DIST = REPOSITORY / "dist"
CACHE = Path(os.environ.get("VMB_BUILD_CACHE", REPOSITORY / ".cache" / "package"))
"""What was downloaded, and the private Python made of it."""

# Below the root of an Unraid server, without a leading slash.
HOME = Path("usr/local") / NAME
PYTHON = HOME / "python"
PACKAGES = PYTHON / "lib/python3/dist-packages"
"""Where Debian's Python looks for libraries; it is the only such place it finds here."""
BACKEND = HOME / "backend"
LICENSES = HOME / "licenses"
PLUGIN = Path("usr/local/emhttp/plugins") / NAME
COMMAND = Path("usr/local/sbin") / NAME
