"""Race: our executor over a real ledger against the bare openai client, in turn, on a server of 200 ms latency.

    python -m benchmarks.executor [--calls 2048] [--in-flight 256] [--rounds 3] [--delay-s 0.2] [--json]

Both ask the same questions of the same server on loopback, which runs in a process of its own. The bare client reads
its replies and keeps nothing; ours writes every intent and every reply to disk before it goes on. The ledger's share
is the processor time of its writer thread and of the desk in front of it, of all that this process used meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.loopback_chat import chat_server
from providers import OpenAIConfig, Request
from providers.journal_desk import JournalDesk
from warehouse import Ledger

SCHEMA = {"type": "object", "properties": {"profile": {"type": "string"}, "reasoning": {"type": "string"}}}
MAX_TOKENS = 300


def text_of(number: int) -> str:
    """A question of the length of an item prompt, different for every number."""
    return f"Item {number}. " + "A quiet game of exploration with hand-drawn islands and a slow story. " * 12


def questions(config: OpenAIConfig, n: int) -> list[Request]:
    """n different requests."""
    return [
        config.request(messages=(("user", text_of(i)),), schema=SCHEMA, kind="item", entity_id=str(i)) for i in range(n)
    ]


class DeskClock:
    """Processor seconds that the event loop spends on the desk, measured around its callbacks."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for name in ("_hand_in", "_kept"):
            setattr(JournalDesk, name, self._timed(getattr(JournalDesk, name)))

    def _timed(self, method: Callable[..., None]) -> Callable[..., None]:
        def timed(*arguments: Any) -> None:
            started = time.thread_time()
            method(*arguments)
            self.seconds += time.thread_time() - started

        return timed


def thread_seconds(name: str) -> float:
    """Processor seconds of the living thread of that name."""
    thread = next(thread for thread in threading.enumerate() if thread.name == name)
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def ours(url: str, given: argparse.Namespace, desk: DeskClock) -> dict[str, float]:
    """Calls a second and the ledger's share of the processor."""
    config = OpenAIConfig(model="loopback", base_url=url, concurrency=given.in_flight, max_tokens=MAX_TOKENS)
    asked = questions(config, given.calls)
    with tempfile.TemporaryDirectory(dir=given.directory) as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        with config.open() as engine:
            desk.seconds, cpu, started = 0.0, time.process_time(), time.perf_counter()
            done = [completion.error_code for completion in engine.complete(asked, ledger)]
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        writer = thread_seconds("ledger")
        assert done == [None] * given.calls and ledger.spent().calls == given.calls
    return {"calls_per_s": given.calls / seconds, "cpu_s": cpu, "writer_s": writer, "desk_s": desk.seconds}


def bare(url: str, given: argparse.Namespace) -> dict[str, float]:
    """Calls a second of the openai client with the same number in flight."""
    import openai

    async def run() -> float:
        async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0) as client:
            places = asyncio.Semaphore(given.in_flight)
            form: Any = {"type": "json_schema", "json_schema": {"name": "profile", "schema": SCHEMA}}

            async def ask(number: int) -> None:
                async with places:
                    reply = await client.chat.completions.create(
                        model="loopback",
                        messages=[{"role": "user", "content": text_of(number)}],
                        response_format=form,
                        max_tokens=MAX_TOKENS,
                        temperature=0.2,
                    )
                    assert reply.choices[0].message.content

            started = time.perf_counter()
            await asyncio.gather(*(ask(number) for number in range(given.calls)))
            return time.perf_counter() - started

    cpu = time.process_time()
    seconds = asyncio.run(run())
    return {"calls_per_s": given.calls / seconds, "cpu_s": time.process_time() - cpu}


def main() -> None:
    """Prints every round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2048)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay-s", type=float, default=0.2)
    parser.add_argument("--directory", help="where the ledger lies while it is written; a real disk, please")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    desk, rounds = DeskClock(), []
    with chat_server(given.delay_s) as url:
        for number in range(given.rounds + 1):
            result = {"bare": bare(url, given), "ours": ours(url, given, desk)}
            if number:  # the first one warms both up
                rounds.append(result)
    ratios = [result["ours"]["calls_per_s"] / result["bare"]["calls_per_s"] for result in rounds]
    shares = [(one["ours"]["writer_s"] + one["ours"]["desk_s"]) / one["ours"]["cpu_s"] for one in rounds]
    document = {
        "settings": {"calls": given.calls, "in_flight": given.in_flight, "delay_s": given.delay_s},
        "cores": os.cpu_count(),
        "bare_calls_per_s": statistics.median(one["bare"]["calls_per_s"] for one in rounds),
        "ours_calls_per_s": statistics.median(one["ours"]["calls_per_s"] for one in rounds),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "ledger_cpu_share": statistics.median(shares),
        "rounds": rounds,
    }
    if given.json:
        print(json.dumps(document, indent=2))
        return
    print(f"bare {document['bare_calls_per_s']:.0f} calls/s, ours {document['ours_calls_per_s']:.0f} calls/s")
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"ratio {document['ratio']:.2f} ({each}; at least 0.70 is asked for)")
    print(f"ledger {document['ledger_cpu_share']:.1%} of the processor (less than 15 % is asked for)")


if __name__ == "__main__":
    main()
