"""Items and users as stored: an id, and every attribute in one canonical JSON object."""

import json
import math
import re
import unicodedata
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from warehouse.source_errors import UnreadableSourceError
from warehouse.storage import canonical_json
from warehouse.tables import ITEMS, USERS

_ROWS_AT_ONCE = 10_000
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def pack_entities(rows: pa.Table, kind: str) -> pa.Table:
    """The rows as `items` or `users` store them; attributes without a value are left out of the JSON.

    Text is in NFC and free of control characters; a title is in the JSON as well.

    Args:
        rows: an id column and any attribute columns.
        kind: "items" or "users".
    """
    id_column = _id_column(kind)
    names = [name for name in rows.column_names if name != id_column]
    packed = []
    for batch in rows.select(names).to_batches(max_chunksize=_ROWS_AT_ONCE) if names else []:
        packed.extend(canonical_json(_present(row, kind)) for row in batch.to_pylist())
    columns: dict[str, Any] = {
        id_column: rows[id_column].cast(pa.string()),
        "attributes": pa.array(packed if names else ["{}"] * rows.num_rows, pa.string()),
    }
    if kind == "items":
        titles = rows["title"].to_pylist() if "title" in rows.column_names else [None] * rows.num_rows
        cleaned = [clean_text(str(title)).strip() if title is not None else "" for title in titles]
        columns["title"] = pa.array([title or None for title in cleaned], pa.string())
    return (ITEMS if kind == "items" else USERS).conform(pa.table(columns))


def unpack_attributes(packed: pa.Table) -> list[dict[str, Any]]:
    """Every row's attributes as a mapping, in row order."""
    return [json.loads(text) for text in packed["attributes"].to_pylist()]


def attribute_text(value: Any) -> str:
    """An attribute as the text that is embedded of it: the parts of a list joined by commas; "" where there is none."""
    if isinstance(value, list):
        return ", ".join(text for part in value if (text := attribute_text(part)))
    return "" if value is None else str(value).strip()


def clean_text(text: str) -> str:
    """The text in NFC without control characters; line breaks and tabs stay, lone surrogates do not."""
    if text.isascii() and text.isprintable():
        return text
    return unicodedata.normalize("NFC", _CONTROL.sub("", text))


def _id_column(kind: str) -> str:
    return {"items": "item_id", "users": "user_id"}[kind]


def _present(row: dict[str, Any], kind: str) -> dict[str, Any]:
    plain = {name: _plain(value, name, kind) for name, value in row.items()}
    return {name: value for name, value in plain.items() if value not in (None, "", [], {})}


def _plain(value: Any, name: str, kind: str) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    for of_type, convert in _CONVERSIONS:
        if isinstance(value, of_type):
            return convert(value)
    if isinstance(value, list | tuple):
        return [part for part in (_plain(part, name, kind) for part in value) if part is not None]
    if isinstance(value, dict):
        return {str(key): _plain(part, name, kind) for key, part in value.items()}
    raise UnreadableSourceError(f"column `{name}`", kind, f"values of type {type(value).__name__} are no attribute")


_CONVERSIONS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, lambda value: clean_text(value).strip()),
    (float, lambda value: value if math.isfinite(value) else None),
    (Decimal, lambda value: float(value) if value.is_finite() else None),
    (datetime, lambda value: value.isoformat()),
    (date, lambda value: value.isoformat()),
    (time, lambda value: value.isoformat()),
)
