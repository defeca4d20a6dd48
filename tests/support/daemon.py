"""A daemon of the tests' own, spoken to over its socket: a real process, or one in this process.

Run as a program it is that process.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

from tests.support.fakes.clock import FakeClock
from tests.support.fakes.timer import FakeTimer
from tests.support.forked import Command, start
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.world import Json, World, environment
from vm_babysitter.bootstrap_daemon import build, serve
from vm_babysitter.domain.job import QUEUED, Job
from vm_babysitter.engine.app import ServeOptions
from vm_babysitter.lib.unixhttp import BadAnswer, Unreachable, request_json
from vm_babysitter.ports import ThisHost
from vm_babysitter.service.daemon import Daemon

PATIENCE = 60.0
"""Seconds that are long even on a busy machine."""
ENDED = frozenset({"done", "failed", "cancelled", "interrupted"})
SLOW = 64 << 10
"""Bytes a second with which a backup takes far longer than any test."""
T = TypeVar("T")


def until(look: Callable[[], T], what: Callable[[], object] = str, seconds: float = PATIENCE) -> T:
    """Look again and again until something is found, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, what() or "it never came"
        time.sleep(0.02)
    return found


class Api:
    """The API behind a socket."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def call(
        self,
        method: str,
        target: str,
        document: object = None,
        headers: dict[str, str] | None = None,
        expect: int = 200,
    ) -> Any:
        """Ask, and return the document that is answered."""
        answer = request_json(
            self.socket, method, f"/api/v1{target}", document, headers, timeout=PATIENCE
        )
        assert answer.status == expect, (method, target, answer.status, answer.body)
        return answer.json()

    def get(self, target: str) -> Any:
        """Return what is there."""
        return self.call("GET", target)

    def of_vm(self, vm: str, what: str = "") -> Any:
        """Return something about a VM, whatever it is called."""
        return self.get(f"/vms/{quote(vm, safe='')}{what}")

    def alive(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self.get("/system")["ready"])
        except (Unreachable, BadAnswer):
            return False

    def configure(self, **sections: object) -> None:
        """Change sections of the settings."""
        old = self.get("/settings")
        new = {**old["settings"], **sections}
        self.call("POST", "/settings", new, {"If-Match": f'"{old["tag"]}"'})

    def submit(self, kind: str, vm: str, **options: object) -> int:
        """Have something done; return the number of the job."""
        order = {"kind": kind, "vm": vm, "options": options}
        return int(self.call("POST", "/jobs", order, expect=202)["id"])

    def job(self, number: int) -> Json:
        """Return a job."""
        return cast(Json, self.get(f"/jobs/{number}"))

    def jobs(self, *states: str) -> list[Json]:
        """Return the jobs in these states, all without any; the youngest first."""
        choice = "".join(f"&state={state}" for state in states)
        return cast(list[Json], self.get(f"/jobs?limit=500{choice}"))

    def ended(self, number: int) -> Json:
        """Wait for the end of a job, and return it."""
        until(lambda: self.job(number)["state"] in ENDED, lambda: self.job(number))
        return self.job(number)

    def done(self, kind: str, vm: str, **options: object) -> Json:
        """Have something done, wait for its end, and return the job, which went well."""
        job = self.ended(self.submit(kind, vm, **options))
        assert job["state"] == "done", (job, self.log(job["id"]))
        return job

    def reaches(self, number: int, step: str = "copy") -> None:
        """Wait until a job is at a step."""
        until(lambda: self.job(number)["step"] == step, lambda: self.job(number))

    def idle(self, seconds: float = PATIENCE) -> None:
        """Wait until no job runs, and none is going to by itself now."""
        until(lambda: not self._busy(), self.jobs, seconds)

    def _busy(self) -> bool:
        live = self.jobs("queued", "waiting", "running")
        return any(job["not_before"] is None or job["state"] == "running" for job in live)

    def log(self, number: int) -> str:
        """Return the log of a job."""
        return str(self.get(f"/jobs/{number}/log")["text"])

    def vm_in_status(self, name: str) -> Json | None:
        """Return what the status says of a VM, None if nothing."""
        lines = self.get("/status")["vms"]
        return next((cast(Json, line) for line in lines if line["vm"] == name), None)

    def learns_of(self, name: str) -> None:
        """Wait until it knows that libvirt has a VM."""
        until(lambda: (self.vm_in_status(name) or {"state": None})["state"])

    def part(self, name: str) -> Json:
        """Return what a part of the daemon says of itself."""
        (part,) = (part for part in self.get("/system")["parts"] if part["name"] == name)
        return cast(Json, part)


class Files:
    """Where a daemon has its things: all under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "settings.json"
        self.state = folder / "state"
        self.store = folder / "store: \"1\", 'ü'"
        self.runtime = folder / "run"
        self.root = folder / "root"
        """Where Unraid's own files begin."""
        for path in (folder, self.state, self.store):
            path.mkdir(exist_ok=True)
        self.api = Api(folder / "api" / "api.socket")

    def options(self, host: PrivateLibvirtd) -> ServeOptions:
        tpms = (host.root / "lib" / "swtpm",)
        return ServeOptions(
            self.settings,
            self.state,
            self.api.socket,
            host.uri,
            self.runtime,
            True,
            tpms,
            root=self.root,
        )

    def write_settings(self, **sections: object) -> None:
        """Write settings while no daemon runs."""
        document = {"version": 1, "store": {"path": str(self.store)}, **sections}
        self.settings.write_text(json.dumps(document))

    def log(self) -> str:
        """Return the log of the daemon."""
        path = self.state / "vm-babysitter.log"
        return path.read_text() if path.exists() else ""


class DaemonProcess(Files):
    """A daemon as it runs on a host; what it prints must not be there in the end."""

    def __init__(self, host: PrivateLibvirtd, folder: Path) -> None:
        super().__init__(folder)
        self.host = host
        self._process: Command | None = None
        self._printed = folder / "printed.log"

    @property
    def process(self) -> Command:
        assert self._process is not None
        return self._process

    def start(self) -> float:
        """Start it, and wait until it is ready. Returns how many seconds that took."""
        begun = time.monotonic()
        names = [self.settings, self.state, self.api.socket, self.host.uri, self.runtime]
        names += [self.host.root / "lib" / "swtpm", self.root]
        arguments = list(map(str, names))
        with self._printed.open("ab") as printed:
            self._process = start(
                "tests.support.daemon", arguments, environment(), stdout=printed, stderr=printed
            )
        until(self.api.alive, lambda: self._printed.read_text() + self.log())
        return time.monotonic() - begun

    def terminate(self) -> float:
        """Ask it to end; returns how many seconds it took."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        assert code == 0, (code, self.log())
        return time.monotonic() - begun

    def kill(self) -> None:
        """Kill it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def close(self) -> None:
        """End it, however it was left; no thread of it may have failed."""
        if self._process is not None and self._process.poll() is None:
            self.terminate()
        assert self._printed.read_text() == ""
        assert "Traceback" not in self.log(), self.log()


class DaemonHere(Files):
    """A daemon in this process: everything is real but the time, which tests let pass."""

    def __init__(self, host: PrivateLibvirtd, folder: Path, clock: FakeClock) -> None:
        super().__init__(folder)
        self.host = host
        self.clock = clock
        self.machine: ThisHost | None = None
        self._stack = ExitStack()

    def start(self) -> None:
        """Start it, and wait until all backups were looked at."""
        self.timer = FakeTimer(self.clock)
        options = replace(self.options(self.host), host=self.machine)
        self.daemon, server = build(options, self.state, self._stack, self.clock, self.timer)
        server.start()
        self._stack.callback(server.stop)
        self.daemon.start()
        self.settle()

    def stop(self) -> None:
        """Stop it."""
        assert self.daemon.stop() == []
        self._stack.close()
        assert self.timer.failures == []
        assert "Traceback" not in self.log(), self.log()

    def close(self) -> None:
        """Stop it if it runs."""
        self._stack.close()

    def pass_time(self, amount: timedelta) -> None:
        """Let time pass; jobs take none of it."""
        end = self.clock.now() + amount
        self.settle()
        while (due := self._next()) is not None and due <= end:
            self._advance_to(due)
        self._advance_to(end)

    def settle(self) -> None:
        """Wait until nothing is left to be done at this moment."""
        self.timer.settle()
        until(lambda: self._is_idle(self.daemon), lambda: (self.daemon.runner.queued(), self.log()))

    def _advance_to(self, moment: datetime) -> None:
        self.timer.pass_time(max(moment - self.clock.now(), timedelta()))
        self.settle()

    def _next(self) -> datetime | None:
        """Return when something is due by itself."""
        jobs = self.daemon.runner.queued()
        later = [j.request.not_before for j in jobs if j.request.not_before is not None]
        alarms = self.timer.alarms()
        alarms.pop("settings", None)  # read each minute, which begins no job
        return min([*alarms.values(), *later], default=None)

    def _is_idle(self, daemon: Daemon) -> bool:
        watched, now = daemon.watch.now(), self.clock.now()
        runner = daemon.runner
        if watched.trouble or runner._active or any(_is_due(j, now) for j in runner.queued()):
            runner.wake()
            return False
        # Jobs may follow from a look at the backups.
        return (
            daemon.diagnoses.wait_idle(0)
            and not runner.running()
            and not any(_is_due(job, now) for job in runner.queued())
        )


def _is_due(job: Job, now: datetime) -> bool:
    due = job.request.not_before
    if job.waits_for.startswith("space "):
        return False  # which no time brings
    return job.state in QUEUED and (due is None or due <= now)


def in_care_of(daemon: Files, world: World) -> World:
    """Have a world's points in the backup folder of a daemon."""
    world.store.rmdir()
    world.store, world.runtime = daemon.store, daemon.runtime
    return world


def back_up(daemon: DaemonProcess, world: World, **options: object) -> str:
    """Have a point made, and remember what it must restore to. Returns its name."""
    copies = world.copies()
    point = str(daemon.api.done("backup", world.vm.uuid, **options)["point"])
    world.references[point] = copies
    return point


def states(jobs: Sequence[Json]) -> list[str]:
    """The states of jobs, the oldest first."""
    return [job["state"] for job in sorted(jobs, key=lambda job: int(job["id"]))]


def main() -> int:
    settings, state, socket, uri, runtime, tpms, root = sys.argv[1:]
    options = ServeOptions(
        Path(settings),
        Path(state),
        Path(socket),
        uri,
        Path(runtime),
        True,
        (Path(tpms),),
        root=Path(root),
    )
    return serve(options)


if __name__ == "__main__":
    raise SystemExit(main())
