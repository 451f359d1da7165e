"""A model of RecBole on a folder that `benchmarks.peer_training` wrote; leaves what it scores with there.

    PYTHON_OF_RECBOLE benchmarks/peers/recbole_model.py FOLDER

Reads settings.json and <folder name>.{train,valid,test}.inter; writes result.json (epochs, seconds of training without
validation, and of building the model) and, in the order of the original indices, vectors.npz (users, items) of LightGCN
or scores.npy (users, items) of any other model.

Tried with RecBole 1.2.1, NumPy 1.26, SciPy 1.13, pandas 2.2 and torch 2.13.
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
from recbole.data.interaction import Interaction
from recbole.utils import get_model, get_trainer, init_seed

_USERS_AT_ONCE = 256


def timed(trainer):
    """The trainer, with `seconds` and `epochs_done` counted around its training epochs."""
    inner = trainer._train_epoch
    trainer.seconds, trainer.epochs_done = 0.0, 0

    def epoch(*args, **kwargs):
        began = time.perf_counter()
        loss = inner(*args, **kwargs)
        trainer.seconds += time.perf_counter() - began
        trainer.epochs_done += 1
        return loss

    trainer._train_epoch = epoch
    return trainer


def original(dataset, field):
    """The index in the tables of each of RecBole's own rows; its row 0 is padding."""
    return dataset.field2id_token[field][1:].astype(int)


@torch.no_grad()
def vectors(model, dataset, sizes):
    """`users` and `items` as LightGCN multiplies them."""
    arrays = {}
    for (name, field), found in zip((("users", "user_id"), ("items", "item_id")), model.forward(), strict=True):
        arrays[name] = np.zeros((sizes[name], found.shape[1]), np.float32)
        arrays[name][original(dataset, field)] = found[1:].numpy()
    return arrays


@torch.no_grad()
def scores(model, dataset, sizes):
    """(users, items) what the model ranks by; lowest where it does not know the user or the item."""
    users, items = original(dataset, "user_id"), original(dataset, "item_id")
    found = np.full((sizes["users"], sizes["items"]), -np.finfo(np.float32).max, np.float32)
    for start in range(0, len(users), _USERS_AT_ONCE):
        own = torch.arange(start + 1, min(start + _USERS_AT_ONCE, len(users)) + 1)
        some = model.full_sort_predict(Interaction({"user_id": own})).reshape(len(own), -1)
        found[users[own.numpy() - 1][:, None], items] = some[:, 1:].numpy()
    return found


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
    name, sizes = settings.pop("model"), settings.pop("sizes")
    config = Config(model=name, dataset=folder.name, config_dict={"data_path": str(folder.parent), **settings})
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    began = time.perf_counter()
    model = get_model(name)(config, train._dataset)  # EASE is solved here
    built = time.perf_counter() - began
    trainer = timed(get_trainer(config["MODEL_TYPE"], name)(config, model))
    best, _ = trainer.fit(train, valid, verbose=True, saved=True, show_progress=False)
    stored = torch.load(trainer.saved_model_file)
    model.load_state_dict(stored["state_dict"])
    model.load_other_parameter(stored.get("other_parameter"))
    model.eval()
    if name == "LightGCN":
        np.savez(folder / "vectors.npz", **vectors(model, dataset, sizes))
    else:
        np.save(folder / "scores.npy", scores(model, dataset, sizes))
    result = {"epochs": trainer.epochs_done, "train_s": trainer.seconds, "built_s": built, "valid": float(best)}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
