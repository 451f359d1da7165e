"""Runs as of an earlier moment, and models trained again from their own bundles."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime

import pytest
from servers.training import train_here

from flows import cli
from flows.backfill import moments, settings_as_of
from flows.errors import SettingValueError
from flows.progress import LoggedProgress, SilentProgress
from flows.refresh import refresh_until
from flows.reproduce import reproduce
from flows.settings_layers import load_settings
from flows.workspace import opened
from warehouse import Warehouse

SETTINGS = """\
[source]
items = "items.jsonl"
interactions = "rows.csv"
[model]
name = "mult_vae"
hidden_dim = 8
latent_dim = 4
[training]
epochs = 3
[evaluation]
baselines = []
[promotion]
max_loss = 0.9
min_users = 2
[warehouse]
root = "w"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train_here(monkeypatch)
    items = [{"item_id": f"i{n}", "title": f"Item {n}"} for n in range(10)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items), encoding="utf-8")
    lines = ["user_id,item_id,timestamp"]
    for user in range(20):
        # the n-th item of everybody was taken on the n-th of January
        lines += [f"u{user:02d},i{(user % 2 + 2 * n) % 10},2026-01-{n + 1:02d}T12:00:00Z" for n in range(5)]
    lines.append("u00,i9,")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "semalign.toml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path


def test_a_run_as_of_a_moment_reads_only_what_was_there_before(folder):
    assert cli.run(["ingest", "--set", "source.as_of=2026-01-04"]) == 0
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    said = snapshot.stages["ingest"]["summary"]
    assert said["n_interactions"] == 60 and said["left_out"]["rows_since_as_of"] == 41
    assert "before 2026-01-04T00:00:00+00:00" in said["split"]
    latest = max(snapshot.read("interactions")["timestamp"].to_pylist())
    assert latest < datetime(2026, 1, 4, tzinfo=UTC)
    assert cli.run(["ingest", "--set", "source.as_of=2025-01-01"]) == 2  # nothing is left, and nothing was written
    assert Warehouse(folder / "w").current().id == snapshot.id


@pytest.mark.parametrize("window", [[], ["--set", "source.window_days=30"]])
def test_a_pair_that_comes_again_later_was_there_before(folder, window):
    text = (folder / "rows.csv").read_text(encoding="utf-8")
    again = "".join(f"u{user:02d},i{user % 2},2026-01-{day}T12:00:00Z\n" for user in range(20) for day in (20, 21))
    for lines in (text + again, text.replace("timestamp\n", f"timestamp\n{again}")):
        (folder / "rows.csv").write_text(lines, encoding="utf-8")
        as_of = ["--set", "source.as_of=2026-01-04", "--set", "source.max_quarantined_share=1"]
        assert cli.run(["ingest", *as_of, *window]) in (0, 3)
        snapshot = Warehouse(folder / "w").current()
        assert snapshot is not None and snapshot.rows("interactions") == 60


def test_a_backfill_is_one_refresh_a_day_oldest_first(folder):
    when = moments(date(2026, 1, 4), date(2026, 1, 7), every_days=2)
    assert [moment.day for moment in when] == [4, 6] and all(moment.tzinfo is UTC for moment in when)
    counts = []
    for settings in settings_as_of(load_settings(None, ()), when):
        with opened(settings, "backfill", SilentProgress()) as workspace:
            published = refresh_until("ingest", settings, workspace)
        counts.append(Warehouse(folder / "w").snapshot(published).rows("interactions"))
    assert counts == [60, 100]
    with pytest.raises(SettingValueError):
        moments(date(2026, 1, 2), date(2026, 1, 1), 1)


def test_a_model_trained_again_from_its_own_bundle_has_the_same_weights(folder):
    assert cli.run(["train"]) == 0
    settings, said = load_settings(None, ()), []
    with opened(settings, "reproduce", LoggedProgress(said.append)) as workspace:
        (found,) = reproduce(workspace)
    assert said[0] == f"reproduce mult_vae seed 0: starting ({found['model_id']})"
    assert said[-1] == "reproduce: mult_vae seed 0: the same weights"
    assert "best epoch" in said[-2], "a second training tells how far it is, as the first does"
    assert found["same_weights"] and found["largest_difference"] == 0 and found["label"] == "mult_vae"
    staging = folder / "w" / "staging"
    shutil.copytree(folder / "w" / "models" / found["model_id"], staging / f"reproduce-{found['model_id']}")
    with opened(settings, "reproduce", SilentProgress()) as workspace:
        assert reproduce(workspace) == [found], "what a killed reproduction left is in the way"
    assert not staging.exists() or not list(staging.iterdir())
