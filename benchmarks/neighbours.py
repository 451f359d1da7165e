"""Race: exact nearest neighbours against the matrix product they cannot do without.

    python -m benchmarks.neighbours [--rows 100000] [--width 384] [--k 20] [--threads 1] [--dtype float32]
        [--device cpu] [--chunk N] [--sides ours,topk] [--json]

The bound is operations (2 x rows x rows x width) over the best rate of float32 products measured in the same process,
before and after. `topk` is the plain way, whole rows of products and torch's top-k. Processor seconds stand beside the
clock's: on a machine that is busy with other things they are the ones that mean something. Vectors are drawn at random;
speed does not depend on what they mean, but for many equal cosines at the edge of a neighbourhood.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rec_models.neighbours import Neighbours, nearest_neighbours


def spent(act: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a call took."""
    wall, busy = time.perf_counter(), time.process_time()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - busy


def product_rate(width: int, device: torch.device) -> float:
    """Floating-point operations a second of clock time of a product of (2048, width) with (width, 4096)."""
    rows = 1 if device.type == "cpu" else 16
    left, right = torch.randn(2048 * rows, width, device=device), torch.randn(width, 4096 * rows, device=device)
    spent(lambda: left @ right, device)
    taken = [spent(lambda: left @ right, device)[0] for _ in range(20)]
    return 2 * left.numel() * right.shape[1] / statistics.median(taken)


def plain(vectors: Tensor, present: Tensor, k: int, *, chunk: int | None = None) -> Neighbours:
    """The same neighbours by torch's top-k of whole rows; ties fall as they may."""
    units = torch.nn.functional.normalize(vectors.float(), dim=1)
    rows = chunk or 256
    nearest, cosines = [], []
    for start in range(0, len(units), rows):
        products = units[start : start + rows] @ units.t()
        products[:, start : start + rows].fill_diagonal_(-torch.inf)
        values, found = products.topk(k, dim=1)
        nearest.append(found)
        cosines.append(values)
    return Neighbours(torch.cat(nearest), torch.cat(cosines))


def race(given: argparse.Namespace, side: str, vectors: Tensor) -> dict[str, Any]:
    """One row: seconds, the bound and their ratio, the highest memory so far."""
    device = vectors.device
    present = torch.ones(len(vectors), dtype=torch.bool, device=device)
    act = {"ours": nearest_neighbours, "topk": plain}[side]
    before = product_rate(given.width, device)
    wall, busy = spent(lambda: act(vectors, present, given.k, chunk=given.chunk), device)
    rate = max(before, product_rate(given.width, device))
    bound = 2 * given.rows**2 * given.width / rate
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    about = {"side": side, "rows": given.rows, "width": given.width, "k": given.k, "dtype": given.dtype}
    about |= {"device": str(device), "threads": torch.get_num_threads(), "gflop_per_s": round(rate / 1e9, 1)}
    about |= {"seconds": round(wall, 2), "processor_s": round(busy, 2), "bound_s": round(bound, 2)}
    about |= {"ratio": round(wall / bound, 3), "peak_memory_bytes": peak}
    return about | ({"device_bytes": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--chunk", type=int, default=None)
    parser.add_argument("--sides", default="ours")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    drawn = torch.randn(given.rows, given.width, generator=torch.Generator().manual_seed(0))
    vectors = drawn.to(given.device, getattr(torch, given.dtype))
    del drawn
    for side in given.sides.split(","):
        row = race(given, side, vectors)
        seconds = f"{row['seconds']} s ({row['processor_s']} of processor), {row['ratio']} of the bound"
        memory = f"{row['peak_memory_bytes'] / 1e6:.0f} MB"
        print(json.dumps(row) if given.json else f"{side}: {seconds} {row['bound_s']} s; {memory}", flush=True)


if __name__ == "__main__":
    main()
