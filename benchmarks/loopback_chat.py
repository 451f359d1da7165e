"""A server on loopback for races: one fixed reply after a fixed delay, in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PROFILE = {"reasoning": "The tags agree.", "profile": "Players who like slow exploration and quiet stories."}


def chat_reply() -> bytes:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": json.dumps(PROFILE), "refusal": None}
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "loopback",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }
    return json.dumps(document).encode()


def embeddings_reply(n_texts: int, width: int) -> bytes:
    """The body of a reply to so many texts, in base64."""
    rng = random.Random(0)
    raw = [struct.pack(f"<{width}f", *(rng.gauss(0, 1) for _ in range(width))) for _ in range(n_texts)]
    data = [
        {"object": "embedding", "index": place, "embedding": base64.b64encode(vector).decode()}
        for place, vector in enumerate(raw)
    ]
    usage = {"prompt_tokens": 80 * n_texts, "total_tokens": 80 * n_texts}
    return json.dumps({"object": "list", "model": "loopback", "data": data, "usage": usage}).encode()


def whole(body: bytes) -> bytes:
    """A whole HTTP reply, headers included."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class Chat(asyncio.Protocol):
    """One connection: every whole request is answered after `delay_s`."""

    def __init__(self, delay_s: float, answer: bytes) -> None:
        self._delay_s, self._answer = delay_s, answer
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            fields = dict(line.lower().split(b": ", 1) for line in self._read[:end].split(b"\r\n")[1:])
            whole = end + 4 + int(fields[b"content-length"])
            if len(self._read) < whole:
                return
            self._read = self._read[whole:]
            asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, self._answer)


async def serve(delay_s: float, body: bytes) -> None:
    """Prints its port, then answers until it is ended."""
    answer = whole(body)
    server = await asyncio.get_running_loop().create_server(lambda: Chat(delay_s, answer), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def chat_server(delay_s: float, n_texts: int = 0, width: int = 0) -> Iterator[str]:
    """The base_url of a running server of chats; of embeddings where every call has the same number of texts."""
    command = [sys.executable, "-m", "benchmarks.loopback_chat", "--delay-s", str(delay_s)]
    command += ["--texts", str(n_texts), "--width", str(width)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay-s", type=float, required=True)
    parser.add_argument("--texts", type=int, default=0)
    parser.add_argument("--width", type=int, default=0)
    told = parser.parse_args()
    asyncio.run(serve(told.delay_s, embeddings_reply(told.texts, told.width) if told.texts else chat_reply()))
