"""RecTools' ranking and metrics of vectors that `benchmarks.ranking` wrote.

    PYTHON_OF_RECTOOLS benchmarks/peers/rectools_ranking.py FOLDER THREADS

Reads users.npy, items.npy, masked.npy and relevant.npy; writes result.json. Seconds are of its ranker and its metrics;
tables it takes as input are made before. It ranks through `implicit`, the faster of its two rankers on a processor.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rectools import Columns
from rectools.metrics import NDCG, Recall, calc_metrics
from rectools.models.rank import Distance, ImplicitRanker
from scipy.sparse import csr_matrix


def main() -> None:
    """Command line."""
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("users", "items", "masked", "relevant")}
    n_users, n_items = len(arrays["users"]), len(arrays["items"])
    rows = np.repeat(np.arange(n_users), arrays["masked"].shape[1])
    masked = csr_matrix((np.ones(len(rows), np.float32), (rows, arrays["masked"].ravel())), (n_users, n_items))
    relevant = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(n_users), arrays["relevant"].shape[1]),
            Columns.Item: arrays["relevant"].ravel(),
        }
    )
    metrics = {f"{name.__name__.lower()}@{k}": name(k=k) for name in (Recall, NDCG) for k in (10, 20, 50)}
    ranker = ImplicitRanker(Distance.DOT, arrays["users"], arrays["items"], num_threads=threads, use_gpu=False)
    began = time.perf_counter()
    users, items, _ = ranker.rank(np.arange(n_users), k=50, filter_pairs_csr=masked)
    ranks = pd.Series(users).groupby(users).cumcount().to_numpy() + 1
    lists = pd.DataFrame({Columns.User: users, Columns.Item: items, Columns.Rank: ranks})
    found = calc_metrics(metrics, lists, interactions=relevant)
    result = {"seconds": time.perf_counter() - began, "recall@20": float(found["recall@20"])}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
