"""Fixtures for all rings: a private libvirt of either kind, and VMs on it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

from tests.support.embed import EmbeddedLibvirt
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.vm import VmFactory, vms_on

# Helpers that judge: their assertions must be as telling as those of the tests.
pytest.register_assert_rewrite("tests.support.world")

# How long examples take to make says more of a busy machine than of a test.
_PATIENT = hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("quick", _PATIENT, max_examples=50)
hypothesis.settings.register_profile("soak", _PATIENT, max_examples=5000)
hypothesis.settings.load_profile("soak" if os.environ.get("VMB_SOAK") == "1" else "quick")

_SLOWEST_FIRST = ("e2e", "chaos", "guest", "contract", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow rings first: at the end, short files keep all workers busy."""
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        ring = item.path.relative_to(here).parts[0]
        return _SLOWEST_FIRST.index(ring) if ring in _SLOWEST_FIRST else -1

    items.sort(key=rank)


@contextmanager
def private_root() -> Iterator[Path]:
    """A short temporary folder: paths of sockets end at 107 bytes."""
    if os.geteuid() != 0:
        pytest.skip("a private libvirt needs root")
    root = Path(tempfile.mkdtemp(prefix="vmb", dir="/tmp"))
    try:
        yield root
    finally:
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def embed() -> Iterator[EmbeddedLibvirt]:
    """An embedded libvirt that nobody has open."""
    with private_root() as root:
        host = EmbeddedLibvirt(root)
        try:
            yield host
        finally:
            host.close()


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[PrivateLibvirtd]:
    """A running libvirtd of the tests' own."""
    with private_root() as root:
        host = PrivateLibvirtd(root)
        try:
            host.start()
            yield host
        finally:
            host.close()


@pytest.fixture
def vm(libvirtd: PrivateLibvirtd, tmp_path: Path) -> Iterator[VmFactory]:
    """Makes VMs on the private libvirtd, which takes part of a second for each."""
    with vms_on(libvirtd, tmp_path) as factory:
        yield factory


@pytest.fixture
def embed_vm(embed: EmbeddedLibvirt, tmp_path: Path) -> Iterator[VmFactory]:
    """Makes VMs on the embedded libvirt."""
    with vms_on(embed, tmp_path) as factory:
        yield factory
