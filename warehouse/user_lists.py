"""Interactions as benchmarks publish them: a user and their items a line, a file for each part of the split."""

import re
from collections.abc import Callable, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING

from warehouse.source_errors import UnreadableSourceError

if TYPE_CHECKING:
    import duckdb

_PARTS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "test": "test",
}
_LINE = re.compile(rb"\s*(\d+(\s+\d+)*\s*)?")
_SHOWN = 40


def user_lists(
    connection: "duckdb.DuckDBPyConnection",
    paths: Sequence[str],
    escaped: Sequence[str],
    open_bytes: Callable[[str], BufferedIOBase],
) -> "duckdb.DuckDBPyRelation":
    """user_id, item_id and split of every pair, in the order they are written; a user without items gives no row.

    Args:
        paths: each named after a part: train.txt, baby_valid.txt, test.txt.gz.
        escaped: the same as patterns that match nothing else.
        open_bytes: a file's bytes, unpacked.

    Raises:
        UnreadableSourceError: a file is named after no part, or a line is not whole numbers.
    """
    parts = [_part(path) for path in paths]
    # each line as one text: no separator, no quotes, no comments
    plain = "auto_detect = false, header = false, delim = e'\\x01', quote = '', escape = '', comment = ''"
    lines = (
        "SELECT $2::VARCHAR AS split, string_split_regex(trim(line, e' \\t\\r'), '\\s+') AS words "
        f"FROM read_csv($1, {plain}, columns = {{'line': 'VARCHAR'}}, max_line_size = 67108864)"
    )
    relations = [connection.sql(lines, params=[[name], part]) for name, part in zip(escaped, parts, strict=True)]
    whole = relations[0]
    for relation in relations[1:]:
        whole = whole.union(relation)
    numbers = "len(list_filter(words, lambda word: NOT regexp_full_match(word, '[0-9]+'))) = 0"
    bad = whole.filter(f"NOT ({numbers}) AND words <> ['']").limit(1).fetchall()
    if bad:
        raise UnreadableSourceError(*_bad_line(paths, open_bytes))
    return whole.project("words[1] AS user_id, unnest(words[2:]) AS item_id, split")


def _part(path: str) -> str:
    words = re.split(r"[^a-z]+", Path(path).name.lower())
    named = {_PARTS[word] for word in words if word in _PARTS}
    if len(named) != 1:
        problem = "lists of items are named after their part of the split: train.txt, valid.txt or test.txt"
        raise UnreadableSourceError(path, "interactions", problem)
    return named.pop()


def _bad_line(paths: Sequence[str], open_bytes: Callable[[str], BufferedIOBase]) -> tuple[str, str, str]:
    for path in paths:
        with open_bytes(path) as stream:
            for number, line in enumerate(stream, 1):
                if not _LINE.fullmatch(line):
                    expected = "a user and their items as whole numbers: 0 17 4 9"
                    shown = ascii(line.rstrip()[:_SHOWN])[1:]
                    return path, "interactions", f"line {number} is {shown}, expected {expected}"
    return paths[0], "interactions", "a line is not a user and their items as whole numbers"
