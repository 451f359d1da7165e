"""Every check of rows finds the rows that break it, and in healthy rows nothing; drift against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from servers.published import AFTER, BEFORE, TITLES, publish

from flows.errors import BadDataError
from flows.settings import QualitySettings
from flows.steps.quality import refuse_bad_data
from flows.workspace import Workspace
from warehouse import Warehouse, arrow_table, drift, findings, quality_checks

PROFILE = {
    "kind": "item",
    "source": "tiny",
    "model": "tiny",
    "prompt_id": "games/item",
    "prompt_version": 1,
    "evidence_hash": "h",
    "evidence": [],
}


def profile(entity_id: str, text: str | None, **more) -> dict:
    return {**PROFILE, "entity_id": entity_id, "profile": text, **more}


# check → table, what is done to its rows
BREAKS = {
    "profile_without_entity": ("profiles", lambda rows: [*rows, profile("no such item", "x")]),
    "profile_blank": ("profiles", lambda rows: [{**rows[0], "profile": " \n\t"}, *rows[1:]]),
    "profile_shared": ("items", lambda rows: rows),
    "vector_unusable": ("embeddings_mini", lambda rows: [{**rows[0], "embedding": [0.0] * 6}, *rows[1:]]),
    "vector_without_entity": ("embeddings_mini", lambda rows: [*rows, {**rows[0], "entity_id": "nobody"}]),
    "vector_of_another_text": ("embeddings_mini", lambda rows: [{**rows[0], "text_hash": "another"}, *rows[1:]]),
    "split_of_unknown_pair": ("splits", lambda rows: [*rows, {"user_id": "u", "item_id": "3", "part": "test"}]),
    "user_without_training_row": ("splits", lambda rows: [{**row, "part": "test"} for row in rows]),
    "recommended_again": ("recommendations", lambda rows: [{**rows[0], "item_id": "0"}]),
}


def broken(warehouse: Warehouse, table: str, change) -> str:
    current = warehouse.current()
    assert current is not None
    rows = change(current.read(table).to_pylist())
    columns = {name: [row.get(name) for row in rows] for name in rows[0]}
    if "embedding" in columns:
        columns["embedding"] = np.array(columns["embedding"], np.float32)
    with warehouse.lock():
        builder = warehouse.begin(current)
        builder.replace(table, arrow_table(table, columns))
        return warehouse.publish(builder.commit()).id


def found_in(warehouse: Warehouse, snapshot_id: str) -> dict[str, int]:
    with warehouse.catalogue(warehouse.snapshot(snapshot_id)) as catalogue:
        return {finding.check.name: finding.n_rows for finding in findings(catalogue)}


def test_every_check_has_a_row_that_breaks_it():
    assert set(BREAKS) == {check.name for check in quality_checks()}


@pytest.mark.parametrize("name", sorted(set(BREAKS) - {"profile_shared"}))
def test_a_check_finds_what_breaks_it_and_nothing_in_healthy_rows(name, tmp_path):
    warehouse = publish(tmp_path)
    healthy = warehouse.current()
    assert healthy is not None and found_in(warehouse, healthy.id) == {}
    table, change = BREAKS[name]
    assert name in found_in(warehouse, broken(warehouse, table, change))


def test_a_text_that_ten_items_share_is_a_warning(tmp_path):
    warehouse = publish(tmp_path)
    snapshot = broken(warehouse, "profiles", lambda rows: [*rows, *(profile(f"x{n}", "Same.") for n in range(10))])
    assert found_in(warehouse, snapshot)["profile_shared"] == 1


def test_a_vector_of_nan_is_found(tmp_path):
    warehouse = publish(tmp_path)
    change = lambda rows: [{**rows[0], "embedding": [float("nan")] * 6}, *rows[1:]]  # noqa: E731
    assert found_in(warehouse, broken(warehouse, "embeddings_mini", change))["vector_unusable"] == 1


def workspace(warehouse: Warehouse) -> Workspace:
    return Workspace(warehouse, "settings", "test")


def test_broken_rows_stop_training_with_the_query_that_shows_them_and_pass_when_tolerated(tmp_path):
    warehouse = publish(tmp_path)
    snapshot = broken(warehouse, *BREAKS["profile_blank"])
    with pytest.raises(BadDataError, match=r"check_profile_blank\(\).*quality\.tolerate") as refused:
        refuse_bad_data(workspace(warehouse), snapshot, QualitySettings(tolerate=("vector_of_another_text",)))
    assert refused.value.exit_code == 4
    tolerant = QualitySettings(tolerate=("profile_blank", "vector_of_another_text"))
    refuse_bad_data(workspace(warehouse), snapshot, tolerant)


@pytest.mark.parametrize("name", ["profile_without_entity", "vector_without_entity"])
def test_rows_that_a_version_only_carries_on_are_none_of_a_training_that_reads_none_of_them(name, tmp_path):
    warehouse = publish(tmp_path)
    broken(warehouse, *BREAKS[name])
    for stages, refused in ((("ingest",), False), (("ingest", "profile", "embed"), True)):
        with warehouse.lock():
            builder = warehouse.begin(warehouse.current())
            for stage in stages:
                builder.stage(stage, key=stage, summary={})
            snapshot = warehouse.publish(builder.commit()).id
        if refused:
            with pytest.raises(BadDataError, match=r"not in the catalogue|has no profile row"):
                refuse_bad_data(workspace(warehouse), snapshot, QualitySettings())
        else:
            refuse_bad_data(workspace(warehouse), snapshot, QualitySettings())


def kept_neighbours() -> float:
    shares = []
    for item in TITLES:
        near = []
        for space in (BEFORE, AFTER):
            closeness = {other: float(space["item", item] @ space["item", other]) for other in TITLES if other != item}
            near.append(set(sorted(closeness, key=closeness.__getitem__, reverse=True)[:10]))
        shares.append(len(near[0] & near[1]) / len(near[1]))
    return float(np.mean(shares))


def test_drift_is_what_changed_since_the_version_before_and_a_limit_stops_training(tmp_path):
    warehouse = publish(tmp_path)
    current = warehouse.current()
    assert current is not None
    with warehouse.catalogue(current) as catalogue:
        moved = {one.measure: one for one in drift(catalogue)}
    length = moved["profile length"]
    assert (length.before, length.now, length.same_recipe) == (14.25, 14.5, True)
    assert moved["neighbours kept"].now == pytest.approx(kept_neighbours())
    assert moved["vector norm"].change == pytest.approx(0, abs=1e-6)
    refuse_bad_data(workspace(warehouse), current.id, QualitySettings(max_length_change=0.5))
    with pytest.raises(BadDataError, match=r"profile length 14\.5, 14\.25 before"):
        refuse_bad_data(workspace(warehouse), current.id, QualitySettings(max_length_change=0.01))


def test_another_recipe_may_change_what_it_likes(tmp_path):
    warehouse = publish(tmp_path)
    change = lambda rows: [{**row, "prompt_version": 2, "profile": (row["profile"] or "") * 9 or None} for row in rows]  # noqa: E731
    snapshot = broken(warehouse, "profiles", change)
    settings = QualitySettings(max_length_change=0.01, tolerate=("vector_of_another_text",))
    refuse_bad_data(workspace(warehouse), snapshot, settings)


def test_a_first_version_has_no_drift(tmp_path):
    warehouse = publish(tmp_path)
    first = min(warehouse.snapshots(), key=lambda snapshot: snapshot.counter)
    with warehouse.catalogue(first) as catalogue:
        assert drift(catalogue) == []
