"""A headless Chromium that a test talks to: what a page shows, what it asked the network for, what it complained of."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Where it is installed under another name, the variable says so.
BROWSER = os.environ.get("SEMALIGN_BROWSER") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "headless_shell"))), None
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--hide-scrollbars", "--disable-dev-shm-usage"),
)


class Page:
    """One open page."""

    def __init__(self, socket: Any, session: str) -> None:
        self._socket, self._session, self._next = socket, session, 0
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to one command of the DevTools protocol."""
        self._next += 1
        about = {"sessionId": self._session} if self._session else {}
        self._socket.send(json.dumps({"id": self._next, "method": method, "params": params, **about}))
        while True:
            said = json.loads(self._socket.recv(timeout=60))
            self._note(said)
            if said.get("id") == self._next:
                assert "error" not in said, said
                return said["result"]

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, what: Path | str, width: int, height: int = 900, dark: bool = False) -> None:
        """Loads a file, or what is at an address, at a width, and waits until it is drawn."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        self.ask("Page.navigate", url=what if isinstance(what, str) else what.as_uri())
        self.run("new Promise(r => document.readyState === 'complete' ? r() : addEventListener('load', r))")
        self.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def picture(self, path: Path, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def key(self, name: str) -> None:
        """Presses and lets go of a key."""
        text = {"text": name} if len(name) == 1 else {"text": "\r"} if name == "Enter" else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=name, code=name, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=name, code=name)

    def _note(self, said: dict[str, Any]) -> None:
        params = said.get("params", {})
        if said.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif said.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif said.get("method") == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page of a browser that is there until the block ends."""
    from websockets.sync.client import connect

    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        address = next(line.split()[-1] for line in process.stderr or () if line.startswith("DevTools listening on"))
        with connect(address, max_size=None, open_timeout=60) as socket:
            whole = Page(socket, "")
            target = whole.ask("Target.createTarget", url="about:blank")["targetId"]
            session = whole.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            page = Page(socket, session)
            page._next = 1000
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.ask(f"{domain}.enable")
            yield page
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
