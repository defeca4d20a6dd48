"""Programs that we start, and what becomes of them."""

import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.nbd_server import alive, open_descriptors, wait_until
from vm_babysitter.adapters.process import Child, execute, run, start
from vm_babysitter.domain.errors import CommandFailed, ProgramMissing


def test_run_returns_what_the_program_wrote() -> None:
    assert run(["printf", "%s|", "-a", 'q"', "d é:,"], timeout=10) == '-a|q"|d é:,|'


def test_the_program_reads_its_input() -> None:
    assert run(["cat"], timeout=10, input="é\n") == "é\n"


def test_the_program_reads_nothing_without_input() -> None:
    assert run(["cat"], timeout=10) == ""


def test_a_failure_carries_the_status_and_the_end_of_stderr() -> None:
    script = "yes noise | head -n 5000 >&2; echo the reason >&2; exit 7"
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", script], timeout=10)
    assert caught.value.status == 7
    assert caught.value.output.endswith("the reason")
    assert len(caught.value.output) < 5000


def test_a_missing_program_is_named() -> None:
    with pytest.raises(ProgramMissing, match="no-such-program"):
        run(["no-such-program"], timeout=10)


def test_an_exit_status_can_be_an_answer() -> None:
    assert execute(["sh", "-c", "echo o; echo e >&2; exit 3"], timeout=10).status == 3


def test_what_takes_too_long_is_killed_with_its_helpers(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    began = time.monotonic()
    with pytest.raises(CommandFailed, match="2 seconds"):
        run(["sh", "-c", f"sleep 60 & echo $! > '{pid}'; wait"], timeout=2)
    assert time.monotonic() - began < 20
    wait_until(lambda: not alive(int(pid.read_text())))


def test_a_program_finds_its_signals_as_usual() -> None:
    ignored = run(["sh", "-c", "grep SigIgn /proc/$$/status"], timeout=10).split()[1]
    ignored_by_python = (1 << signal.SIGPIPE - 1) | (1 << signal.SIGXFSZ - 1)
    assert int(ignored, 16) & ignored_by_python == 0


def test_a_child_ends_with_its_context_even_if_it_does_not_listen(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"trap '' TERM; sleep 60 & echo $! > '{pid}'; wait; wait"
    with start(["sh", "-c", script], grace=0.2) as child:
        wait_until(pid.exists)
        wait_until(lambda: pid.read_text() != "")
        assert not child.exited()
    assert not Path(f"/proc/{child.pid}").exists(), "not reaped"
    wait_until(lambda: not alive(int(pid.read_text())))


def test_a_child_is_asked_before_it_is_killed(tmp_path: Path) -> None:
    said = tmp_path / "said"
    ready = tmp_path / "ready"
    script = (
        f"trap 'echo bye > \"{said}\"; exit 5' TERM; touch '{ready}'; while :; do sleep .01; done"
    )
    with start(["sh", "-c", script]) as child:
        wait_until(ready.exists)
        assert child.stop() == 5
    assert said.exists()


def test_a_child_ends_when_the_context_fails() -> None:
    with pytest.raises(ZeroDivisionError), start(["sleep", "60"]) as child:
        _ = 1 / 0
    assert not Path(f"/proc/{child.pid}").exists()


def test_a_child_that_ends_by_itself_is_noticed_and_explains_itself() -> None:
    with start(["sh", "-c", "echo why >&2; exit 4"]) as child:
        assert child.exited(10)
        failure = child.failure()
    assert (failure.program, failure.status, failure.output) == ("sh", 4, "why")


def test_a_child_outlives_the_thread_that_started_it() -> None:
    children: list[Child] = []

    def work(stack: ExitStack) -> None:
        child = stack.enter_context(start(["sleep", "60"]))
        wait_until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n")
        children.append(child)

    with ExitStack() as stack:
        thread = threading.Thread(target=work, args=(stack,))
        thread.start()
        thread.join()
        assert not children[0].exited(0.3)


def test_nothing_is_left_open() -> None:
    run(["true"], timeout=10)
    before = open_descriptors()
    run(["true"], timeout=10, input="x")
    with start(["sleep", "60"]):
        pass
    assert open_descriptors() == before


def test_kill_9_of_us_leaves_no_qemu_nbd_behind(tmp_path: Path) -> None:
    """The parent is a Python like ours, whose *worker thread* has opened the image."""
    image, pid = tmp_path / "a.raw", tmp_path / "pid"
    image.write_bytes(bytes(1 << 20))
    script = f"""
import sys, threading, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from vm_babysitter.adapters.process import start
def work():
    ready = {str(tmp_path / "ready")!r}
    argv = ["qemu-nbd", "-f", "raw", "-t", "-k", {str(tmp_path / "s")!r}, "--pid-file", ready]
    with start([*argv, {str(image)!r}]) as child:
        while not Path(ready).exists():
            time.sleep(0.01)
        Path({str(pid)!r}).write_text(str(child.pid))
        time.sleep(60)
threading.Thread(target=work).start()
"""
    with start([sys.executable, "-c", script]) as parent:
        wait_until(lambda: pid.exists() and pid.read_text() != "", 20)
        child = int(pid.read_text())
        assert alive(child)
        assert Path(f"/proc/{child}/comm").read_text().strip() == "qemu-nbd"
        os.kill(parent.pid, signal.SIGKILL)
        try:
            wait_until(lambda: not alive(child))
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
