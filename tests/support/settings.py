"""Settings in a file, as a daemon has them."""

import json
from pathlib import Path
from typing import Any

from vm_babysitter.config.file import SettingsFile
from vm_babysitter.service.configuration import Configuration

STORE = "/mnt/user/backups"


def write(path: Path, **sections: Any) -> None:
    """Write settings as somebody with an editor does."""
    path.write_text(json.dumps({"version": 1, **sections}))


def configured(path: Path, **sections: Any) -> Configuration:
    """Return what a daemon makes of them."""
    write(path, **sections)
    made = Configuration(SettingsFile(path))
    made.load()
    return made
