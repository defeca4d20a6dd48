"""The daemon as the command line meets it: its jobs get on each time that they are looked at."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tests.support.engine_world import EngineWorld
from tests.support.fakes.app import NAME, FakeApp
from tests.support.fakes.services import AT, FakeServices
from tests.support.served import served, short_folder
from vm_babysitter.api.app import create_app
from vm_babysitter.cli.main import cli
from vm_babysitter.cli.session import Parts
from vm_babysitter.domain.job import Job, JobState, finish, transition
from vm_babysitter.domain.job import Outcome as JobOutcome
from vm_babysitter.engine.app import Serve
from vm_babysitter.views import ChainView, HealthView, JobView, PlanView, PointView, VmView

Change = Callable[[Job], Job]


def runs(**changes: object) -> Change:
    """The job runs, and is so far."""
    return lambda job: transition(job, JobState.RUNNING, **{"started": AT, **changes})


def ends(outcome: JobOutcome) -> Change:
    """The job ends."""
    return lambda job: finish(job, outcome, AT + timedelta(seconds=90))


@dataclass
class WorkingServices(FakeServices):
    """Does a step of what is ahead each time that a job is looked at."""

    ahead: list[Change] = field(default_factory=list)
    logs: list[bytes] = field(default_factory=list)
    """What the log has more of after each step."""
    failures: dict[str, Exception] = field(default_factory=dict)
    """Raised by the calls of these names."""

    def job(self, job: int) -> JobView:
        found = self._job(job)
        if self.ahead:
            found = self.taken[job - 1] = self.ahead.pop(0)(found)
        if self.logs:
            self.log += self.logs.pop(0)
        return JobView.of(found)

    def _call(self, *what: object) -> None:
        super()._call(*what)
        if what[0] in self.failures:
            raise self.failures[str(what[0])]


@dataclass
class Daemon:
    """A VM in memory, a daemon that shows it on a socket, and the command line of both."""

    app: FakeApp
    services: WorkingServices
    socket: Path
    named: bool = True
    """Whether the command line is told the socket."""
    serve: Serve | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def call(self, *arguments: str, color: bool = False, typed: bytes = b"") -> Result:
        """Run the command line."""
        words = [*(["--socket", str(self.socket)] if self.named else []), *arguments]
        parts = Parts(self.app.compose, self.serve)
        runner = CliRunner(env=self.environment)
        return runner.invoke(cli, words, obj=parts, color=color, input=typed)

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run the command line; return what it printed for programs."""
        result = self.call(*arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def show(self) -> None:
        """Have the daemon show the VM and its backups as they are now."""
        world, services = self.app.world, self.services
        with self.app.diagnoser() as diagnoser:
            found = diagnoser.diagnose(NAME)
        stored = [(vm, world.store.chains(vm.uuid)) for vm in world.store.vms()]
        services.vm_view = VmView.of(world.hypervisor.vm(NAME))
        services.health_view = HealthView.of(found.diagnosis)
        if found.error is None:
            services.plan_view = PlanView.of(found)
        services.point_views = tuple(PointView.all(stored))
        services.chain_views = tuple(ChainView.of(vm, each) for vm, cs in stored for each in cs)


@contextmanager
def a_daemon(path: Path) -> Iterator[Daemon]:
    """A daemon for a VM with two restore points in a folder."""
    app = FakeApp(EngineWorld(path, name=NAME))
    app.world.backup()
    app.world.disk.write(0, b"x")
    app.world.backup()
    with app.diagnoser() as diagnoser:
        found = diagnoser.diagnose(NAME)
    vm = app.world.hypervisor.vm(NAME)
    health, plan = HealthView.of(found.diagnosis), PlanView.of(found)
    services = WorkingServices(VmView.of(vm), health, plan, (), (), log=b"")
    with short_folder() as folder:
        socket = folder / "run" / "api.socket"
        daemon = Daemon(app, services, socket)
        daemon.show()
        with served(create_app(services), socket):
            yield daemon
