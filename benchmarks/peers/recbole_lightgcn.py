"""RecBole's LightGCN on a folder that `benchmarks.lightgcn_peer` wrote; leaves its final vectors there.

    PYTHON_OF_RECBOLE benchmarks/peers/recbole_lightgcn.py FOLDER

Reads settings.json and <folder name>.{train,valid,test}.inter; writes vectors.npz (users, items, in the order of the
original indices) and result.json (epochs, seconds of training without validation). Tried with RecBole 1.2.1, NumPy
1.26, SciPy 1.13, pandas 2.2 and torch 2.13.
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
from recbole.model.general_recommender import LightGCN
from recbole.trainer import Trainer
from recbole.utils import init_seed


class TimedTrainer(Trainer):
    """A trainer that sums the seconds of its training epochs."""

    seconds = 0.0
    epochs_done = 0

    def _train_epoch(self, *args, **kwargs):
        began = time.perf_counter()
        loss = super()._train_epoch(*args, **kwargs)
        self.seconds += time.perf_counter() - began
        self.epochs_done += 1
        return loss


def main() -> None:
    """Command line."""
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(settings.pop("threads"))
    # gone from SciPy since 1.13
    scipy.sparse.dok_matrix._update = lambda matrix, entries: matrix._dict.update(entries)
    kept = torch.load  # RecBole's own checkpoint of its best epoch holds more than tensors
    torch.load = lambda *args, **kwargs: kept(*args, **(kwargs | {"weights_only": False}))
    sys.argv = sys.argv[:1]
    config = Config(model="LightGCN", dataset=folder.name, config_dict={"data_path": str(folder.parent), **settings})
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    model = LightGCN(config, train.dataset)
    trainer = TimedTrainer(config, model)
    best, _ = trainer.fit(train, valid, verbose=True, saved=True, show_progress=False)
    model.load_state_dict(torch.load(trainer.saved_model_file)["state_dict"])
    model.eval()
    with torch.no_grad():
        users, items = model.forward()
    arrays = {}
    for name, field, vectors in (("users", "user_id", users), ("items", "item_id", items)):
        tokens = dataset.field2id_token[field][1:].astype(int)  # row 0 is padding
        arrays[name] = np.zeros((settings["sizes"][name], vectors.shape[1]), np.float32)
        arrays[name][tokens] = vectors[1:].numpy()
    np.savez(folder / "vectors.npz", **arrays)
    result = {"epochs": trainer.epochs_done, "train_s": trainer.seconds, "valid": float(best)}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
