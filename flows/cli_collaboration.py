"""analyse sharing, masks, spread and cohorts: how users share a latent, each a table and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_analyses import Request, Study, run_analysis
from flows.cli_options import Options, command

if TYPE_CHECKING:
    from flows.compare_models import Compared
    from flows.report.charts import Chart, CurveChart
    from flows.workspace import Workspace

KEEP_SHARE = Annotated[float, typer.Option("--keep", min=0.01, max=0.99, help="Share of a row that a mask keeps.")]
GRIDS = ("kl_weight=0.1,0.3,1.0", "dropout=0.0,0.3,0.5,0.7")
# What `spread` draws beside the metric that selects.
DRAWN = ("w1_high", "information", "kl_aggregate", "active")


def register(analyses: typer.Typer) -> None:
    """Adds the four commands to analyse."""

    @command(analyses, "sharing")
    def sharing(options: Options, request: Request, keep: KEEP_SHARE = 0.5) -> int:
        """Distances of users in the latent by those in rows, and how many far but related ones learn of each other."""

        def make(workspace: Workspace, found: Compared, reference: str) -> Study:
            return _sharing(workspace, found, keep)

        return run_analysis(options, "sharing", request, make)

    @command(analyses, "masks")
    def masks(
        options: Options,
        request: Request,
        n_masks: Annotated[int, typer.Option("--masks", min=2, help="Masks of every user.")] = 50,
        keep: KEEP_SHARE = 0.5,
    ) -> int:
        """How far masks of a row move its posterior mean: variance, and drift from the centroid of its items."""

        def make(workspace: Workspace, found: Compared, reference: str) -> Study:
            return _masks(workspace, found, n_masks, keep)

        return run_analysis(options, "masks", request, make)

    @command(analyses, "spread")
    def spread(
        options: Options,
        request: Request,
        grid: Annotated[
            list[str] | None,
            typer.Option("--grid", help=f"[MODEL:]option=v,v,v; {' and '.join(GRIDS)} of the first by default."),
        ] = None,
    ) -> int:
        """Distance of posteriors, the two parts of the KL, active units and quality, over options such as the KL's
        weight and the share that is dropped."""
        return run_analysis(options, "spread", request, _spread, None, grid or list(GRIDS))

    @command(analyses, "cohorts")
    def cohorts(
        options: Options,
        request: Request,
        counts: Annotated[str, typer.Option("--counts", help="Items in a row of each cohort, with commas.")] = (
            "5,50,350"
        ),
    ) -> int:
        """Users of few and of many items in the latent: how far apart, how mixed, and as a map (t-SNE)."""
        from flows.errors import SettingSyntaxError

        asked = [int(word) for word in counts.split(",") if word.strip().isdigit() and int(word) > 0]
        if len(asked) != len(counts.split(",")) or len(set(asked)) != len(asked):
            raise SettingSyntaxError(f"--counts {counts}", "whole numbers above 0 with commas, e.g. 5,50,350")

        def make(workspace: Workspace, found: Compared, reference: str) -> Study:
            return _cohorts(workspace, found, asked)

        return run_analysis(options, "cohorts", request, make)


def _sharing(workspace: Workspace, found: Compared, keep: float) -> Study:
    from flows.report.charts import sharing_chart
    from flows.steps.collaboration import sharing_curve, sharing_row

    seeds = _looked_at(workspace, found, "sharing", {"keep": keep})
    rows = [sharing_row(label, seed, arrays) for label, several in seeds.items() for seed, arrays in enumerate(several)]
    shown = ("correlation", "w1_low", "w1_high", "radius", "far_related", "far_related_inside", "far_related_helped")
    shown = (*shown, "helped", "neighbour_drift_share", "neighbour_overlap")
    names = ("correlation", "W1 at least", "W1 at most", "radius", "far, related", "inside", "helped", "of all helped")
    columns = ("model", *names, "neighbour drift", "neighbours kept")
    caption = (
        "over pairs of users; far, related: differ in more items than half of the pairs do, and share one; of those, "
        "inside the sharing radius, and where a step on one does lower the other's loss; drift over W1"
    )
    curves = [sharing_curve(label, several) for label, several in seeds.items()]
    return Study("how users share the latent", columns, _means(rows, shown), rows, [sharing_chart(curves)], caption)


def _masks(workspace: Workspace, found: Compared, n_masks: int, keep: float) -> Study:
    from flows.report.charts import mask_chart
    from flows.steps.collaboration import mask_drift, mask_row

    seeds = _looked_at(workspace, found, "masks", {"masks": n_masks, "keep": keep})
    rows = [mask_row(label, seed, arrays) for label, several in seeds.items() for seed, arrays in enumerate(several)]
    shown = ("variance", "drift", "between", "variance_share", "drift_share")
    columns = ("model", *shown[:3], "variance / between", "drift / between")
    caption = (
        f"of the posterior mean over {n_masks} masks that keep {keep:g} of a row, summed over dimensions, means over "
        "users; drift: squared distance from the centroid of the best anchors; between: variance between users"
    )
    chart = mask_chart([mask_drift(label, several, n_masks) for label, several in seeds.items()])
    return Study("what masks move", columns, _means(rows, shown), rows, [chart], caption)


def _spread(workspace: Workspace, found: Compared, reference: str) -> Study:
    from flows.steps.collaboration import spread_row

    metric = found.comparison.select_by
    scores = {score.label: score for score in found.comparison.scores}
    seeds = _looked_at(workspace, found, "spread", {})
    rows = [
        spread_row(label, seed, arrays) | {f"valid {metric}": scores[label].valid[metric]} | scores[label].test
        for label, several in seeds.items()
        for seed, arrays in enumerate(several)
    ]
    shown = ("w1_low", "w1_high", "w1_bound", "kl", "information", "kl_aggregate", "active", metric)
    columns = ("model", "W1 at least", "W1 at most", "by the KL", "KL", "I(x; z)", "KL of all", "active", metric)
    caption = "W1: mean over pairs of users; by the KL: 2 sqrt(2 KL), which bounds it; KL = I(x; z) + KL of all, nats"
    table = _means(rows, shown)
    values = {str(line[0]): dict(zip(shown, line[1:], strict=True)) for line in table}
    charts: list[Chart | None] = [_measure_chart(values, name) for name in (*DRAWN, metric)]
    return Study("spread of posteriors", columns, table, rows, charts, caption)


def _cohorts(workspace: Workspace, found: Compared, counts: Sequence[int]) -> Study:
    from flows.report.charts import map_chart
    from flows.steps.collaboration import cohort_map, cohort_rows

    seeds = _looked_at(workspace, found, "cohorts", {"counts": ",".join(map(str, counts))})
    rows = [
        row
        for label, several in seeds.items()
        for seed, arrays in enumerate(several)
        for row in cohort_rows(label, seed, arrays, counts)
    ]
    away = [f"from_{count}" for count in counts]
    table = [
        (*(row[name] for name in ("model", "seed", "items", "users", "purity")), *map(row.get, away)) for row in rows
    ]
    columns = ("model", "seed", "items", "users", "purity", *(f"W2 to {count}" for count in counts))
    maps = [cohort_map(label, several[0], counts) for label, several in seeds.items()]
    caption = (
        "users whose rows are within a tenth of so many items, 200 at most; purity: share of the 15 nearest of one's "
        "own cohort; the map is of seed 0"
    )
    return Study("cohorts", columns, table, rows, [map_chart(one) for one in maps if one is not None], caption)


def _looked_at(workspace: Workspace, found: Compared, kind: str, asked: dict[str, object]) -> dict[str, list[Any]]:
    from flows.steps.collaboration import looked_at

    plan = found.plan
    return {
        label: [looked_at(workspace, model, kind, asked) for model in plan.seeds_of(label)] for label in plan.labels()
    }


def _means(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[tuple[object, ...]]:
    """(label, means over seeds of each name) of each model; None where no seed has it."""
    table = []
    for label in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == label]
        known = [[row[name] for row in own if row[name] is not None] for name in names]
        table.append((label, *(sum(values) / len(values) if values else None for values in known)))
    return table


def _measure_chart(values: dict[str, dict[str, Any]], measure: str) -> CurveChart | None:
    """A measure by the last number in the labels, one line for each of what stands before it."""
    from flows.report.charts import Line, line_chart

    lines: dict[str, list[tuple[float, float]]] = {}
    option = ""
    for label, found in values.items():
        rest, equals, text = label.rpartition("=")
        owner, _, named = rest.replace("@", ";").rpartition(";")
        try:
            place = float(text)
        except ValueError:
            continue
        if equals and found[measure] is not None:
            option = named
            lines.setdefault(owner, []).append((place, float(found[measure])))
    drawn = [Line(owner, tuple(sorted(points))) for owner, points in lines.items() if len(points) > 1]
    return line_chart(drawn, measure, option, "at {:g}", from_zero=False)
