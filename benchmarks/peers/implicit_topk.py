"""implicit's best items by products of vectors that `benchmarks.topk` wrote.

    PYTHON_OF_IMPLICIT benchmarks/peers/implicit_topk.py FOLDER THREADS K

Reads users.npy, items.npy and masked.npy; writes found.npy and result.json. Tried with implicit 0.7.3.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
from implicit.cpu.topk import topk
from scipy.sparse import csr_matrix


def main() -> None:
    """Command line."""
    folder, threads, k = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    users, items, masked = (np.load(folder / f"{name}.npy") for name in ("users", "items", "masked"))
    rows = np.repeat(np.arange(len(users)), masked.shape[1])
    shape = len(users), len(items)
    taken = csr_matrix((np.ones(len(rows), np.float32), (rows, masked.ravel())), shape)
    began = time.perf_counter()
    found, _ = topk(items, users, k, filter_query_items=taken, num_threads=threads)
    seconds = time.perf_counter() - began
    np.save(folder / "found.npy", found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (folder / "result.json").write_text(json.dumps({"seconds": seconds, "peak_memory_bytes": peak}))


if __name__ == "__main__":
    main()
