"""The pipeline from sources to recommendations over real Parquet, SQLite and DuckDB; only the encoder is small."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from servers.commands import command
from servers.small_world import SETTINGS, write_world
from servers.training import train_here

import providers
from benchmarks.stand_ins import HashedWords
from flows import cli
from flows.errors import CoverageError, LeakedEvidenceError, StaleEvidenceError
from flows.settings import Settings
from flows.settings_layers import load_settings
from flows.steps import train
from flows.steps.guard import refuse_leaks, refuse_thin_vectors
from warehouse import Warehouse, arrow_table


class WordEncoder(HashedWords):
    """Counts the texts it is asked for."""

    key, short_name, model = "e" * 64, "words", "words"
    n_encoded = 0

    def encode(self, texts, on_progress=None):
        type(self).n_encoded += len(texts)
        return super().encode(texts, on_progress)


@pytest.fixture(scope="module")
def small_parts():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(providers, "parse_encoder", lambda settings: WordEncoder())
        train_here(patch)
        yield


def write_sources(folder: Path) -> None:
    """24 users and 20 items in two tastes, and settings; item i19 has no text."""
    rng = np.random.default_rng(7)
    taste = {0: "puzzle quiet logic", 1: "racing fast cars"}
    items = [{"item_id": f"i{n:02d}", "title": f"Item {n}", "description": taste[n % 2]} for n in range(19)]
    items.append({"item_id": "i19", "title": None, "description": None})
    pairs = []
    for user in range(24):
        liked = [n for n in range(20) if n % 2 == user % 2]
        pairs += [(f"u{user:02d}", f"i{n:02d}") for n in rng.permutation(liked)[:8]]
    write_world(folder, items, pairs, SETTINGS)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_sources(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_parts):
    """A folder in which `run --until recommend` has ended; tests may only read it."""
    folder = tmp_path_factory.mktemp("finished")
    write_sources(folder)
    assert cli.run(["run", "--until", "recommend", "--config", str(folder)]) == 0
    return folder


def registry(folder: Path) -> list[dict]:
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    return snapshot.read("model_registry").to_pylist()


def settings_in(folder: Path) -> Settings:
    return load_settings(folder / "semalign.toml", (), {}, folder)


def test_a_run_publishes_every_table(finished):
    snapshot = Warehouse(finished / "w").current()
    assert snapshot is not None
    rows = {name: snapshot.rows(name) for name in ("items", "users", "splits", "profiles", "recommendations", "runs")}
    assert rows == {"items": 20, "users": 24, "splits": 192, "profiles": 19 + 24, "recommendations": 24 * 4, "runs": 1}
    assert snapshot.rows("model_registry") == 2


def test_users_without_text_are_pooled_from_training_items_only(finished):
    snapshot = Warehouse(finished / "w").current()
    assert snapshot is not None
    users = snapshot.read("profiles", filter_equal={"kind": "user"}).to_pylist()
    training = {
        (row["user_id"], row["item_id"]) for row in snapshot.read("splits", filter_equal={"part": "train"}).to_pylist()
    }
    assert {row["source"] for row in users} == {"pooled"} and {row["profile"] for row in users} == {None}
    assert {(row["entity_id"], item) for row in users for item in row["evidence"]} == training


def test_nothing_a_user_has_is_recommended(finished):
    snapshot = Warehouse(finished / "w").current()
    assert snapshot is not None
    known = {(row["user_id"], row["item_id"]) for row in snapshot.read("splits").to_pylist()}
    lists = snapshot.read("recommendations").to_pylist()
    assert not known & {(row["user_id"], row["item_id"]) for row in lists}
    assert any(row["reason"] and row["reason"].startswith("near “Item") for row in lists)


def test_a_second_run_does_nothing(finished, capsys):
    before = WordEncoder.n_encoded
    first = Warehouse(finished / "w").current()
    code, document, last = command(capsys, "run", "--until", "recommend", "--config", str(finished))
    assert code == 0 and "nothing changed" in last
    assert (document["new_snapshot"], document["trained"], document["embedded"], document["calls"]) == (False, 0, 0, 0)
    assert first is not None and document["snapshot"] == first.id and WordEncoder.n_encoded == before


def test_status_sql_and_similar_read_what_is_published(finished, capsys):
    where = ("--config", str(finished))
    code, document, _ = command(capsys, "status", *where)
    assert code == 0 and document["metrics"]["dmrec"]["recall@20"] > 0 and document["running"] is None
    code, document, _ = command(capsys, "sql", "SELECT count(*) AS n FROM splits WHERE part = 'train'", *where)
    assert (code, document["rows"]) == (0, [{"n": 192 - 38 - 38}])
    code, document, _ = command(capsys, "similar", "i00", "-k", "3", *where)
    assert code == 0 and all(int(row["item_id"][1:]) % 2 == 0 for row in document["similar"])
    code, document, _ = command(capsys, "similar", "--text", "fast cars", "-k", "3", *where)
    assert code == 0 and all(int(row["item_id"][1:]) % 2 == 1 for row in document["similar"])


def test_bytes_are_verified_in_full(finished, capsys):
    code, document, _ = command(capsys, "verify", "--full", "--config", str(finished))
    assert code == 0 and document["ok"] and len(document["checks"]) > 5


@pytest.mark.parametrize("damaged", [False, True])
def test_a_training_that_ended_before_its_run_was_cut_off_is_used_unless_a_byte_changed(
    folder, small_parts, monkeypatch, damaged
):
    def cut_off(*arguments):
        raise KeyboardInterrupt

    trained = []
    here = train.run_rec_models
    monkeypatch.setattr(train, "run_rec_models", lambda label, *rest: [trained.append(label), here(label, *rest)])
    with monkeypatch.context() as patch:
        patch.setattr(train, "_describe", cut_off)
        assert cli.run(["run", "--until", "train"]) == 130
    assert len(trained) == 1
    if damaged:
        (weights,) = (folder / "w").glob("models/*.partial/checkpoint/model.safetensors")
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert cli.run(["run", "--until", "train"]) == 0
    assert len(trained) == 2 + damaged and len(registry(folder)) == 2


def test_a_changed_checkpoint_is_exit_code_6(folder, small_parts, capsys):
    assert cli.run(["train", "--set", "model=popularity", "--set", "evaluation.baselines=[]"]) == 0
    [model] = (folder / "w" / "models").iterdir()
    with (model / "checkpoint" / "metrics.json").open("ab") as stream:
        stream.write(b" ")
    code, document, last = command(capsys, "verify", "--full")
    assert code == 6 and not document["ok"] and "metrics.json" in last


def test_the_checkpoint_of_another_model_is_exit_code_6(folder, small_parts, capsys):
    models = ("--models", "popularity,ease")
    assert cli.run(["compare", *models]) == 0
    folders = {row["name"]: folder / "w" / "models" / row["model_id"] for row in registry(folder)}
    shutil.rmtree(folders["ease"] / "checkpoint")
    shutil.copytree(folders["popularity"] / "checkpoint", folders["ease"] / "checkpoint")
    for words in (("compare", *models), ("verify", "--full")):
        code, _, last = command(capsys, *words)
        assert code == 6 and folders["ease"].name in last and "metrics.json" in last and "semalign train" in last
    shutil.rmtree(folders["ease"])
    shutil.copytree(folders["popularity"], folders["ease"])
    code, _, last = command(capsys, "compare", *models)
    assert code == 6 and f"expected {folders['ease'].name}" in last
    shutil.rmtree(folders["ease"])
    assert command(capsys, "compare", *models)[0] == 0


def test_a_bundle_does_not_remember_how_fast_it_was_trained(folder, small_parts, capsys):
    words = ("train", "--set", "model=popularity", "--set", "evaluation.baselines=[]")
    code, document, _ = command(capsys, *words, "--set", "training.device=cpu", "--set", "training.threads=1")
    assert code == 0 and document["trained"] == 1
    [model] = (folder / "w" / "models").iterdir()
    training = json.loads((model / "config.json").read_text(encoding="utf-8"))["training"]
    assert not {"device", "threads"} & set(training)
    assert command(capsys, *words)[1]["trained"] == 0


def test_a_wrong_device_is_forgotten(folder, small_parts, capsys):
    words = ("train", "--set", "model=ease", "--set", "evaluation.baselines=[]")
    assert command(capsys, *words, "--set", "training.device=potato")[0] != 0
    assert command(capsys, *words)[0] == 0


def test_an_automatic_precision_is_a_concrete_one_in_plan_and_bundle(folder, small_parts, capsys):
    words = ("train", "--set", "model=popularity", "--set", "evaluation.baselines=[]")
    assert command(capsys, *words, "--set", "training.precision=auto")[0] == 0
    [model] = (folder / "w" / "models").iterdir()
    precision = json.loads((model / "config.json").read_text(encoding="utf-8"))["training"]["precision"]
    assert precision in {"float32", "bfloat16"}
    assert command(capsys, *words, "--set", f"training.precision={precision}")[1]["trained"] == 0


def test_a_report_follows_its_settings(folder, small_parts, capsys):
    words = ("--set", "model=ease", "--set", "evaluation.baselines=['popularity']")
    assert cli.run(["run", *words]) == 0
    page = Path(command(capsys, "report", *words)[1]["report"])
    before, written = page.read_bytes(), page.stat().st_mtime_ns
    assert command(capsys, "report", *words)[0] == 0 and page.stat().st_mtime_ns == written
    assert command(capsys, "report", *words, "--set", "name=Another name")[0] == 0
    assert b"Another name" in page.read_bytes() != before


def test_a_higher_demand_for_text_is_made_of_a_trained_model_too(finished, capsys):
    code, _, last = command(capsys, "train", "--config", str(finished), "--set", "profiles.min_coverage=0.99")
    assert code == 4 and "19 of 20 items" in last


def test_models_that_read_no_language_need_no_profiles(folder, small_parts, capsys):
    code, document, _ = command(
        capsys, "evaluate", "--set", "model.name=ease", "--set", "evaluation.baselines=['popularity']"
    )
    assert code == 0 and [stage["name"] for stage in document["stages"]] == ["ingest", "train", "evaluate"]
    assert set(document["metrics"]) == {"ease", "popularity"}


def test_only_changed_texts_are_embedded_again(folder, small_parts):
    assert cli.run(["embed"]) == 0
    before = WordEncoder.n_encoded
    lines = (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()
    lines[0] = json.dumps({"item_id": "i00", "title": "Item 0", "description": "chess openings"})
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert cli.run(["embed"]) == 0
    assert WordEncoder.n_encoded == before + 1


def test_going_back_to_earlier_settings_finds_what_was_done_under_them(folder, small_parts, capsys):
    _, first, _ = command(capsys, "profile")
    _, other, _ = command(capsys, "profile", "--set", "split.seed=1")
    code, back, last = command(capsys, "profile")
    assert code == 0 and not any(stage["computed"] for stage in back["stages"])
    assert back["new_snapshot"] and "nothing changed" not in last
    assert len({first["snapshot"], other["snapshot"], back["snapshot"]}) == 3
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None and snapshot.rows("runs") == 3
    code, again, last = command(capsys, "profile")
    assert again["snapshot"] == back["snapshot"] and "nothing changed" in last
    assert "seed 0" in snapshot.stages["ingest"]["summary"]["split"]


def test_a_comparison_resumes_and_leaves_what_is_published_alone(folder, small_parts, capsys):
    assert cli.run(["ingest"]) == 0
    specs = ("compare", "--models", "popularity,ease@regularization=1|10", "--seeds", "2")
    code, document, _ = command(capsys, *specs)
    assert code == 0 and document["trained"] == 6
    assert set(document["metrics"]) == {"popularity", "ease@regularization=1", "ease@regularization=10"}
    assert all(
        gain["reference"] == "popularity" and gain["p_holm"] >= gain["p_value"] for gain in document["differences"]
    )
    code, again, _ = command(capsys, *specs)
    assert code == 0 and again["trained"] == 0 and again["metrics"] == document["metrics"]
    assert again["snapshot"] == document["snapshot"]


def test_the_table_of_a_comparison_stars_what_validation_would_choose(folder, small_parts, capsys):
    capsys.readouterr()
    assert (
        cli.run(
            ["compare", "--models", "ease", "--grid", "regularization=1,1000", "--baseline", "ease@regularization=1"]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert out.count("ease@regularization=1 ") >= 1 and sum(" * " in line for line in out.splitlines()) == 2
    assert cli.run(["compare", "--models", "ease", "--baseline", "popularity"]) == 2


def test_the_catalogue_names_every_model_with_its_paper(capsys):
    capsys.readouterr()
    assert cli.run(["models", "--json"]) == 0
    cards = {card["name"]: card for card in json.loads(capsys.readouterr().out)}
    assert {"popularity", "ease", "mult_vae", "dmrec"} <= set(cards) and cards["dmrec"]["reads_language"]


def test_a_screen_is_named_and_never_published_as_the_catalogue(folder, small_parts, capsys):
    assert cli.run(["ingest"]) == 0
    code, document, _ = command(capsys, "compare", "--models", "popularity", "--screen", "0.5")
    assert code == 0 and "screen of 50%" in document["split"]
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None and snapshot.rows("users") == 24 and snapshot.rows("model_registry") == 1


def test_an_estimate_trains_and_writes_nothing(folder, small_parts, capsys):
    code, document, _ = command(capsys, "compare", "--models", "ease", "--only-estimate")
    assert code == 0 and document["estimate"]["seconds"] > 0 and not (folder / "w").exists()


def test_a_plan_counts_and_writes_nothing(folder, small_parts, capsys):
    code, document, last = command(capsys, "plan")
    assert code == 0 and not (folder / "w").exists() and "nothing was sent" in last
    assert [stage["stage"] for stage in document["stages"]] == ["ingest", "profile", "embed", "train"]
    assert (document["calls"], document["usd"]) == (0, 0.0)


def with_profiles_changed(finished: Path, change) -> Warehouse:
    """A copy-on-write snapshot whose user profiles were tampered with; never published."""
    warehouse = Warehouse(finished / "w")
    current = warehouse.current()
    assert current is not None
    rows = [change(dict(row), current) for row in current.read("profiles").to_pylist()]
    with warehouse.lock("test"):
        builder = warehouse.begin(current)
        builder.replace("profiles", arrow_table("profiles", {name: [row[name] for row in rows] for name in rows[0]}))
        return warehouse, builder.commit()  # type: ignore[return-value]


def test_a_profile_that_saw_a_test_item_is_refused(finished):
    def leak(row, snapshot):
        if row["kind"] == "user" and row["entity_id"] == "u00":
            hidden = snapshot.read("splits", filter_equal={"user_id": "u00"}).to_pylist()
            row["evidence"] = [next(pair["item_id"] for pair in hidden if pair["part"] != "train")]
        return row

    _, snapshot = with_profiles_changed(finished, leak)  # type: ignore[misc]
    with pytest.raises(LeakedEvidenceError) as refused:
        refuse_leaks(snapshot, settings_in(finished).profiles)
    assert refused.value.exit_code == 4 and refused.value.entity_id == "u00"


@pytest.mark.parametrize("kind", ["item", "user"])
def test_a_profile_with_other_evidence_than_the_training_rows_give_is_refused(finished, kind):
    _, snapshot = with_profiles_changed(  # type: ignore[misc]
        finished, lambda row, _: row | {"evidence_hash": "0" * 64} if row["kind"] == kind else row
    )
    with pytest.raises(StaleEvidenceError) as refused:
        refuse_leaks(snapshot, settings_in(finished).profiles)
    assert refused.value.kind == kind and refused.value.exit_code == 4


def test_honest_profiles_pass_the_guard(finished):
    snapshot = Warehouse(finished / "w").current()
    assert snapshot is not None
    assert refuse_leaks(snapshot, settings_in(finished).profiles) == 43


def test_too_little_text_is_refused(finished):
    snapshot = Warehouse(finished / "w").current()
    assert snapshot is not None
    refuse_thin_vectors(snapshot, "dmrec", ("profiles",), 0.95)
    with pytest.raises(CoverageError, match="19 of 20 items"):
        refuse_thin_vectors(snapshot, "dmrec", ("profiles",), 0.96)
