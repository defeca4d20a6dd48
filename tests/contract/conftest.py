"""Fixtures for tests of NBD."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.nbd_server import Fake, FakeServer, Peer


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: names of sockets end at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="vmb-test-") as name:
        yield Path(name)


@pytest.fixture
def fake(folder: Path) -> Iterator[Fake]:
    """Makes servers that behave as told."""
    with ExitStack() as stack:

        def make(behave: Callable[[Peer], None], **options: object) -> FakeServer:
            server = FakeServer(folder / "fake.socket", behave, **options)  # type: ignore[arg-type]
            stack.callback(server.close)
            return server

        yield make
