"""What comes in: sources, their filters, and how their interactions are split."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, field_validator


class Branch(BaseModel):
    """A frozen part of the tree that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SourceColumns(Branch):
    """Column maps, ours = theirs; a column that is not named keeps its name."""

    interactions: dict[str, str] = Field(
        default_factory=dict, description="e.g. {user_id = 'reader', item_id = 'isbn'}"
    )
    items: dict[str, str] = Field(default_factory=dict)
    users: dict[str, str] = Field(default_factory=dict)


SourceKind = Literal["interactions", "items", "users"]


class DatabaseSettings(Branch):
    """A database that queries of [source] go to, through SQLAlchemy; the URL itself is no setting."""

    url_env: str = Field(
        default="SEMALIGN_DATABASE_URL",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="environment variable with its SQLAlchemy URL",
    )
    updated_since: dict[SourceKind, str] = Field(
        default_factory=dict, description="column that grows with every change: then only changed rows are read"
    )
    keys: dict[SourceKind, tuple[str, ...]] = Field(
        default_factory=dict, description="columns that identify a row; the ids without it"
    )


class SourceSettings(Branch):
    """Where interactions, items and users come from: Parquet, CSV, JSONL (globs, .gz) or a query.

    A query runs in DuckDB over files, or in the database of [source.database].

    Interactions may also be .txt of a user and their items a line, the part of the split in the file's name; items and
    users as many as a .npy has rows.
    """

    interactions: str | None = Field(
        default=None, description="file, glob or query: user_id, item_id, [rating], [timestamp], [text]"
    )
    items: str | None = Field(default=None, description="file, glob or query with item_id and any attribute columns")
    users: str | None = Field(
        default=None, description="file, glob or query with user_id and any attribute columns; may be left out"
    )
    columns: SourceColumns = SourceColumns()
    as_of: datetime | None = Field(
        default=None, description="interactions of this moment and later are left out, and those without a timestamp"
    )
    database: DatabaseSettings | None = Field(default=None, description="where queries run; in DuckDB without it")
    window_days: float | None = Field(
        default=None, gt=0, description="only interactions of so many days up to the latest one are kept"
    )
    min_rating: float | None = Field(default=None, description="interactions rated below are left out")
    min_item_words: int | None = Field(default=None, ge=1, description="items of fewer words leave the catalogue")
    word_columns: tuple[str, ...] | None = Field(
        default=None, description="columns of items whose words count; every column of text without it"
    )
    screen: float | None = Field(
        default=None, gt=0, le=1, description="keep this share of the users, seeded; named in every table"
    )
    min_user_interactions: int | None = Field(
        default=None, ge=1, description="users with fewer leave, together with items below their own limit"
    )
    min_item_interactions: int | None = Field(default=None, ge=1, description="items with fewer leave the catalogue")
    max_quarantined_share: float = Field(
        default=0.01, ge=0, le=1, description="refuse the input above this share of bad rows"
    )

    @field_validator("as_of")
    @classmethod
    def _in_utc(cls, as_of: datetime | None) -> datetime | None:
        return as_of.replace(tzinfo=UTC) if as_of is not None and as_of.tzinfo is None else as_of

    @property
    def cores(self) -> tuple[int, int]:
        """How many interactions a user and an item need to stay; 1 is what everybody in the rows has."""
        return self.min_user_interactions or 1, self.min_item_interactions or 1


class SplitSettings(Branch):
    """Which interactions are trained on, selected on and tested on."""

    kind: Literal["random", "given", "users", "last", "time"] = "random"
    column: str = Field(
        default="split",
        description="kind = 'given': the column that says train, valid, test or, of held-out users, fold_in",
    )
    valid_share: float | None = Field(
        default=None, gt=0, lt=1, description="kind = 'given' without a valid row: share of each user's train rows"
    )
    shares: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        default=(3, 1, 1), description="kind = 'random', or 'time' without cuts: train, valid, test"
    )
    held_out: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(0.1, 0.1), description="kind = 'users': validation and test users; shares below 1, or numbers"
    )
    target_share: float = Field(
        default=0.2, gt=0, lt=1, description="kind = 'users': share of a held-out user's rows that is to be found"
    )
    cuts: tuple[datetime, datetime] | None = Field(
        default=None,
        description="kind = 'time': first moments of validation and test, e.g. ['2018-01-01', '2018-07-01']",
    )
    unseen_items: Literal["keep", "drop"] | None = Field(
        default=None, description="items without a training row; dropped with kind = 'users', else kept, unless said"
    )
    seed: int = Field(default=0, ge=0)

    @property
    def drops_unseen(self) -> bool:
        """Whether items without a training row leave the catalogue, and validation and test with it."""
        return self.unseen_items == "drop" or (self.unseen_items is None and self.kind == "users")

    @field_validator("held_out")
    @classmethod
    def _whole(cls, held_out: tuple[float, float]) -> tuple[float, float]:
        if any(said >= 1 and said != int(said) for said in held_out):
            raise ValueError("expected shares below 1, or whole numbers of users")
        return held_out

    @field_validator("cuts")
    @classmethod
    def _rising(cls, cuts: tuple[datetime, datetime] | None) -> tuple[datetime, datetime] | None:
        if cuts is None:
            return None
        first, second = (cut if cut.tzinfo else cut.replace(tzinfo=UTC) for cut in cuts)
        if first >= second:
            raise ValueError("expected the first moment of validation before the first of test")
        return first, second
