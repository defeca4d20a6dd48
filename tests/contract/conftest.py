"""Fixtures for contract suites: NBD peers, and one hypervisor of each kind."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import private_root
from tests.support.bench import FakeBench, RealBench
from tests.support.embed_here import EmbeddedHere
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.nbd_server import Fake, FakeServer, Peer
from tests.support.vm import vms_on
from vm_babysitter.adapters.libvirt.connection import Connection


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


@pytest.fixture
def fake_bench() -> FakeBench:
    """The fakes."""
    return FakeBench()


@pytest.fixture
def libvirtd_bench(libvirtd: PrivateLibvirtd, folder: Path, tmp_path: Path) -> Iterator[RealBench]:
    """The adapters, talking to a libvirtd."""
    with Connection(libvirtd.uri) as connection, vms_on(libvirtd, tmp_path) as factory:
        bench = RealBench(libvirtd, connection, factory, folder)
        yield bench
        bench.close()


@pytest.fixture(scope="session")
def embed_here() -> Iterator[EmbeddedHere]:
    """An embedded libvirt that this process has open."""
    with private_root() as root:
        host = EmbeddedHere(root)
        try:
            yield host
        finally:
            host.close()


@pytest.fixture
def embed_bench(embed_here: EmbeddedHere, folder: Path, tmp_path: Path) -> Iterator[RealBench]:
    """The adapters on libvirt's driver in this process."""
    with vms_on(embed_here, tmp_path) as factory:
        bench = RealBench(embed_here, embed_here.connection, factory, folder)
        yield bench
        bench.close()
