"""Ratings from the source to the model that asks for them, and to the protocols that rank rated items alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from servers.small_studies import run_in_this_process, write_small_catalogue

import flows.steps.analyse
import flows.steps.recommend
import flows.steps.train
from flows import cli
from rec_models import Bundle
from warehouse import Warehouse

N_USERS, N_ITEMS = 24, 20
DGRM = "dgrm@hidden_dims=[8];critic_hidden_dims=[4]"


def write_rated(folder: Path, *, missing: bool = False, valid: bool = False) -> Path:
    """Users of two tastes who rate what is of their taste 4 or 5 and the rest 1 or 2; a quarter is for the test."""
    write_small_catalogue(folder)
    rng = np.random.default_rng(5)
    lines = ["user_id,item_id,rating,split"]
    for user in range(N_USERS):
        for place, item in enumerate(rng.permutation(N_ITEMS)[:16]):
            rating = int(rng.integers(4, 6) if item % 2 == user % 2 else rng.integers(1, 3))
            part = "test" if place % 4 == 3 else "valid" if valid and place == 0 else "train"
            lines.append(f"u{user:02d},i{item:02d},{'' if missing and user == place == 0 else rating},{part}")
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for module in (flows.steps.train, flows.steps.recommend, flows.steps.analyse):
        monkeypatch.setattr(module, "run_rec_models", run_in_this_process)
    monkeypatch.chdir(tmp_path)
    return write_rated(tmp_path)


def test_the_three_lines_of_the_page_train_evaluate_and_recommend(folder, capsys):
    page = (Path(flows.__file__).parents[1] / "docs" / "dgrm.md").read_text(encoding="utf-8")
    lines = page.partition("```toml\n")[2].partition("```")[0]
    assert len(lines.splitlines()) == 3
    Path("semalign.toml").write_text(lines, encoding="utf-8")
    quick = (
        "training.epochs=2",
        "training.evaluate_every=1",
        "evaluation.ks=[5,20]",
        "evaluation.baselines=['item_mean']",
    )
    assert cli.run(["run", "--json", *(word for setting in quick for word in ("--set", setting))]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metrics"].keys() == {"dgrm", "item_mean"}
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert 'href="#ratings"' in page and "validation rating_kl by epoch" in page and "True deviation" in page
    assert cli.run(["sql", "SELECT count(DISTINCT user_id) AS n FROM recommendations", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [{"n": N_USERS}]


GIVEN = ("split.kind=given", "split.valid_share=0.25", "evaluation.names=['recall','ndcg']")


def compared(capsys, models: str, *settings: str, code: int = 0) -> dict:
    capsys.readouterr()
    words = [word for setting in (*GIVEN, *settings) for word in ("--set", setting)]
    found = cli.run(["compare", "--models", models, "--json", *words])
    out, err = capsys.readouterr()
    assert found == code, err
    return json.loads(out) if out else {"error": err}


def bundles() -> dict[str, Bundle]:
    found = [Bundle.open(path) for path in Path("w/models").iterdir()]
    return {bundle.config["about"]["label"]: bundle for bundle in found}


def test_only_who_asks_for_ratings_is_shown_them(folder, capsys):
    document = compared(capsys, f"item_mean,popularity,{DGRM}", "evaluation.protocol=dgrm-paper")
    labels = [score["label"] for score in document["scores"]]
    rated, plain, dgrm = (bundles()[label] for label in labels)
    for bundle in (rated, dgrm):
        assert {1, 2, 4, 5} == set(bundle.part("train").values.tolist())
    assert set(plain.part("train").values.tolist()) == {1}
    assert all({1, 2, 4, 5} == set(bundle.part("test").values.tolist()) for bundle in (rated, plain, dgrm))
    test = {score["label"]: score["test"] for score in document["scores"]}
    assert {"recall@5", "ndcg@5", "rmse", "rating_kl", "ks_share_5"} <= test["item_mean"].keys()
    assert "rmse" not in test["popularity"]
    history = json.loads((dgrm.checkpoint / "metrics.json").read_text())["history"]
    assert {"critic_gap", "critic_slope", "rating_kl", "unrated_is_5"} <= history[0].keys()
    assert {"reconstruction", "adversarial", "critic", "penalty"} == history[0]["terms"].keys()


def test_validation_is_drawn_from_each_users_training_rows(folder, capsys):
    compared(capsys, "popularity")
    parts = Warehouse(Path("w")).current().read("splits").to_pylist()  # type: ignore[union-attr]
    for user in {row["user_id"] for row in parts}:
        own = [row["part"] for row in parts if row["user_id"] == user]
        assert (own.count("train"), own.count("valid"), own.count("test")) == (9, 3, 4)


def test_the_full_catalogue_asks_for_what_was_liked_and_shows_no_more_than_that(folder, capsys):
    document = compared(capsys, "item_mean,popularity", "evaluation.relevant_rating=4")
    rated, plain = (bundles()[score["label"]] for score in document["scores"])
    likes = rated.part("train").rated_at_least(4)
    assert np.array_equal(plain.part("train").indices, likes.indices)
    assert plain.part("seen").nnz == rated.part("train").nnz and rated.part("seen").nnz == 0
    users = np.load(plain.checkpoint / "per_user.npz")["test_user_index"]
    assert np.array_equal(users, np.flatnonzero(plain.part("test").rated_at_least(4).lengths()))
    again = compared(capsys, "item_mean,popularity")
    assert {score["model_ids"][0] for score in again["scores"]}.isdisjoint(
        {score["model_ids"][0] for score in document["scores"]}
    )


def test_a_list_holds_nothing_that_was_rated(folder, capsys):
    words = [
        word
        for setting in (*GIVEN, "evaluation.relevant_rating=4", "evaluation.baselines=[]", "promotion.gate=false")
        for word in ("--set", setting)
    ]
    for model in ("popularity", "item_mean"):
        assert cli.run(["run", "--set", f"model={{name='{model}'}}", *words]) == 0
        snapshot = Warehouse(Path("w")).current()
        rated = {(row["user_id"], row["item_id"]) for row in snapshot.read("interactions").to_pylist()}  # type: ignore[union-attr]
        listed = snapshot.read("recommendations").to_pylist()  # type: ignore[union-attr]
        assert listed and not rated & {(row["user_id"], row["item_id"]) for row in listed}
    capsys.readouterr()


def test_a_missing_rating_is_refused_where_ratings_are_asked_for(folder, capsys):
    write_rated(folder, missing=True)
    compared(capsys, "popularity")
    said = compared(capsys, "item_mean", code=2)["error"]
    assert "1 of 384 interactions have none" in said and "source.min_rating" in said


def test_a_column_that_names_validation_rows_leaves_none_to_be_drawn(folder, capsys):
    write_rated(folder, valid=True)
    assert "leave `split.valid_share` out" in compared(capsys, "popularity", code=2)["error"]


def test_the_collapse_analysis_tells_models_of_ratings_apart(folder, capsys):
    settings = [word for setting in GIVEN for word in ("--set", setting)]
    models = ["--models", f"item_mean,popularity,{DGRM}"]
    assert cli.run(["analyse", "collapse", *models, "--json", *settings]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    final = {row["model"]: row for row in rows if row["epoch"] is None}
    assert list(final) == ["item_mean", next(name for name in final if name.startswith("dgrm"))]
    assert final["item_mean"]["rating_bins"] < 5
    passes = [row for row in rows if row["epoch"] is not None]
    assert len(passes) == 3 and all(row["critic_gap"] is not None for row in passes)
    assert cli.run(["analyse", "collapse", *models, "--output", "c.svg", *settings]) == 0
    assert "<svg" in Path("c.svg").read_text()
    assert cli.run(["analyse", "collapse", "--models", "popularity", *settings]) == 2
