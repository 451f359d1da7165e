"""A commented semalign.toml for files nobody has described yet: columns are guessed from their names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_GUESSES: dict[str, dict[str, tuple[str, ...]]] = {
    "interactions": {
        "user_id": (
            "user_id",
            "userid",
            "user",
            "uid",
            "customer_id",
            "reader_id",
            "reviewerid",
            "member_id",
            "account_id",
        ),
        "item_id": (
            "item_id",
            "itemid",
            "item",
            "iid",
            "product_id",
            "movie_id",
            "movieid",
            "book_id",
            "asin",
            "isbn",
            "game_id",
            "sku",
        ),
        "rating": ("rating", "stars", "score", "overall"),
        "timestamp": ("timestamp", "time", "ts", "date", "datetime", "created_at", "unixreviewtime"),
        "text": ("text", "review", "reviewtext", "review_text", "comment"),
    },
    "items": {
        "item_id": (
            "item_id",
            "itemid",
            "id",
            "item",
            "product_id",
            "movie_id",
            "movieid",
            "book_id",
            "asin",
            "isbn",
            "game_id",
            "sku",
        ),
        "title": ("title", "name", "item_name", "product_title", "app_name"),
        "description": ("description", "summary", "overview", "plot", "abstract"),
    },
    "users": {
        "user_id": ("user_id", "userid", "id", "user", "uid", "customer_id", "reader_id", "reviewerid", "member_id")
    },
}
_REQUIRED = {"interactions": ("user_id", "item_id"), "items": ("item_id",), "users": ("user_id",)}
_SPLITS = ("split", "part", "fold")

_TEXT = """\
# semalign settings; lines behind # show what else there is. Values come from, in this order:
# --set a.b=c, SEMALIGN_A__B in the environment, semalign.local.toml, this file. ${{NAME:-default}} expands.
name = "{name}"

[source]                    # Parquet, CSV or JSONL (globs, .gz), or a DuckDB query; relative to this file
interactions = {interactions}
items = {items}
{users}
# min_rating = 3            # leave lower-rated interactions out
{maps}
[split]
{split}
[profiles]
domain = "{domain}"            # which prompts: {domain}/item, {domain}/user
engine = "attributes"       # composes texts from the attributes; no language model, nothing is sent
# A language model instead; a paid one refuses to start without a cap. Key: OPENAI_API_KEY in the environment.
# [profiles.engine]
# name = "openai"
# model = "gpt-4.1-mini"
# base_url = "http://127.0.0.1:8000/v1"   # vLLM, Ollama, llama.cpp; leave out for OpenAI
# [profiles.engine.cap]
# usd = 5.0

[embeddings]
name = "sentence-transformers"
model = "all-MiniLM-L6-v2"

[model]                     # `semalign models` lists all, with their options
name = "dmrec"
[model.base]
name = "mult_vae"
[model.matching]
name = "mddm"

[training]
# epochs = 1000             # early stopping usually ends sooner
# learning_rate = 0.001

[evaluation]
seeds = 1
baselines = ["mult_vae", "popularity"]

[warehouse]
root = "var/warehouse"
"""

_SPLIT = """\
kind = "random"             # over interactions; every user and item keeps one training row
shares = [3, 1, 1]
seed = 0
"""


@dataclass(frozen=True)
class ColumnGuess:
    """What a file's columns seem to be: ours → theirs, and the rest."""

    mapped: dict[str, str]
    others: list[str]
    split: str | None


def guessed_columns(source: str, kind: str) -> ColumnGuess:
    """The guess for one file.

    Raises:
        MissingColumnError: none of the columns looks like an id; the columns there are, are named.
    """
    from warehouse import MissingColumnError

    known = column_names(source, kind)
    lowered = {name.lower(): name for name in reversed(known)}
    mapped = {}
    for ours, candidates in _GUESSES[kind].items():
        found = next(
            (lowered[name] for name in candidates if name in lowered and lowered[name] not in mapped.values()), None
        )
        if found is not None:
            mapped[ours] = found
    for ours in _REQUIRED[kind]:
        if ours not in mapped:
            raise MissingColumnError(ours, known, source, kind)
    others = [name for name in known if name not in mapped.values()]
    split = next((lowered[name] for name in _SPLITS if name in lowered), None) if kind == "interactions" else None
    return ColumnGuess(mapped, others, split)


def column_names(source: str, kind: str) -> list[str]:
    """The columns of a source under their own names."""
    from warehouse import MissingColumnError, read_source

    try:
        return read_source(source, {}, kind=kind).column_names
    except MissingColumnError as error:
        return list(error.known)


def first_settings(
    directory: Path, sources: Mapping[str, str | None], guesses: Mapping[str, ColumnGuess], domain: str
) -> str:
    """The text of a settings file in `directory` for these sources."""
    maps = []
    for kind, guess in guesses.items():
        renamed = {ours: theirs for ours, theirs in guess.mapped.items() if ours != theirs}
        if renamed:
            pairs = "\n".join(f"{ours} = {_quoted(theirs)}" for ours, theirs in renamed.items())
            maps.append(f"[source.columns.{kind}]   # ours = theirs\n{pairs}\n")
        if guess.others:
            maps.append(f"# other columns of {kind}: {', '.join(guess.others)}\n")
    column = guesses["interactions"].split
    given = (
        f"# kind = 'given'            # the interactions have a column {column!r}\n# column = {_quoted(column)}\n"
        if column
        else ""
    )
    users = sources.get("users")
    return _TEXT.format(
        name=directory.resolve().name,
        interactions=_quoted(_relative(sources["interactions"], directory)),
        items=_quoted(_relative(sources["items"], directory)),
        users=f"users = {_quoted(_relative(users, directory))}" if users else '# users = "users.jsonl"',
        maps="\n" + "".join(maps) if maps else "",
        split=_SPLIT + given,
        domain=domain,
    )


def _relative(source: str | None, directory: Path) -> str:
    path = Path(str(source)).expanduser().absolute()
    return os.path.relpath(path, directory.absolute())


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
