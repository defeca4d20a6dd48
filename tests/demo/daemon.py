"""The demo's last part: the same VM, looked after by the daemon."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

_START_PATIENCE = 60.0
_RUN_PATIENCE = 150.0
"""Seconds until the next full minute, and for the backup that is due then."""


class DemoDaemon:
    """A daemon of the demo's own; a context manager that ends it."""

    def __init__(self, folder: Path, uri: str, environment: Mapping[str, str]) -> None:
        """``folder`` is made, for all that it keeps; ``uri`` is the libvirt it talks to."""
        folder.mkdir()
        self.socket = folder / "api" / "api.socket"
        self._environment = environment
        state = folder / "state"
        state.mkdir()
        arguments = ["serve", "--settings", str(folder / "settings.json"), "--state", str(state)]
        arguments += ["--socket", str(self.socket), "--uri", uri, "--allow-ram-store"]
        arguments += ["--runtime", str(folder / "run")]
        with (folder / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vm_babysitter", *arguments],
                env=environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_PATIENCE
        while self.call("status").returncode == 20:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("the daemon did not start")
            time.sleep(0.1)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command that asks the daemon."""
        tool = [sys.executable, "-m", "vm_babysitter", "--socket", str(self.socket)]
        return subprocess.run(
            [*tool, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def wait_for(self, happened: Callable[[], object]) -> None:
        """Wait for what is going to happen by itself."""
        deadline = time.monotonic() + _RUN_PATIENCE
        while not happened():
            if time.monotonic() > deadline:
                raise RuntimeError("nothing happened")
            time.sleep(0.5)

    def stop(self) -> float:
        """End it as a shutdown does; return how many seconds that took."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
        return time.monotonic() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
