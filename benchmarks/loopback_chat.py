"""A chat server on loopback for races: one fixed reply after a fixed delay, in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PROFILE = {"reasoning": "The tags agree.", "profile": "Players who like slow exploration and quiet stories."}


def reply() -> bytes:
    """A whole HTTP reply, headers included."""
    message = {"role": "assistant", "content": json.dumps(PROFILE), "refusal": None}
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "loopback",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }
    body = json.dumps(document).encode()
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


async def serve(delay_s: float) -> None:
    """Prints its port, then answers until it is ended."""
    answer = reply()
    server = await asyncio.get_running_loop().create_server(lambda: Chat(delay_s, answer), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def chat_server(delay_s: float) -> Iterator[str]:
    """The base_url of a running server."""
    command = [sys.executable, "-m", "benchmarks.loopback_chat", "--delay-s", str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay-s", type=float, required=True)
    asyncio.run(serve(parser.parse_args().delay_s))
