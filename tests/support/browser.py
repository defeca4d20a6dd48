"""A real browser, without a window, told what to do over a pipe (Chromium's DevTools protocol)."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium")
_OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --lang=en-GB"
    " --disable-extensions --disable-component-update --disable-background-networking"
    " --remote-debugging-pipe"
)
# Chromium reads commands from 3 and writes answers to 4.
_START = 'exec "$@" 3<&"$COMMANDS" 4>&"$ANSWERS" {COMMANDS}<&- {ANSWERS}>&-'
PATIENCE = 30.0
"""Seconds that are long even on a busy machine."""


def _said(selector: str) -> str:
    """Return a script for the text of an element that is seen; empty if it is not."""
    found = f"document.querySelector({json.dumps(selector)})"
    return f"(e => e && e.checkVisibility() ? e.innerText : '')({found})"


class Tab:
    """A page, and who looks at it."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser = browser
        self._session = session

    def _call(self, method: str, **parameters: object) -> Any:
        return self._browser.call(method, self._session, **parameters)

    def close(self) -> None:
        """Close it."""
        self._call("Page.close")

    def open(self, url: str) -> None:
        """Load a page."""
        self.run("window.left = true")
        self._call("Page.navigate", url=url)
        self.until("!window.left && document.readyState === 'complete'")

    def looks(self) -> None:
        """Be looked at anew, as after another tab."""
        self.run("document.dispatchEvent(new Event('visibilitychange')), 1")

    def size(self, width: int, height: int) -> None:
        """Have the window be of that size, in pixels."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def zone(self, name: str) -> None:
        """Have its user live in a time zone."""
        self._call("Emulation.setTimezoneOverride", timezoneId=name)

    def run(self, script: str) -> Any:
        """Return what an expression comes to, promises waited for."""
        found = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str, seconds: float = PATIENCE) -> Any:
        """Wait until an expression is true, and return what it comes to."""
        deadline = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, (script, self.text("body"))
            time.sleep(0.05)
        return found

    def text(self, selector: str) -> str:
        """Return the text that is seen of an element; empty if there is none."""
        return str(self.run(_said(selector)))

    def sees(self, selector: str, words: str, seconds: float = PATIENCE) -> str:
        """Wait until an element shows these words, and return all that it shows."""
        said = _said(selector)
        return str(self.until(f"{said}.includes({json.dumps(words)}) && {said}", seconds))

    def click(self, selector: str) -> None:
        """Press a button, once it can be pressed, with the mouse."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.until(f"!!{element} && !{element}.disabled && {element}.offsetParent !== null")
        self.run(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        x, y = self.run(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])({element}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Write into a field, over what is there."""
        self.run(f"document.querySelector({json.dumps(selector)}).select()")
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self._call("Input.insertText", text=text)

    def choose(self, selector: str, value: str) -> None:
        """Choose from a list."""
        self.run(
            f"(e => {{ e.value = {json.dumps(value)};"
            " e.dispatchEvent(new Event('change', {bubbles: true})); })"
            f"(document.querySelector({json.dumps(selector)}))"
        )

    def picture(self, path: Path) -> None:
        """Keep what is seen as a PNG."""
        found = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(b64decode(found["data"]))


class Browser:
    """One that runs."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._read = b""
        self._numbers = count(1)

    def tab(self) -> Tab:
        """Open an empty tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Tab(self, session)

    def call(self, method: str, session: str = "", **parameters: object) -> Any:
        """Have something done, and return what came of it."""
        number = next(self._numbers)
        command: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + 2 * PATIENCE
        while True:
            answer = self._next(deadline)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            assert ready, "the browser does not answer"
            piece = os.read(self._answers, 1 << 20)
            assert piece, "the browser has ended"
            self._read += piece
        message, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Run one for the time of the context; it keeps its files in ``folder``."""
    assert PROGRAM is not None
    commands, answers = os.pipe(), os.pipe()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (commands[0], answers[1])]
    os.close(commands[0])
    os.close(answers[1])
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", _START, "-", PROGRAM, *_OPTIONS.split(), f"--user-data-dir={folder}"],
            env={
                **os.environ,
                "HOME": str(folder),
                "COMMANDS": str(high[0]),
                "ANSWERS": str(high[1]),
            },
            pass_fds=high,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    for fd in high:
        os.close(fd)
    try:
        yield Browser(commands[1], answers[0])
    finally:
        os.close(commands[1])  # it ends with its pipe
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(answers[0])
