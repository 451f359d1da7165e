"""A Batch API of our own: files and batches, every batch and every charged line counted, faults as told."""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from servers.counting import PROFILE, serving


@dataclass(frozen=True)
class Plan:
    """How one batch goes.

    Args:
        status: how it ends; "in_progress" never ends by itself.
        looks: how often it is looked at before it ends.
        finished: the share of lines that are answered.
        shuffled: output lines in another order.
        corrupt: the share of output lines that are cut in half; `nameless` ones do not even keep their custom_id.
        extra: lines added to the output.
        only_errors: every line is refused, and there is no output file.
        errors: (code, message) of a batch that fails at validation.
    """

    status: str = "completed"
    looks: int = 1
    finished: float = 1.0
    shuffled: bool = False
    corrupt: float = 0.0
    nameless: bool = False
    extra: tuple[bytes, ...] = ()
    only_errors: bool = False
    errors: tuple[tuple[str, str], ...] = ()


@dataclass
class FakeBatch:
    """One batch at the server."""

    batch_id: str
    file_id: str
    metadata: dict[str, str]
    created_at: int
    plan: Plan
    looks: int = 0
    status: str = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    completed: int = 0

    def document(self, total: int) -> dict[str, Any]:
        errors = [{"code": code, "message": said, "line": None, "param": None} for code, said in self.plan.errors]
        return {
            "id": self.batch_id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": self.file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "metadata": self.metadata,
            "errors": {"object": "list", "data": errors} if self.status == "failed" else None,
            "request_counts": {"total": total, "completed": self.completed, "failed": 0},
        }


@dataclass
class BatchBackend:
    """What the server holds. `planned` says how the n-th batch (from 1) of so many lines goes."""

    planned: Callable[[int, int], Plan] = lambda number, n_lines: Plan()
    seed: int = 0
    page_size: int = 100
    profile: dict[str, str] = field(default_factory=lambda: dict(PROFILE))
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, FakeBatch] = field(default_factory=dict)
    charged: Counter[str] = field(default_factory=Counter)
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def lines_of(self, batch_id: str) -> list[dict[str, Any]]:
        """What one batch was asked, line by line."""
        return [json.loads(line) for line in self.files[self.batches[batch_id].file_id].splitlines()]

    def upload(self, content: bytes) -> dict[str, Any]:
        file_id = f"file-{len(self.files) + 1}"
        self.files[file_id] = content
        return self.described(file_id)

    def described(self, file_id: str) -> dict[str, Any]:
        n_bytes = len(self.files[file_id])
        return {"id": file_id, "object": "file", "bytes": n_bytes, "created_at": 1, "filename": "f", "purpose": "batch"}

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        number = len(self.batches) + 1
        n_lines = len(self.files[asked["input_file_id"]].splitlines())
        plan = self.planned(number, n_lines)
        batch = FakeBatch(
            f"batch_{number}", asked["input_file_id"], asked.get("metadata") or {}, 1_800_000_000 + number, plan
        )
        self.batches[batch.batch_id] = batch
        return batch.document(n_lines)

    def listed(self, after: str | None) -> dict[str, Any]:
        newest_first = list(reversed(self.batches.values()))
        start = 1 + [batch.batch_id for batch in newest_first].index(after) if after else 0
        page = newest_first[start : start + self.page_size]
        data = [batch.document(self._total(batch)) for batch in page]
        return {"object": "list", "data": data, "has_more": start + self.page_size < len(newest_first)}

    def look(self, batch_id: str) -> dict[str, Any]:
        batch = self.batches[batch_id]
        batch.looks += 1
        if batch.status in ("validating", "in_progress") and batch.plan.status != "in_progress":
            self._advance(batch)
        elif batch.status == "validating":
            batch.status = "in_progress"
        return batch.document(self._total(batch))

    def cancel(self, batch_id: str) -> dict[str, Any]:
        batch = self.batches[batch_id]
        self._end(batch, "cancelled")
        return batch.document(self._total(batch))

    def _total(self, batch: FakeBatch) -> int:
        return len(self.files[batch.file_id].splitlines()) if batch.file_id in self.files else 0

    def _advance(self, batch: FakeBatch) -> None:
        batch.status = "in_progress"
        if batch.looks >= batch.plan.looks:
            self._end(batch, batch.plan.status)

    def _end(self, batch: FakeBatch, status: str) -> None:
        batch.status = status
        if status == "failed":
            return
        rng = random.Random(f"{self.seed} {batch.batch_id}")
        asked = self.lines_of(batch.batch_id)
        n_finished = 0 if batch.plan.only_errors else round(batch.plan.finished * len(asked))
        output = [json.dumps(answer_line(line, self.profile)).encode() for line in asked[:n_finished]]
        self.charged.update(line["custom_id"] for line in asked[:n_finished])
        batch.completed = n_finished
        for place in rng.sample(range(n_finished), round(batch.plan.corrupt * n_finished)):
            output[place] = output[place][len(output[place]) // 2 if batch.plan.nameless else 0 : -9]
        output += batch.plan.extra
        if batch.plan.shuffled:
            rng.shuffle(output)
        failed = [json.dumps(_error_line(line, status)).encode() for line in asked[n_finished:]]
        if output:
            batch.output_file_id = self.upload(b"\n".join(output) + b"\n")["id"]
        if failed:
            batch.error_file_id = self.upload(b"\n".join(failed) + b"\n")["id"]


def answer_line(line: dict[str, Any], profile: dict[str, str] | None = None) -> dict[str, Any]:
    """The output line of one request line."""
    message = {"role": "assistant", "content": json.dumps(profile or PROFILE)}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": line["body"]["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": "batch_req_1", "custom_id": line["custom_id"], "response": response, "error": None}


def _error_line(line: dict[str, Any], status: str) -> dict[str, Any]:
    if status == "completed":
        refused = {"error": {"message": "Unknown parameter", "code": "unknown_parameter"}}
        response = {"status_code": 400, "request_id": "r", "body": refused}
        return {"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}
    error = {"code": f"batch_{status}", "message": "This request could not be executed before the batch ended."}
    return {"id": "x", "custom_id": line["custom_id"], "response": None, "error": error}


@contextmanager
def batch_server(
    planned: Callable[[int, int], Plan] = lambda number, n_lines: Plan(), seed: int = 0
) -> Iterator[tuple[str, BatchBackend]]:
    """(base_url, backend) of a running server."""
    backend = BatchBackend(planned, seed)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve("GET", b"")

        def do_POST(self) -> None:
            self._serve("POST", self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _serve(self, method: str, content: bytes) -> None:
            path, _, query = self.path.removeprefix("/v1").partition("?")
            with backend.lock:
                backend.requests.append((method, path))
                try:
                    status, reply = 200, _routed(backend, method, path, query, content, self.headers)
                except KeyError:
                    status, reply = 404, {"error": {"message": "no such object", "type": "invalid_request_error"}}
            body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # whoever asked was killed

        def log_message(self, format: str, *args: object) -> None:
            return None

    with serving(Handler) as url:
        yield url, backend


def _routed(
    backend: BatchBackend, method: str, path: str, query: str, content: bytes, headers: Any
) -> dict[str, Any] | bytes:
    kind, _, rest = path.strip("/").partition("/")
    name, _, verb = rest.partition("/")
    if kind == "files" and method == "POST":
        return backend.upload(_uploaded(content, headers["Content-Type"]))
    if kind == "files":
        return backend.files[name] if verb == "content" else backend.described(name)
    if method == "POST" and verb == "cancel":
        return backend.cancel(name)
    if method == "POST":
        return backend.create(json.loads(content))
    if name:
        return backend.look(name)
    after = re.search(r"after=([^&]+)", query)
    return backend.listed(after[1] if after else None)


def _uploaded(content: bytes, content_type: str) -> bytes:
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    part = next(part for part in content.split(b"--" + boundary) if b'name="file"' in part)
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
