"""A small OpenAI-protocol server of our own: it counts every paid reply, and misbehaves exactly as told."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROFILE = {"reasoning": "The tags agree.", "profile": "Players who like slow exploration and quiet stories."}


@dataclass(frozen=True)
class Reply:
    """What the server sends. `drip_s` waits before every byte; `declared` lies about the length; `reset` hangs up;
    `usable` is what a client may take as an answer in time, and so what must not be asked for twice.
    """

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drip_s: float = 0.0
    declared: int | None = None
    repeat: int = 1
    reset: bool = False
    usable: bool = False


def chat(
    content: str | None = None,
    *,
    finish_reason: str = "stop",
    refusal: str | None = None,
    usage: dict[str, int] | None = None,
    **sending: Any,
) -> Reply:
    """A well-formed chat reply; by default a valid profile."""
    text = json.dumps(PROFILE) if content is None else content
    message = {"role": "assistant", "content": text, "refusal": refusal}
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "test-model-2026",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": usage or {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }
    return Reply(json.dumps(document).encode(), **{"usable": True, **sending})


def failure(status: int, code: str = "error", message: str = "no", **headers: str) -> Reply:
    """An error reply in the protocol's form."""
    document = {"error": {"message": message, "type": code, "code": code, "param": None}}
    return Reply(json.dumps(document).encode(), status=status, headers=headers)


def question_of(asked: Mapping[str, Any]) -> str:
    """One name for one question, whatever the order of its keys."""
    said = asked["messages"] if "messages" in asked else asked["input"]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


Script = Callable[[int, Mapping[str, Any]], Reply]


def faulty(seed: int, share: float, good: Callable[[], Reply] = chat, hang_s: float = 2.0) -> Script:
    """A script that misbehaves for a share of the calls: by seed, question and how often that question was asked.

    Args:
        hang_s: how long what hangs and what drips takes; beyond the client's deadline, please.
    """
    garbage = gzip.compress(b"no reply at all " * 1000)
    faults = [
        failure(429),
        failure(429, **{"Retry-After": "0.05"}),
        failure(429, **{"retry-after-ms": "30"}),
        failure(500),
        failure(503),
        Reply(b"", reset=True),
        chat(delay_s=hang_s, usable=False),
        chat(drip_s=hang_s / len(chat().body), usable=False),
        Reply(b"<html>a login page</html>", headers={"Content-Type": "text/html"}),
        Reply(b"{}"),
        Reply(chat().body[:60]),
        Reply(chat().body[:60], declared=4000),
        Reply(garbage, headers={"Content-Encoding": "gzip"}),
    ]
    times: Counter[str] = Counter()
    guard = threading.Lock()

    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        question = question_of(asked)
        with guard:
            times[question] += 1
            rng = random.Random(f"{seed}:{question}:{times[question]}")
        return rng.choice(faults) if rng.random() < share else good()

    return script


class CountingServer:
    """Answers by script(number of the request, its JSON) and keeps the books."""

    def __init__(self, script: Script) -> None:
        self.requests: list[dict[str, Any]] = []
        self.arrived_s: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.paid: Counter[str] = Counter()
        self.usable: Counter[str] = Counter()
        self.most_at_once = 0
        self._script = script
        self._now = 0
        self._lock = threading.Lock()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        n_bytes = int(handler.headers["Content-Length"])
        body = handler.rfile.read(n_bytes)
        if len(body) < n_bytes:  # the client was killed in the middle of its question
            handler.close_connection = True
            return
        asked = json.loads(body)
        with self._lock:
            self.requests.append(asked)
            self.arrived_s.append(time.monotonic())
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            number = len(self.requests)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            reply = self._script(number, asked)
            time.sleep(reply.delay_s)
            if reply.reset:
                # no farewell: the kernel answers whatever comes with a reset
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                handler.connection.close()
                raise ConnectionResetError
            self._send(handler, reply)
            if reply.status == 200:
                with self._lock:
                    self.paid[question_of(asked)] += 1
                    self.usable[question_of(asked)] += reply.usable
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True  # the client left first, as it may
        finally:
            with self._lock:
                self._now -= 1

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        length = len(reply.body) * reply.repeat if reply.declared is None else reply.declared
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        if reply.drip_s:
            for byte in reply.body:
                time.sleep(reply.drip_s)
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
            return
        for _ in range(reply.repeat):
            handler.wfile.write(reply.body)
        if reply.declared is not None:
            handler.close_connection = True


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # many clients at once are no fault unless a script says so

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def counting_server(script: Script = lambda number, asked: chat()) -> Iterator[tuple[str, CountingServer]]:
    """(base_url, server) of a running server."""
    server = CountingServer(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            server.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            return None

    with serving(Handler) as url:
        yield url, server


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The base URL of a server on loopback that answers by the handler until the block ends."""
    http = _Http(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
