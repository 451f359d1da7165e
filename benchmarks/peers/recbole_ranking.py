"""RecBole's full-ranking evaluation of vectors that `benchmarks.ranking` wrote.

    PYTHON_OF_RECBOLE benchmarks/peers/recbole_ranking.py FOLDER THREADS

Reads users.npy, items.npy, masked.npy and relevant.npy; writes result.json. Seconds are of its trainer's `evaluate`
alone, at the better of two batch sizes. Tried with RecBole 1.2.1.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import BPR
from recbole.trainer import Trainer

BATCHES = (64, 256)  # users


def main() -> None:
    """Command line."""
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    scipy.sparse.dok_matrix._update = lambda matrix, entries: matrix._dict.update(entries)  # gone from SciPy since 1.13
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("users", "items", "masked", "relevant")}
    n_users, n_items = len(arrays["users"]), len(arrays["items"])
    header = "user_id:token\titem_id:token"
    for part, name in (("train", "masked"), ("valid", "relevant"), ("test", "relevant")):
        items = arrays[name]
        rows = np.stack([np.repeat(np.arange(n_users), items.shape[1]), items.ravel()], 1)
        if part == "train":  # two users beyond the last share the catalogue: no item is unknown, nobody has all
            rows = np.concatenate([rows, np.stack([n_users + np.arange(n_items) % 2, np.arange(n_items)], 1)])
        np.savetxt(folder / f"{folder.name}.{part}.inter", rows, "%d", delimiter="\t", header=header, comments="")
    sys.argv = sys.argv[:1]
    best = None
    for users_at_once in BATCHES:
        config = Config(
            model="BPR",
            dataset=folder.name,
            config_dict={
                "data_path": str(folder.parent),
                "benchmark_filename": ["train", "valid", "test"],
                "load_col": {"inter": ["user_id", "item_id"]},
                "eval_args": {"group_by": "user", "order": "RO", "mode": "full"},
                "embedding_size": arrays["users"].shape[1],
                "eval_batch_size": users_at_once * n_items,
                "metrics": ["Recall", "NDCG"],
                "topk": [10, 20, 50],
                "valid_metric": "Recall@20",
                "use_gpu": False,
                "checkpoint_dir": str(folder),
            },
        )
        dataset = create_dataset(config)
        train, valid, _ = data_preparation(config, dataset)  # of a test it would mask the validation rows too
        model = BPR(config, train.dataset)
        with torch.no_grad():
            for field, table, vectors in (
                ("user_id", model.user_embedding, arrays["users"]),
                ("item_id", model.item_embedding, arrays["items"]),
            ):
                tokens = dataset.field2id_token[field][1:].astype(int)
                known = tokens < len(vectors)
                table.weight[1:][torch.from_numpy(known)] = torch.from_numpy(vectors[tokens[known]])
        trainer = Trainer(config, model)
        began = time.perf_counter()
        found = trainer.evaluate(valid, load_best_model=False)
        seconds = time.perf_counter() - began
        if best is None or seconds < best["seconds"]:
            best = {"seconds": seconds, "recall@20": float(found["recall@20"]), "users_at_once": users_at_once}
    (folder / "result.json").write_text(json.dumps(best))


if __name__ == "__main__":
    main()
