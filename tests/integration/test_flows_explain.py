"""`semalign explain` and its figures: interests, words and their alignment, of a model that was really trained."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from servers.small_studies import write_small_catalogue
from servers.training import train_here

import providers
from benchmarks.stand_ins import StandInEncoder
from flows import cli

SETTINGS = """\
[source]
items = "items.jsonl"
interactions = "interactions.csv"
[words]
texts = ["description"]
min_count = 1
max_share = 1.0
[model]
name = "bandvae"
factors = 2
text_factors = 3
dim = 8
hidden_dim = 16
[training]
epochs = 4
batch_size = 16
[evaluation]
baselines = ["popularity", "macrid_vae@dim=4", "addvae@factors=2;dim=4;hidden_dim=8"]
[recommend]
k = 5
[report]
n_examples = 3
[warehouse]
root = "w"
"""


class LengthEncoder(StandInEncoder):
    """Two numbers a text; nobody here reads vectors but the reasons of lists."""

    key, short_name, dim, model, dtype = "e" * 64, "length", 2, "length", "float32"

    def encode(self, texts, on_progress=None):
        return np.array([[0.6, 0.8] if len(text) % 2 else [1.0, 0.0] for text in texts], np.float32)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which `run` has ended with a model of interests; tests may only read it."""
    folder = write_small_catalogue(tmp_path_factory.mktemp("explained"))
    taste = {0: "puzzle quiet logic", 1: "racing fast <b>cars</b>"}
    items = [{"item_id": f"i{n:02d}", "title": f"Item {n}", "description": taste[n % 2]} for n in range(20)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items), encoding="utf-8")
    (folder / "semalign.toml").write_text(SETTINGS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        train_here(patch)
        patch.setattr(providers, "parse_encoder", lambda settings: LengthEncoder())
        assert cli.run(["run", "--config", str(folder)]) == 0
    return folder


def told(capsys, folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and the last word of `explain`."""
    capsys.readouterr()
    code = cli.run(["explain", *arguments, "--config", str(folder)])
    out, err = capsys.readouterr()
    return code, out, err.strip().splitlines()[-1]


def test_the_document_names_items_words_and_both_plans(finished, capsys):
    code, out, _ = told(capsys, finished, "u05", "-k", "3", "--json")
    document = json.loads(out)
    assert code == 0 and document["model"] == "bandvae" and document["user_id"] == "u05"
    assert sum(len(factor["held"]) for factor in document["factors"]) <= document["n_history"]
    for factor in document["factors"]:
        assert len(factor["shown"]) == 3
        assert all(item["title"] == f"Item {int(item['item_id'][1:])}" for item in factor["shown"])
    [channel] = document["channels"]
    assert channel["name"] == "words" and len(channel["factors"]) == 3
    assert set(channel["factors"][0]["units"]) <= {"puzzle", "quiet", "logic", "racing", "fast", "cars"}
    for plan in (channel["plan"], channel["sharp"]):
        assert len(plan) == 2 and sum(map(sum, plan)) == pytest.approx(1, abs=1e-4)
    assert sum(factor["share"] for factor in document["factors"]) == pytest.approx(1, abs=1e-5)


def test_a_person_reads_tables(finished, capsys):
    code, out, last = told(capsys, finished, "u05")
    assert code == 0
    for title in ("interests", "themes in words", "alignment, % of each interest", "nearest, % of each interest"):
        assert title in out
    assert "2 interests, 3 themes in words of bandvae" in last


def test_any_trained_model_of_interests_can_be_asked(finished, capsys):
    code, out, _ = told(capsys, finished, "u05", "--model", "macrid_vae@dim=4", "--json")
    document = json.loads(out)
    assert code == 0 and document["channels"] == [] and len(document["factors"]) == 4
    code, out, _ = told(capsys, finished, "u05", "--model", document["model_id"], "--taken", "--json")
    assert code == 0 and json.loads(out)["model"] == "macrid_vae@dim=4"


def test_attention_is_told_with_its_signs_and_is_no_plan(finished, capsys):
    label = "addvae@factors=2;dim=4;hidden_dim=8"
    code, out, _ = told(capsys, finished, "u05", "--model", label, "--json")
    [channel] = json.loads(out)["channels"]
    assert code == 0 and channel["signed"] and channel["sharp"] is None and channel["entropy"] is None
    assert all(-1 < weight < 1 for row in channel["plan"] for weight in row)
    code, out, _ = told(capsys, finished, "u05", "--model", label)
    assert code == 0 and "attention to themes" in out and "entropy" not in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nobody"], "knows 24 users, and not 'nobody'"),
        (["u05", "--model", "popularity"], "popularity has no interest factors"),
        (["u05", "--model", "dmrec"], "no model 'dmrec': --model takes a label or id of a trained one (addvae@"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_a_cure(finished, capsys, arguments, sentence):
    code, out, last = told(capsys, finished, *arguments)
    assert code == 2 and out == "" and sentence in last


def test_the_report_draws_interests_and_heat_maps_of_the_example_users(finished):
    [path] = (finished / "w" / "reports").glob("*/report.html")
    page = path.read_text("utf-8")
    assert 'id="interests"' in page and page.count('<article class="card wide">') == 2
    maps = re.findall(r'<figure class="heat">.*?</figure>', page, re.DOTALL)
    assert len(maps) == 4  # as mixed and as sharpened, of two users
    for drawing in maps:
        assert drawing.count('class="cell"') == 2 * 3 and "style=" not in drawing
        shares = [int(share) for share in re.findall(r">(\d+) %<", drawing)]
        assert 190 <= sum(shares) <= 210  # two rows of 100 %, each cell rounded
    assert "<b>cars" not in page


def test_the_stage_of_training_lasts_as_long_as_its_models(finished):
    manifest = max((finished / "w" / "snapshots").glob("*/manifest.json"))
    stages = json.loads(manifest.read_text("utf-8"))["stages"]
    [noted] = [stage for stage in stages["publish"]["summary"]["stages"] if stage["name"] == "train"]
    lasted = sum(score["seconds"] for score in stages["evaluate"]["summary"]["scores"])
    print(f"models took {lasted} s, the stage {noted['seconds']} s")
    assert noted["seconds"] >= lasted > 0
