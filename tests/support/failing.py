"""A host that refuses one path, as one whose share is gone does."""

import os
from pathlib import Path
from typing import Any

import pytest


def fail_at(monkeypatch: pytest.MonkeyPatch, call: str, path: Path, number: int) -> None:
    """Have the host refuse one path."""
    real = getattr(os, call)

    def refuse(asked: Any, *arguments: Any, **options: Any) -> Any:
        if os.fspath(asked) == os.fspath(path):
            raise OSError(number, os.strerror(number))
        return real(asked, *arguments, **options)

    monkeypatch.setattr(os, call, refuse)
