"""The HTML report of a published snapshot: what the tables and the models' own files say, put together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.errors import NothingPublishedError
from flows.settings import Settings, digest
from flows.steps import collaboration
from flows.steps.bundle import entity_ids, semantic_matrix
from flows.steps.collapse import collapses
from flows.steps.costs import cost_rows
from flows.steps.filters import left_out_words
from flows.steps.item_map import item_map
from flows.steps.rows import records, strings
from flows.steps.scores import interval, per_user_metrics, per_user_values
from flows.steps.split import KNOWN
from flows.steps.train import PlannedModel, TrainingPlan
from flows.steps.verified import verified_metrics
from flows.workspace import StageNote, Workspace, versions

if TYPE_CHECKING:
    from flows.report import (
        CostFacts,
        GroupGain,
        LatentActivity,
        ModelResult,
        ProfileExample,
        QuarantineRow,
        RecommendationExample,
        ReportContent,
        RunFacts,
        StageFacts,
        Sweep,
        UserFactors,
    )
    from warehouse import Snapshot, Warehouse

VERSION = 6
N_RECOMMENDED = 8
N_HISTORY = 8
N_SIMILAR = 3
N_EXPLAINED = 2
N_OF_FACTOR = 8
GAIN = ("metric", "difference", "relative", "low", "high", "p_value", "n_users", "reference")


def write_report(workspace: Workspace, snapshot_id: str, settings: Settings) -> Path:
    """Path of the report of a snapshot; one that is there is written again only under other report settings."""
    path = report_path(workspace.warehouse, snapshot_id)
    shown_by = path.with_name("settings.sha256")
    shown = settings.report.model_dump(mode="json"), settings.name, settings.generated
    snapshot = workspace.warehouse.snapshot(snapshot_id)
    beneath = collaboration.reported_labels(workspace.warehouse, _planned(snapshot))
    key = digest("report", VERSION, *shown, _with_latents(workspace.warehouse, snapshot), *beneath)
    if path.is_file() and shown_by.is_file() and shown_by.read_text(encoding="utf-8") == key:
        workspace.tally.stages.append(StageNote("report", False, 0.0, str(path)))
        return path
    from flows.report import render
    from warehouse import atomic_write, make_directory

    started = time.monotonic()
    content = report_content(workspace.warehouse, snapshot, settings)
    make_directory(path.parent)
    shown_by.unlink(missing_ok=True)
    atomic_write(path, render(content).encode("utf-8"))
    atomic_write(shown_by, key.encode())
    workspace.tally.stages.append(StageNote("report", True, time.monotonic() - started, str(path)))
    workspace.progress.note(f"report: {path}")
    return path


def report_path(warehouse: Warehouse, snapshot_id: str) -> Path:
    """Where the report of a snapshot lies."""
    return warehouse.inside("reports", snapshot_id, "report.html")


def report_content(warehouse: Warehouse, snapshot: Snapshot, settings: Settings) -> ReportContent:
    """All that the report shows.

    Raises:
        NothingPublishedError: the snapshot was never evaluated, so there is nothing to report.
    """
    from flows.report import CatalogueFacts, CostRow, ProfileFacts, ReportContent, TextCoverage

    if "evaluate" not in snapshot.stages:
        raise NothingPublishedError(str(warehouse.root))
    said = {name: record["summary"] for name, record in snapshot.stages.items()}
    ingest, profile, embed = said["ingest"], said.get("profile", {}), said.get("embed", {})
    sizes = {
        name: ingest[name] for name in ("n_users", "n_items", "n_interactions", "n_train", "n_valid", "n_test", "split")
    }
    results = tuple(_model_results(warehouse, said))
    planned = _planned(snapshot)
    masks, sharing, cohorts, spreads = collaboration.reported(warehouse, planned)
    return ReportContent(
        run=_run_facts(snapshot, settings),
        catalogue=CatalogueFacts(
            **sizes,
            protocol=said["evaluate"]["protocol"],
            n_fold_in=ingest.get("n_fold_in", 0),
            left_out=left_out_words(ingest.get("left_out", {})),
        ),
        profiles=ProfileFacts(
            source=profile.get("source", "none"),
            user_source=profile.get("user_source", "none"),
            prompts=tuple(profile.get("prompts", ())),
            n_item_profiles=profile.get("item_profiles", 0),
            n_user_profiles=profile.get("user_profiles", 0),
            encoder=embed.get("encoder", "none"),
            dim=embed.get("dim", 0),
        ),
        models=results,
        groups=tuple(_groups(warehouse, snapshot)),
        latents=tuple(_latents(warehouse, snapshot)),
        masks=masks,
        sharing=sharing,
        cohorts=cohorts,
        spreads=spreads,
        collapses=tuple(collapses(warehouse, planned)),
        sweeps=tuple(_sweeps(results, said["evaluate"])),
        stages=tuple(_stage_facts(said)),
        cost=_cost_facts(said),
        cost_rows=tuple(CostRow(**row) for row in cost_rows(warehouse, snapshot)),
        quarantine=tuple(_quarantine(snapshot)),
        quarantine_command="semalign quarantine list",
        text_coverage=(
            TextCoverage("item", profile.get("item_profiles", 0), ingest["n_items"]),
            TextCoverage("user", profile.get("user_profiles", 0), ingest["n_users"]),
        ),
        item_map=item_map(warehouse, snapshot, settings.report.n_map_items),
        profile_examples=tuple(_profile_examples(warehouse, snapshot, settings.report.n_examples)),
        recommendation_examples=tuple(_recommendation_examples(snapshot, settings.report.n_examples)),
        explained=tuple(_explained(warehouse, snapshot, settings.report.n_examples)),
        settings=settings.model_dump(mode="json"),
        versions=versions(),
        notes=tuple(_notes(settings)),
    )


def _run_facts(snapshot: Snapshot, settings: Settings) -> RunFacts:
    from flows.report import RunFacts

    run_id = snapshot.stages["publish"]["summary"]["run_id"]
    [row] = records(snapshot.read("runs", filter_equal={"run_id": run_id}))
    facts = {
        name: row[name] for name in ("run_id", "command", "started_at", "seconds", "settings_hash", "code_version")
    }
    facts["command"] = f"semalign {facts['command']}"
    return RunFacts(name=settings.name, snapshot=snapshot.id, generated=settings.generated, **facts)


def _model_results(warehouse: Warehouse, said: dict[str, Any]) -> list[ModelResult]:
    from flows.report import Difference, Epoch, Interval, ModelResult

    base = next((score["label"] for score in said["evaluate"]["scores"] if score["role"] == "base"), None)
    planned = [PlannedModel(**row) for row in said["train"]["models"]]
    results = []
    for score in said["evaluate"]["scores"]:
        seeds = [model for model in planned if model.label == score["label"]]
        first = verified_metrics(warehouse.inside("models", seeds[0].model_id), seeds[0].model_id)
        metrics = []
        personal = per_user_metrics(warehouse, seeds)
        for name, value in score["test"].items():
            bounds = interval(per_user_values(warehouse, seeds, name)[1]) if name in personal else (None, None)
            metrics.append(Interval(name, value, *bounds))
        select_by = said["evaluate"]["select_by"]
        history = tuple(
            Epoch(row["epoch"], row.get("loss"), row.get(select_by), row.get("seconds")) for row in first["history"]
        )
        gains = [
            gain
            for gain in said["evaluate"]["differences"]
            if gain["model"] == score["label"] and base in (None, gain["reference"])
        ]
        results.append(
            ModelResult(
                label=score["label"],
                role=score["role"],
                reads_language=score["reads_language"] or bool(seeds[0].words),
                metrics=tuple(metrics),
                differences=tuple(Difference(**{name: gain[name] for name in GAIN}) for gain in gains),
                history=history,
                seeds=tuple(model.seed for model in seeds),
                best_epoch=first["best_epoch"] if first["epochs"] else None,
                seconds=score["seconds"],
                n_parameters=first["parameters"],
                device=first["device"],
                coverage=score["test"].get("coverage@20"),
            )
        )
    return results


def _planned(snapshot: Snapshot) -> TrainingPlan:
    """The models of the run that a snapshot came from."""
    said = snapshot.stages.get("train", {}).get("summary", {"settings_key": "", "models": []})
    return TrainingPlan("", said["settings_key"], tuple(PlannedModel(**row) for row in said["models"]))


def _groups(warehouse: Warehouse, snapshot: Snapshot) -> list[GroupGain]:
    """What the run's model gains over its base, by the activity of users."""
    from flows.steps.analyse import group_gains

    plan = _planned(snapshot)
    lead = [model for model in plan.models if model.role == "model"]
    base = [model for model in plan.models if model.role == "base"]
    if not lead or not base:
        return []
    metric = snapshot.stages["evaluate"]["summary"]["select_by"]
    pair = TrainingPlan("", "", (*plan.seeds_of(lead[0].label), *plan.seeds_of(base[0].label)))
    return group_gains(warehouse, snapshot, pair, base[0].label, metric)


def _with_latents(warehouse: Warehouse, snapshot: Snapshot) -> list[str]:
    """The models of the run whose every seed's latent was looked at."""
    from flows.steps.analyse import latent_file

    plan = _planned(snapshot)
    return [
        label
        for label in plan.labels()
        if all(latent_file(warehouse, model.model_id).is_file() for model in plan.seeds_of(label))
    ]


def _latents(warehouse: Warehouse, snapshot: Snapshot) -> list[LatentActivity]:
    from flows.steps.analyse import latent_activities, latent_file, stored_activities

    plan, found = _planned(snapshot), []
    for label in _with_latents(warehouse, snapshot):
        seeds = [stored_activities(latent_file(warehouse, model.model_id)) for model in plan.seeds_of(label)]
        found += latent_activities(label, seeds)
    return found


def _sweeps(results: Sequence[ModelResult], said: dict[str, Any]) -> list[Sweep]:
    """Options that the run's models vary while all else stays the same."""
    from flows.steps.analyse import sweeps_of

    metric = said["select_by"]
    bounds = {result.label: {row.metric: (row.low, row.high) for row in result.metrics} for result in results}
    return sweeps_of(
        [
            (score["label"], score["valid"][metric], score["test"][metric], bounds[score["label"]][metric])
            for score in said["scores"]
        ]
    )


def _stage_facts(said: dict[str, Any]) -> list[StageFacts]:
    from flows.report import StageFacts

    return [
        StageFacts(note["name"], "computed" if note["computed"] else "kept", note["seconds"], note["summary"])
        for note in said.get("publish", {}).get("stages", ())
    ]


def _cost_facts(said: dict[str, Any]) -> CostFacts:
    from flows.report import CostFacts

    tally = said.get("publish", {})
    if not tally:
        return CostFacts()
    return CostFacts(
        requests=tally["calls"] + tally["cached"],
        cached=tally["cached"],
        failed=tally["failed"],
        tokens_in=tally["tokens_in"],
        tokens_out=tally["tokens_out"],
        usd=tally["usd"],
        embeddings_computed=tally["embedded"],
        embeddings_cached=tally["embeddings_reused"],
    )


def _quarantine(snapshot: Snapshot) -> list[QuarantineRow]:
    from flows.report import QuarantineRow

    rows = records(snapshot.read("quarantine", columns=["stage", "kind", "code", "entity_id"]))
    counted = Counter((row["stage"], row["kind"], row["code"]) for row in rows)
    examples = {(row["stage"], row["kind"], row["code"]): row["entity_id"] for row in rows}
    return [QuarantineRow(*reason, rows=count, example=examples[reason]) for reason, count in counted.most_common()]


def _titles(snapshot: Snapshot) -> dict[str, str]:
    rows = snapshot.read("items", columns=["item_id", "title"])
    pairs = zip(strings(rows, "item_id"), rows.column("title").to_pylist(), strict=True)
    return {item_id: title or f"item {item_id}" for item_id, title in pairs}


def _profile_examples(warehouse: Warehouse, snapshot: Snapshot, n_examples: int) -> list[ProfileExample]:
    """Items from evenly spaced places of the catalogue, with their nearest neighbours; then users with a text."""
    from flows.report import ProfileExample

    columns = ["kind", "entity_id", "profile", "reasoning", "source"]
    rows = [row for row in records(snapshot.read("profiles", columns=columns)) if row["profile"]]
    titles, similar = _titles(snapshot), _neighbours(warehouse, snapshot)
    examples = []
    for kind in ("item", "user"):
        found = [row for row in rows if row["kind"] == kind]
        for row in _spread(found, n_examples if kind == "item" else n_examples // 2):
            entity_id = row["entity_id"]
            title = str(titles.get(entity_id, entity_id)) if kind == "item" else f"user {entity_id}"
            near = tuple(titles[item] for item in similar(entity_id)) if kind == "item" else ()
            examples.append(
                ProfileExample(kind, entity_id, title, row["profile"], row["source"], row["reasoning"], near)
            )
    return examples


def _neighbours(warehouse: Warehouse, snapshot: Snapshot) -> Any:
    """A function: item id → ids of the items nearest to it in the language space."""
    if "embed" not in snapshot.stages:
        return lambda item_id: []
    order = entity_ids(snapshot)["items"]
    matrix, present = semantic_matrix(warehouse, snapshot, "items", order).open()
    index = {item_id: place for place, item_id in enumerate(order)}

    def nearest(item_id: str) -> list[str]:
        place = index.get(item_id)
        if place is None or not present[place]:
            return []
        closeness = np.where(present, matrix @ matrix[place], -np.inf)
        closeness[place] = -np.inf
        return [order[other] for other in np.argsort(-closeness)[:N_SIMILAR] if np.isfinite(closeness[other])]

    return nearest


def _explained(warehouse: Warehouse, snapshot: Snapshot, n_examples: int) -> list[UserFactors]:
    """The interests of the first of the example users, where the published model has such."""
    from flows.steps.explain import explained_users

    said = snapshot.stages["recommend"]["summary"] if "recommend" in snapshot.stages else {}
    if not said.get("has_factors"):
        return []
    users = _example_users(snapshot, n_examples)[:N_EXPLAINED]
    return explained_users(warehouse, snapshot, users, said["model_id"], top=N_OF_FACTOR) if users else []


def _example_users(snapshot: Snapshot, n_examples: int) -> list[str]:
    return _spread(sorted(set(strings(snapshot.read("recommendations", columns=["user_id"]), "user_id"))), n_examples)


def _recommendation_examples(snapshot: Snapshot, n_examples: int) -> list[RecommendationExample]:
    from flows.report import RecommendationExample, RecommendedItem

    titles, examples = _titles(snapshot), []
    for user_id in _example_users(snapshot, n_examples):
        rows = records(snapshot.read("recommendations", filter_equal={"user_id": user_id}))
        met = records(snapshot.read("splits", filter_equal={"user_id": user_id}))
        history = [str(row["item_id"]) for row in met if row["part"] in KNOWN]
        items = [
            RecommendedItem(
                row["rank"], row["item_id"], titles.get(row["item_id"], ""), row["score"], row["reason"] or ""
            )
            for row in sorted(rows, key=lambda row: row["rank"])[:N_RECOMMENDED]
        ]
        shown = tuple(titles.get(item_id, item_id) for item_id in history[:N_HISTORY])
        examples.append(RecommendationExample(user_id, shown, len(history), tuple(items), rows[0]["variant"]))
    return examples


def _spread(values: Sequence[Any], count: int) -> list[Any]:
    """Up to `count` values from evenly spaced places."""
    places = np.unique(np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)) if len(values) else []
    return [values[place] for place in places]


def _notes(settings: Settings) -> list[str]:
    notes = []
    if settings.source.screen:
        notes.append(f"A screen: only {settings.source.screen:.0%} of the users, chosen by seed.")
    if settings.profiles.attributes is not None:
        notes.append(f"Profiles read only {', '.join(settings.profiles.attributes)}.")
    if settings.model.get("language") in ("shuffled", "random"):
        notes.append(f"The model's text is {settings.model['language']} on purpose: this is a control.")
    return notes
