"""The items by their vectors in two dimensions, coloured by the attribute that tells most of them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.steps.bundle import entity_ids, semantic_matrix
from flows.steps.rows import records, strings

if TYPE_CHECKING:
    from flows.report import ItemMap
    from warehouse import Snapshot, Warehouse

MAX_TITLE, MAX_TEXT = 80, 160
# Colours that can be told apart in light and in dark; the last is for the rest.
N_GROUPS = 6
REST = "other"
# Attributes that often say what kind of thing an item is, the most telling first.
_KINDS = ("category", "categories", "genre", "genres", "type", "subject", "tags", "brand")
_MANY = 200
_AT_EDGE = 0.005


def item_map(warehouse: Warehouse, snapshot: Snapshot, n_items: int) -> ItemMap | None:
    """The map, or None without vectors; of a larger catalogue evenly spaced items are drawn.

    Args:
        n_items: at most so many points.
    """
    from flows.report import ItemMap, MapPoint

    if "embed" not in snapshot.stages or n_items == 0:
        return None
    ids = entity_ids(snapshot)["items"]
    matrix, present = semantic_matrix(warehouse, snapshot, "items", ids).open()
    shown = np.flatnonzero(present)
    if len(shown) < 3:
        return None
    shown = shown[np.unique(np.linspace(0, len(shown) - 1, min(n_items, len(shown))).astype(int))]
    places, explained = flat(matrix[shown])
    texts, attributes, titles = _texts(snapshot), *_attributes(snapshot)
    chosen = [ids[place] for place in shown]
    column, kinds, groups = grouped([attributes.get(item_id, {}) for item_id in chosen])
    points = tuple(
        MapPoint(
            place[0],
            place[1],
            group,
            (titles.get(item_id) or f"item {item_id}")[:MAX_TITLE],
            _short(texts.get(item_id) or ""),
        )
        for item_id, place, group in zip(chosen, places.tolist(), kinds, strict=True)
    )
    return ItemMap(points, len(ids), explained, column, groups)


def flat(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """(n, 2) places in 0..1 by the first two principal components, and the share of variance they hold.

    The signs of the components are fixed, so the same vectors give the same map.
    """
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    axes, values = axes[:, ::-1][:, :2], np.maximum(values[::-1], 0)
    if axes.shape[1] < 2:  # vectors of one number
        axes = np.hstack([axes, np.zeros((len(axes), 2 - axes.shape[1]))])
    axes = axes * np.where(axes[np.abs(axes).argmax(0), [0, 1]] < 0, -1, 1)
    places = centred @ axes
    low, high = np.quantile(places, [_AT_EDGE, 1 - _AT_EDGE], axis=0)  # a few far items do not crowd the others
    scaled = (places - low) / np.where(high > low, high - low, 1)
    total = values.sum()
    return np.clip(0.02 + 0.96 * scaled, 0.005, 0.995), float(values[:2].sum() / total) if total > 0 else 0.0


def grouped(rows: Sequence[Mapping[str, Any]]) -> tuple[str | None, list[int], tuple[str, ...]]:
    """The attribute that groups are made of, each row's group, and the groups' names; most frequent first.

    Of a list its first element counts. Without an attribute that most rows share values of, there is one group.
    """
    names = dict.fromkeys((*_KINDS, *(name for row in rows[:1000] for name in row)))
    for name in names:
        values = [_first(row.get(name)) for row in rows]
        counted = Counter(value for value in values if value)
        telling = 2 <= len(counted) <= (_MANY if name in _KINDS else 40) and counted.total() >= len(rows) / 2
        if not telling or len(counted) > len(rows) / 3:
            continue
        common = [value for value, _ in counted.most_common()]
        if len(common) > N_GROUPS or counted.total() < len(rows):
            common = common[: N_GROUPS - 1]
            places = {value: place for place, value in enumerate(common)}
            return name, [places.get(value, len(common)) for value in values], (*common, REST)
        places = {value: place for place, value in enumerate(common)}
        return name, [places[value] for value in values], tuple(common)
    return None, [0] * len(rows), ("items",)


def _first(value: Any) -> str:
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, str):
        return ""
    return value.split("|")[0].split(",")[0].strip()[:40]


def _texts(snapshot: Snapshot) -> dict[str, str]:
    if "profiles" not in snapshot.tables:
        return {}
    rows = snapshot.read("profiles", columns=["entity_id", "profile"], filter_equal={"kind": "item"})
    return dict(zip(strings(rows, "entity_id"), rows.column("profile").to_pylist(), strict=True))


def _attributes(snapshot: Snapshot) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    from warehouse import unpack_attributes

    rows = snapshot.read("items")
    order = strings(rows, "item_id")
    named = {row["item_id"]: row["title"] for row in records(rows.select(["item_id", "title"]))}
    return dict(zip(order, unpack_attributes(rows), strict=True)), named


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1].rstrip()}…"
