"""L-DiffRec over item clusters: LightGCN is trained first, found again, and named by what is built on it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from servers.catalogue import write_catalogue
from servers.training import train_here

from flows import cli
from flows.errors import CheckpointError, SettingValueError, TrainingFailedError
from flows.steps.clusters import item_clusters_of, item_vectors
from flows.workspace import Workspace
from rec_models import Bundle, item_clusters
from warehouse import Warehouse

LEARNING = """
[training]
epochs = 2
batch_size = 8
[models.lightgcn]
dim = 4
[models.l_diffrec]
clusters = 2
latent_dim = 8
denoiser_hidden_dim = 8
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_catalogue(tmp_path, "http://127.0.0.1:9/v1", items=12, users=9)
    path = tmp_path / "semalign.toml"
    path.write_text(path.read_text(encoding="utf-8") + LEARNING, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    train_here(monkeypatch)
    return tmp_path


def compare(capsys, *words: str, code: int = 0) -> tuple[dict, str]:
    """The document and the last stderr line of `semalign compare`."""
    capsys.readouterr()
    assert cli.run(["compare", "--json", *words]) == code
    out, err = capsys.readouterr()
    return json.loads(out) if out else {}, err.strip().splitlines()[-1]


def bundles(folder: Path) -> dict[str, Bundle]:
    """label and seed → the bundle it was trained on."""
    found = [Bundle.open(path) for path in (folder / "w" / "models").iterdir()]
    return {f"{one.config['about']['label']} {one.config['seed']}": one for one in found}


def train_stage(document: dict) -> dict:
    return next(stage for stage in document["estimate"]["stages"] if stage["stage"] == "train")


def test_each_seed_is_built_on_a_lightgcn_of_its_own_which_is_found_again(folder, capsys):
    asked, _ = compare(capsys, "--models", "l_diffrec", "--seeds", "2", "--only-estimate")
    assert train_stage(asked)["facts"]["to_train"] == 4 and "2 LightGCN first" in train_stage(asked)["what"]
    anyway, _ = compare(capsys, "--models", "l_diffrec,lightgcn", "--seeds", "2", "--only-estimate")
    assert train_stage(anyway)["facts"]["to_train"] == 4
    first, _ = compare(capsys, "--models", "l_diffrec", "--seeds", "2")
    assert first["trained"] == 4 and set(first["metrics"]) == {"l_diffrec"}
    again, _ = compare(capsys, "--models", "l_diffrec", "--seeds", "2")
    assert again["trained"] == 0 and again["metrics"] == first["metrics"]
    assert train_stage(again)["facts"]["to_train"] == 0
    both, _ = compare(capsys, "--models", "l_diffrec,lightgcn", "--seeds", "2")
    assert both["trained"] == 0 and set(both["metrics"]) == {"l_diffrec", "lightgcn"}
    made = bundles(folder)
    for seed in range(2):
        below = made[f"lightgcn {seed}"]
        vectors = np.load(below.directory / "vectors" / "items.npy")
        found = made[f"l_diffrec {seed}"].inputs().item_clusters
        assert vectors.shape == (12, 4) and below.config["model"]["dim"] == 4 and found is not None
        assert np.array_equal(found.numpy(), item_clusters(vectors, 2, seed=seed))
        assert made[f"l_diffrec {seed}"].config["about"]["item_clusters_from"] == below.directory.name
    assert not np.array_equal(*(np.load(path) for path in (folder / "w" / "models").glob("*/vectors/items.npy")))
    current = Warehouse(folder / "w").current()
    assert current is not None
    assert sorted(current.read("model_registry")["name"].to_pylist()) == ["l_diffrec"] * 2 + ["lightgcn"] * 2


def test_another_lightgcn_makes_another_model_and_one_cluster_needs_none(folder, capsys):
    compare(capsys, "--models", "l_diffrec")
    other, _ = compare(capsys, "--models", "l_diffrec", "--set", "models.lightgcn.dim=5")
    assert other["trained"] == 2
    alone, _ = compare(capsys, "--models", "l_diffrec@clusters=1", "--set", "models.lightgcn.dim=6")
    assert alone["trained"] == 1 and "LightGCN first" not in train_stage(alone)["what"]
    unmoved, _ = compare(capsys, "--models", "l_diffrec@clusters=1", "--set", "models.lightgcn.dim=7")
    assert unmoved["trained"] == 0


def test_a_base_that_is_wrapped_gets_its_clusters_too_and_shares_the_lightgcn(folder, capsys):
    base = "model.base={name='l_diffrec',clusters=2,latent_dim=8,denoiser_hidden_dim=8}"
    words = ["--models", "l_diffrec,dmrec", "--set", base, "--set", "profiles.engine=attributes"]
    asked, _ = compare(capsys, *words, "--only-estimate")
    assert train_stage(asked)["facts"]["to_train"] == 3


def test_an_earlier_model_that_cannot_be_trained_is_named_with_what_needs_it(folder, capsys):
    _, last = compare(capsys, "--models", "l_diffrec", "--set", "models.lightgcn.dims=4", code=2)
    assert "unknown option `dims`" in last
    _, last = compare(capsys, "--models", "l_diffrec", "--set", "training.learning_rate=1e30", code=4)
    assert re.search(r"model lightgcn, whose item vectors make the clusters of l_diffrec", last), last


def test_vectors_that_changed_or_do_not_part_are_refused(folder, capsys):
    compare(capsys, "--models", "l_diffrec")
    below = bundles(folder)["lightgcn 0"].directory
    workspace = Workspace(Warehouse(folder / "w"), "", "test")
    with pytest.raises(SettingValueError, match="13 clusters asked of 12 different item vectors"):
        item_clusters_of(workspace, below.name, 13, 0, "l_diffrec")
    (below / "vectors" / "items.npy").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=r"items\.npy"):
        item_clusters_of(workspace, below.name, 2, 0, "l_diffrec")


def test_only_models_on_the_graph_have_vectors(folder, capsys):
    compare(capsys, "--models", "popularity")
    (one,) = bundles(folder).values()
    with pytest.raises(TrainingFailedError, match="popularity has no vectors of items"):
        item_vectors(Workspace(Warehouse(folder / "w"), "", "test"), one.directory.name)
