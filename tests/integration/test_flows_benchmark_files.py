"""The settings of examples/amazon_baby on files of the benchmark's form, from lists and features to a comparison."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from servers.training import train_here

import flows
from flows import cli
from rec_models import Bundle
from warehouse import Warehouse

EXAMPLE = Path(flows.__file__).parent.parent / "examples" / "amazon_baby"
N_USERS, N_ITEMS, SEED = 30, 40, 5


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Thirty users in two tastes; user 30 and item 39 are in the lists of validation alone, item 7 has no picture."""
    train_here(monkeypatch)
    rng = np.random.default_rng(SEED)
    print("seed", SEED)
    baby = tmp_path / "baby"
    baby.mkdir()
    lines: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for user in range(N_USERS):
        own = rng.permutation([item for item in range(N_ITEMS - 1) if item % 2 == user % 2])[:10]
        for part, items in (("train", own[:6]), ("valid", own[6:8]), ("test", own[8:])):
            lines[part].append(" ".join(map(str, (user, *items))))
    lines["valid"] += [f"{N_USERS} {N_ITEMS - 1}", f"{N_USERS + 1}"]
    for part, rows in lines.items():
        (baby / f"{part}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    taste = np.arange(N_ITEMS)[:, None] % 2 == np.arange(6) % 2
    np.save(baby / "text_feat.npy", (taste + 0.1 * rng.normal(size=taste.shape)).astype(np.float32))
    image = rng.normal(size=(N_ITEMS, 9))
    image[7] = 0
    np.save(baby / "image_feat.npy", image)
    monkeypatch.setenv("SEMALIGN_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(capsys, *words: str, code: int = 0) -> tuple[dict, str]:
    capsys.readouterr()
    quick = ("--set", "training.epochs=25")
    assert cli.run([*words, "-c", str(EXAMPLE / "semalign.toml"), "--root", "w", "--json", *quick]) == code
    out, err = capsys.readouterr()
    return json.loads(out) if out else {}, err.strip().splitlines()[-1]


def test_lists_and_features_become_a_comparison_without_a_text_or_an_encoder(folder, capsys):
    found, _ = command(capsys, "compare", "--models", "recgoat,recgoat@modalities=profiles,popularity")
    assert found["source"] == "vectors (text_feat.npy)" and found["split"] == "given column split"
    assert found["metrics"]["recgoat"]["recall@20"] > 1.5 * found["metrics"]["popularity"]["recall@20"]
    [score] = [score for score in found["scores"] if score["label"] == "recgoat"]
    assert score["provenance"] == {"vectors image": f"vectors (image_feat.npy), 1 of {N_ITEMS} items without"}
    inputs = Bundle.open(folder / "w" / "models" / score["model_ids"][0]).inputs()
    # the rows of the features decide how many items there are, and whoever is in any list is a user
    assert (inputs.n_items, inputs.n_users) == (N_ITEMS, N_USERS + 1)
    features = np.load(folder / "baby" / "image_feat.npy")
    shown = np.flatnonzero(features.any(axis=1))
    unit = features[shown] / np.linalg.norm(features[shown], axis=1, keepdims=True)
    np.testing.assert_allclose(inputs.semantic["items_image"].vectors.numpy()[shown], unit, atol=1e-6)
    assert inputs.semantic["items_image"].present.tolist() == [item != 7 for item in range(N_ITEMS)]
    users = inputs.semantic["users"]
    assert users.pooled and users.present.tolist() == [True] * N_USERS + [False]
    # of what a run trains, only the example's LightGCN has not been compared yet
    again, _ = command(capsys, "run")
    assert again["trained"] == 1 and again["source"] == "vectors (text_feat.npy)"
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    lists = snapshot.read("recommendations").to_pylist()
    assert {row["user_id"] for row in lists} == {str(user) for user in range(N_USERS + 1)}
    assert any(row["reason"] and row["reason"].startswith("near item ") for row in lists)
    assert Path(again["report"]).is_file()


def test_an_interaction_beyond_the_last_row_of_the_features_is_put_aside(folder, capsys):
    with (folder / "baby" / "train.txt").open("a", encoding="utf-8") as stream:
        stream.write(f"3 {N_ITEMS}\n")
    _, last = command(capsys, "ingest", code=3)
    assert "1 rows are in quarantine" in last
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    [row] = snapshot.read("quarantine").to_pylist()
    assert row["code"] == "unknown_item" and snapshot.rows("items") == N_ITEMS


def test_the_query_of_the_readme_reads_the_table_form_of_the_lists(folder, capsys):
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    block = readme.split("```toml\n")[1].split("```")[0]
    (folder / "baby" / "baby.inter").write_text(
        "userID\titemID\trating\ttimestamp\tx_label\n0\t1\t5.0\t1\t0\n0\t2\t5.0\t1\t1\n1\t3\t4.0\t1\t2\n",
        encoding="utf-8",
    )
    settings = f'[source]\n{block}\nitems = "baby/text_feat.npy"\n[split]\nkind = "given"\n[warehouse]\nroot = "q"\n'
    (folder / "semalign.toml").write_text(settings, encoding="utf-8")
    assert cli.run(["ingest"]) == 0
    snapshot = Warehouse(folder / "q").current()
    assert snapshot is not None
    pairs = sorted(tuple(row.values()) for row in snapshot.read("splits").to_pylist())
    assert pairs == [("0", "1", "train"), ("0", "2", "valid"), ("1", "3", "test")]
