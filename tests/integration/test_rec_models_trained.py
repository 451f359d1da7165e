"""The Python page: its ten lines run as they stand, and what they cannot do is refused by name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rec_models import InteractionMatrix, SemanticSource, TrainedModel, write_bundle
from rec_models.errors import HistoryError, NoVectorsError, UnknownIdsError
from rec_models.training import train

ROOT = Path(__file__).parents[2]
N_USERS, N_ITEMS = 24, 16
MODELS = {
    "ease": {"name": "ease"},
    "lightgcn": {"name": "lightgcn", "dim": 8},
    "dmrec": {"name": "dmrec", "base": {"name": "mult_vae", "hidden_dim": 8, "latent_dim": 4}},
}


def checkerboard(folder: Path, name: str) -> Path:
    """The folder of a trained model: even users took even items; its texts tell the two apart."""
    pairs = np.array([(u, i) for u in range(N_USERS) for i in range(N_ITEMS) if (u + i) % 2 == 0 and (u + i) % 10])
    shape = {"n_users": N_USERS, "n_items": N_ITEMS}
    turns = np.arange(len(pairs)) % 8
    inside = {"train": turns < 6, "valid": turns == 6, "test": turns == 7}
    parts = {part: InteractionMatrix.from_pairs(*pairs[rows].T, None, **shape) for part, rows in inside.items()}
    vectors = np.eye(2, 4, dtype=np.float32)
    semantic = {}
    for kind, rows in (("items", N_ITEMS), ("users", N_USERS)):
        np.save(folder / f"{kind}.npy", vectors[np.arange(rows) % 2])
        np.save(folder / f"{kind}.mask.npy", np.ones(rows, bool))
        paths = folder / f"{kind}.npy", folder / f"{kind}.mask.npy"
        semantic[kind] = SemanticSource(*paths, {"source": "attributes", "dtype": "float32"})
    bundle = write_bundle(
        folder / name,
        parts=parts,
        semantic=semantic if name == "dmrec" else {},
        user_ids=[f"u{n:02d}" for n in range(N_USERS)],
        item_ids=[f"i{n:02d}" for n in range(N_ITEMS)],
        model=MODELS[name],
        training={"epochs": 80, "batch_size": 16, "learning_rate": 0.01},
        evaluation={"ks": [5], "select_by": "recall@5"},
        seed=0,
        about={},
    )
    train(bundle, lambda event: None, device="cpu")
    return bundle.directory


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: checkerboard(folder, name) for name in MODELS}


def parity(scored) -> set[int]:
    return {int(item_id[1:]) % 2 for item_id, _ in scored}


@pytest.mark.parametrize("name", MODELS)
def test_a_user_is_shown_what_is_left_of_their_taste(folders, name):
    model = TrainedModel.open(folders[name], device="cpu")
    for user in (2, 3):
        shown = model.recommend(f"u{user:02d}", k=1)
        assert parity(shown) == {user % 2}
        known = model._rows[0].batch(np.array([user])).items.tolist()
        everything = [int(item_id[1:]) for item_id, _ in model.recommend(f"u{user:02d}", k=99)]
        assert sorted([*everything, *known]) == list(range(N_ITEMS))
    assert [score for _, score in model.recommend("u05", k=9)] == sorted(
        (score for _, score in model.recommend("u05", k=9)), reverse=True
    )


def test_somebody_new_is_scored_by_their_items_where_the_model_can(folders):
    ease = TrainedModel.open(folders["ease"], device="cpu")
    assert parity(ease.recommend(history=["i01", "i03"], k=3)) == {1}
    assert parity(ease.similar("i04", k=3)) == {0}
    for name in ("lightgcn", "dmrec"):
        with pytest.raises(HistoryError, match=name):
            TrainedModel.open(folders[name], device="cpu").recommend(history=["i01"])


def test_alike_are_items_of_one_taste_by_vectors_and_by_text(folders):
    graph, aligned = (TrainedModel.open(folders[name], device="cpu") for name in ("lightgcn", "dmrec"))
    assert parity(graph.similar("i04", k=3)) == {0}
    alike = aligned.similar("i03", k=4, by="text")
    assert parity(alike) == {1} and "i03" not in dict(alike) and alike[0][1] == pytest.approx(1)
    with pytest.raises(NoVectorsError, match="lightgcn"):
        graph.similar("i04", by="text")


def test_an_unknown_id_is_a_key_error_that_names_it(folders):
    model = TrainedModel.open(folders["ease"], device="cpu")
    for ask in (lambda: model.recommend("7"), lambda: model.similar("x"), lambda: model.recommend(history=["x"])):
        with pytest.raises(UnknownIdsError, match=r"and not '(7|x)'"):
            ask()
    with pytest.raises(TypeError, match="one of them"):
        model.recommend()


def test_the_page_runs_as_it_stands(folders):
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    code = code.replace("var/warehouse/models/MODEL_ID", str(folders["ease"]))
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert len(printed.stdout.splitlines()) == 13
