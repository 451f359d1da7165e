"""The analyses on a small catalogue: tables, figures, numbers in files, and the report that shows them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from servers.small_studies import run_in_this_process, write_small_catalogue

import flows.steps.analyse
import flows.steps.collaboration
import flows.steps.recommend
import flows.steps.train
from flows import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_small_catalogue(tmp_path_factory.mktemp("analyses"))
    with pytest.MonkeyPatch.context() as patch:
        for module in (flows.steps.train, flows.steps.recommend, flows.steps.analyse, flows.steps.collaboration):
            patch.setattr(module, "run_rec_models", run_in_this_process)
        patch.chdir(folder)
        assert cli.run(["compare", "--models", "popularity,mult_vae", "--seeds", "2"]) == 0
        yield folder


def analysed(folder: Path, capsys, name: str, *words: str) -> list[dict]:
    """Rows of the JSON document, of which the .csv and the .svg were written too."""
    capsys.readouterr()
    assert cli.run(["analyse", name, *words, "--json", "--output", f"{name}.csv", "--force"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert cli.run(["analyse", name, *words, "--output", f"{name}.svg", "--force"]) == 0
    written = list(csv.DictReader((folder / f"{name}.csv").open(encoding="utf-8")))
    assert len(written) == len(rows) and {"split", "protocol", "source"} <= set(written[0])
    assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
    return rows


def test_sparsity_gains_of_the_groups_average_to_the_gain_of_all(folder, capsys):
    words = ("--models", "popularity,mult_vae", "--seeds", "2")
    rows = analysed(folder, capsys, "sparsity", *words, "--groups", "3")
    assert len(rows) >= 2 and all(row["low"] <= row["difference"] <= row["high"] for row in rows)
    capsys.readouterr()
    assert cli.run(["compare", *words, "--json"]) == 0
    [gain] = json.loads(capsys.readouterr().out)["differences"]
    n_users = sum(row["n_users"] for row in rows)
    assert n_users == gain["n_users"]
    mean = sum(row["difference"] * row["n_users"] for row in rows) / n_users
    assert mean == pytest.approx(gain["difference"])


def test_convergence_tells_the_ratio_of_an_epochs_time_and_leaves_out_what_has_no_epochs(folder, capsys):
    rows = analysed(
        folder, capsys, "convergence", "--models", "mult_vae,popularity,mult_vae@hidden_dim=8", "--seeds", "1"
    )
    assert {row["model"] for row in rows} == {"mult_vae", "mult_vae@hidden_dim=8"}
    first = [row for row in rows if row["model"] == "mult_vae"]
    assert [row["epoch"] for row in first] == [0, 1, 2] and first[0]["ratio"] == 1
    assert first[0]["seconds"] < first[1]["seconds"] < first[2]["seconds"]


def test_latent_activity_is_the_variance_of_the_means_and_shows_up_in_the_report(folder, capsys):
    rows = analysed(folder, capsys, "latent", "--models", "mult_vae", "--seeds", "1")
    assert len(rows) == 8 and {row["part"] for row in rows} == {"decoded"}
    [path] = (folder / "w" / "models").glob("*/latent.npz")
    means = np.load(path)["decoded"]
    assert means.shape == (24, 8)
    expected = np.log(np.square(means - means.mean(0)).mean(0))
    assert [row["log_activity"] for row in rows] == pytest.approx(expected.tolist(), abs=1e-4)
    words = ("--set", 'evaluation.baselines=["popularity","mult_vae@hidden_dim=4|8|12"]')
    capsys.readouterr()
    assert cli.run(["run", *words, "--json"]) == 0
    page = Path(json.loads(capsys.readouterr().out)["report"]).read_text(encoding="utf-8")
    assert "Latent activity" in page and "by hidden_dim" in page and "by second" in page
    assert cli.run(["analyse", "latent", "--models", "popularity"]) == 2
    assert "popularity has no latent" in capsys.readouterr().err
    assert cli.run(["verify", "--full"]) == 0


def test_a_sweep_is_a_curve_with_a_level_line(folder, capsys):
    words = ("--models", "mult_vae,popularity", "--grid", "mult_vae:kl_weight=0.1,0.5,1.0")
    rows = analysed(folder, capsys, "beta", *words, "--baseline", "popularity")
    assert [row["value"] for row in rows] == [0.1, 0.5, 1.0] and {row["option"] for row in rows} == {"kl_weight"}
    assert "popularity, test" in (folder / "beta.svg").read_text(encoding="utf-8")
    assert cli.run(["analyse", "beta", "--models", "mult_vae", "--grid", "kl_weight=0.1,1.0"]) == 2
    assert cli.run(["analyse", "beta", "--models", "mult_vae", "--grid", "kl_weight=1,2,3", "-o", "x.png"]) == 2


PAIR = ("--models", "mult_vae,pia@base.name=mult_vae;weight=5", "--seeds", "1")


def test_masks_move_a_model_with_alignment_less_and_the_report_shows_it(folder, capsys):
    longer = ("--set", "training.epochs=40", "--set", "training.learning_rate=0.01")
    rows = analysed(folder, capsys, "masks", *PAIR, *longer, "--masks", "20")
    free, aligned = rows
    assert free["model"] == "mult_vae" and aligned["model"].startswith("pia@") and free["users"] == 24
    assert aligned["variance"] < free["variance"] and aligned["drift"] < free["drift"]
    assert free["variance_share"] == pytest.approx(free["variance"] / free["between"])
    for name in ("masks", "sharing", "cohorts", "spread"):
        assert cli.run(["analyse", name, "--models", "mult_vae", "--seeds", "1"]) == 0
    capsys.readouterr()
    words = ("--set", 'evaluation.baselines=["popularity"]')
    assert cli.run(["run", *words, "--json"]) == 0
    page = Path(json.loads(capsys.readouterr().out)["report"]).read_text(encoding="utf-8")
    assert "What masks move" in page and "How users share the latent" in page
    assert "Users of few and of many items" in page and "How far posteriors spread" in page
    assert cli.run(["analyse", "masks", "--models", "popularity"]) == 2
    assert "popularity has no latent" in capsys.readouterr().err
    assert cli.run(["verify", "--full"]) == 0


def test_sharing_tells_of_pairs_that_are_far_and_yet_related(folder, capsys):
    rows = analysed(folder, capsys, "sharing", *PAIR)
    for row in rows:
        assert 0 <= row["w1_low"] <= row["w1_high"] and row["pairs"] == 4000 and -1 <= row["correlation"] <= 1
        shares = [row[name] for name in ("far_related", "inside", "helped", "neighbour_overlap")]
        assert all(0 <= share <= 1 for share in shares) and row["inside"] <= row["helped"]
    assert "latent distance by items that differ" in (folder / "sharing.svg").read_text(encoding="utf-8")


def test_spread_parts_the_divergence_over_a_grid_of_two_options(folder, capsys):
    grid = ("--grid", "kl_weight=0.2,1.0", "--grid", "dropout=0.0,0.5")
    rows = analysed(folder, capsys, "spread", "--models", "mult_vae", *grid, "--seeds", "1")
    assert [row["model"].partition("@")[2] for row in rows] == [
        f"kl_weight={weight};dropout={share}" for weight in (0.2, 1.0) for share in (0.0, 0.5)
    ]
    for row in rows:
        assert (
            row["kl"] == pytest.approx(row["information"] + row["kl_aggregate"]) and row["w1_high"] <= row["w1_bound"]
        )
        assert {"active", "latent_dim", "recall@5", "ndcg@5", "valid recall@5"} <= row.keys()
    drawn = (folder / "spread.svg").read_text(encoding="utf-8")
    assert "mult_vae;kl_weight=0.2" in drawn and "kl_aggregate" in drawn and ">dropout<" in drawn


def test_cohorts_are_a_row_each_and_a_map(folder, capsys):
    rows = analysed(folder, capsys, "cohorts", "--models", "mult_vae", "--seeds", "1", "--counts", "3,5,400")
    assert [row["items"] for row in rows] == [3, 5, 400] and rows[2]["users"] == 0 and rows[2]["purity"] is None
    assert rows[0]["from_5"] == pytest.approx(rows[1]["from_3"]) and rows[0]["from_400"] is None
    circles = (folder / "cohorts.svg").read_text(encoding="utf-8").count('r="3"')
    assert circles == rows[0]["users"] + rows[1]["users"] > 4
    for wrong in ("5,5", "5,x", "0"):
        assert cli.run(["analyse", "cohorts", "--models", "mult_vae", "--counts", wrong]) == 2


def test_sparsity_takes_groups_by_bounds(folder, capsys):
    rows = analysed(folder, capsys, "sparsity", "--models", "popularity,mult_vae", "--seeds", "2", "--bounds", "3,4,50")
    assert [row["group"] for row in rows][:1] in (["2–3"], ["3"], ["1–3"]) and sum(row["n_users"] for row in rows) <= 24
    assert cli.run(["analyse", "sparsity", "--models", "popularity,mult_vae", "--bounds", "4,3"]) == 2
