"""The page: content through one template, every text escaped, and a policy that forbids network and foreign scripts."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.caution import clean
from flows.report import wording
from flows.report.charts import (
    WIDTH,
    Chart,
    CurveChart,
    collapse_chart,
    curve_chart,
    group_chart,
    latent_chart,
    map_chart,
    mask_chart,
    sharing_chart,
    sweep_chart,
    whisker_chart,
)
from flows.report.content import ItemMap, ModelResult, ReportContent
from flows.report.heat_map import heat_map, signed_map
from flows.report.narrow import narrow_curves, narrow_whiskers

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

_HERE = Path(__file__).parent
_GAP = 44.0


def render(content: ReportContent) -> str:
    """A complete HTML document that opens from disk, in light or dark, with nothing to fetch."""
    world = content.item_map
    script = (_HERE / "map.js").read_text("utf-8").strip() if world else ""
    style = (_HERE / "report.css").read_text("utf-8")
    primary = wording.primary_metric(content)
    html = (
        _environment()
        .get_template("report.html")
        .render(
            content=content,
            style=style,
            policy=_policy(style, script),
            script=script,
            points=map_points(world) if world else "",
            summary=wording.summary(content),
            primary=primary,
            metrics=_metric_names(content, primary),
            best=_best_values(content),
            lead=wording.first_of(content, "model"),
            base=wording.first_of(content, "base"),
            against=wording.compared_with(content, primary),
            value_of=wording.value_of,
            difference_of=wording.difference_of,
            whiskers=whisker_chart(content.models, primary),
            curves=curve_chart(content.models),
            clocked=_clocked(content.models),
            groups=group_chart(content.groups, str(primary)),
            latents=latent_chart(content.latents),
            sweeps=[sweep_chart(sweep, str(primary), _level(content, primary)) for sweep in content.sweeps],
            masks=mask_chart(content.masks),
            sharing=sharing_chart(content.sharing),
            collapse=collapse_chart(content.collapses, "rating_kl"),
            maps=[chart for cohorts in content.cohorts if (chart := map_chart(cohorts))],
            heat_map=heat_map,
            signed_map=signed_map,
            narrow_curves=narrow_curves,
            narrow_whiskers=narrow_whiskers,
            trained=[model for model in content.models if model.seconds is not None],
            settings=list(wording.flat(content.settings)),
        )
    )
    return clean(html.replace("\r\n", "\n"))


def figure(charts: Sequence[Chart]) -> str:
    """The charts under each other as one SVG document, on white, with nothing to fetch."""
    tops = list(itertools.accumulate((chart.height + _GAP for chart in charts), initial=0.0))
    style = (_HERE / "figure.css").read_text("utf-8")
    svg = (
        _environment()
        .get_template("figure.svg")
        .render(charts=list(zip(charts, tops, strict=False)), width=WIDTH, height=tops[-1], style=style)
    )
    return clean(svg.lstrip())


def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": wording.count,
        "breakable": _breakable,
        "measure": wording.measure,
        "signed": wording.signed,
        "percent": wording.percent,
        "gain": wording.gain,
        "duration": wording.duration,
        "dollars": wording.dollars,
        "probability": wording.probability,
        "metric_name": wording.metric_name,
    }
    return environment


def _breakable(label: str) -> Markup:
    """A label that a line may break after its signs, escaped."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split(r"(?<=[@;=._+])", label))


def _clocked(models: Sequence[ModelResult]) -> CurveChart | None:
    """The curves by second, where every trained model's epochs were timed."""
    timed = all(row.seconds is not None for model in models for row in model.history)
    return curve_chart(models, "second") if timed else None


def _level(content: ReportContent, primary: str | None) -> tuple[str, float] | None:
    """The base and its test value, for a line that a sweep is read against."""
    base = wording.first_of(content, "base")
    value = wording.value_of(base, primary) if base else None
    return (base.label, value) if base and value is not None else None


def map_points(world: ItemMap) -> str:
    """The map's points as JSON that can stand inside a page: no character of it ends an element or opens one."""
    rows = {
        "x": [round(point.x, 4) for point in world.points],
        "y": [round(point.y, 4) for point in world.points],
        "group": [point.group for point in world.points],
        "titles": [clean(point.title) for point in world.points],
        "texts": [clean(point.text) for point in world.points],
        "groups": [clean(name) for name in world.groups],
        "named": world.named,
    }
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _policy(style: str, script: str) -> str:
    """Nothing may be loaded; the one style sheet, and the script where there is a map, are allowed by their hashes."""
    own = {"style-src": style, **({"script-src": script} if script else {})}
    hashed = {name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for name, text in own.items()}
    allowed = "".join(f"{name} 'sha256-{digest}'; " for name, digest in hashed.items())
    return f"default-src 'none'; {allowed}base-uri 'none'; form-action 'none'"


def _metric_names(content: ReportContent, primary: str | None) -> list[str]:
    """Every per-user metric any model has, the kind of the primary one first; coverage has a table of its own."""
    names = dict.fromkeys(row.metric for model in content.models for row in model.metrics)
    leading = (primary or "").partition("@")[0]
    shown = [name for name in names if not name.startswith("coverage")]
    return sorted(shown, key=lambda name: name.partition("@")[0] != leading)


def _best_values(content: ReportContent) -> dict[str, float]:
    """The highest mean of each metric among models that are not controls; of novelty and Gini more is not better."""
    best: dict[str, float] = {}
    for model in content.models:
        for row in model.metrics:
            if model.role != "control" and row.metric.partition("@")[0] not in ("novelty", "gini"):
                best[row.metric] = max(row.value, best.get(row.metric, row.value))
    return best
