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
# min_user_interactions = 5 # and, until nobody is below, users and items with fewer than so many
# min_item_interactions = 5
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
# Other engines: "openai-batch" (half the price, takes hours), "local" (gguf = "model.gguf", in this process),
# "file" (requests_path = "requests.jsonl", results_path = "results.jsonl": another program answers).

[embeddings]
name = "sentence-transformers"
model = "all-MiniLM-L6-v2"
# Vectors by a server of the OpenAI protocol instead:
# name = "openai"
# model = "text-embedding-3-small"
# base_url = "http://127.0.0.1:8000/v1"   # leave out for OpenAI
# [embeddings.cap]
# usd = 5.0

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
shares = [3, 1, 1]          # also: "users" held out of training altogether, each user's "last" row, or by "time"
seed = 0
"""


@dataclass(frozen=True)
class ColumnGuess:
    """What a file's columns seem to be: ours → theirs, and the rest.

    Attributes:
        split: the column that seems to say which part a row is in.
        given: it does say train, valid and test.
    """

    mapped: dict[str, str]
    others: list[str]
    split: str | None
    given: bool = False


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
    return ColumnGuess(mapped, others, split, split is not None and _names_parts(source, mapped, split))


def _names_parts(source: str, mapped: Mapping[str, str], column: str) -> bool:
    """Whether the column says train, valid and test: then a random split would train on rows meant for testing."""
    from flows.errors import SplitColumnError
    from flows.steps.split import given_parts
    from warehouse import read_source

    try:
        given_parts(read_source(source, mapped, kind="interactions"), column)
    except SplitColumnError:
        return False
    return True


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
    users = sources.get("users")
    return _TEXT.format(
        name=directory.resolve().name,
        interactions=_quoted(_relative(sources["interactions"], directory)),
        items=_quoted(_relative(sources["items"], directory)),
        users=f"users = {_quoted(_relative(users, directory))}" if users else '# users = "users.jsonl"',
        maps="\n" + "".join(maps) if maps else "",
        split=_split_lines(guesses["interactions"]),
        domain=domain,
    )


def _split_lines(guess: ColumnGuess) -> str:
    if guess.split is None:
        return _SPLIT
    if guess.given:
        return f'kind = "given"              # the column says train, valid or test\ncolumn = {_quoted(guess.split)}\n'
    return f"{_SPLIT}# kind = 'given'            # if it says train, valid or test\n# column = {_quoted(guess.split)}\n"


def _relative(source: str | None, directory: Path) -> str:
    path = Path(str(source)).expanduser().absolute()
    return os.path.relpath(path, directory.absolute())


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
