"""Memory: how much a pass over very many pending requests takes, the whole way through executor and ledger.

    python -m benchmarks.pending_memory [--requests 200000] [--in-flight 256] [--json]

Requests are rendered as they are needed, as the profile stage does; nothing is kept of a completion. The wire is
replaced by a reply from memory, so that minutes are enough: everything else is what a run does. What must not happen
is that memory grows with the number of requests, so the peak is also taken after a tenth of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.executor import SCHEMA, text_of
from benchmarks.loopback_chat import chat_reply
from providers import OpenAIConfig, Request
from providers.wire import Wire
from warehouse import Ledger


def peak_mib() -> float:
    """The most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def pending(config: OpenAIConfig, n: int) -> Iterator[Request]:
    """n different requests, one at a time."""
    for i in range(n):
        yield config.request(messages=(("user", text_of(i)),), schema=SCHEMA, kind="item", entity_id=str(i))


def main() -> None:
    """Prints peaks in MiB and the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    body = chat_reply()

    async def from_memory(self: Wire, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        return 200, {}, body

    Wire.ask = from_memory
    config = OpenAIConfig(model="loopback", base_url="http://127.0.0.1:1/v1", concurrency=given.in_flight)
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        with config.open() as engine:
            peaks["before"] = peak_mib()
            started = time.perf_counter()
            for done, completion in enumerate(engine.complete(pending(config, given.requests), ledger), start=1):
                assert completion.text is not None
                if done == given.requests // 10:
                    peaks["after a tenth"] = peak_mib()
            seconds = time.perf_counter() - started
        peaks["at the end"] = peak_mib()
        assert ledger.spent().calls == given.requests
    document = {"requests": given.requests, "requests_per_s": given.requests / seconds, "peak_mib": peaks}
    if given.json:
        print(json.dumps(document, indent=2))
        return
    shown = ", ".join(f"{name} {peak:.0f} MiB" for name, peak in peaks.items())
    print(f"{given.requests:,} requests at {document['requests_per_s']:.0f}/s; peak memory {shown} (1 GB is allowed)")


if __name__ == "__main__":
    main()
