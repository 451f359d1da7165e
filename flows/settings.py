"""The one typed tree of settings: what a run reads, says, embeds, learns and keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    field_validator,
    model_validator,
)

# A branch that another package validates. Kept plain so that reading settings imports neither of them.
PlainMapping = dict[str, Any]

DEFAULT_MODEL: PlainMapping = {"name": "dmrec", "base": {"name": "mult_vae"}, "matching": {"name": "mddm"}}
DEFAULT_ENGINE: PlainMapping = {"name": "attributes"}
DEFAULT_ENCODER: PlainMapping = {"name": "sentence-transformers", "model": "all-MiniLM-L6-v2"}

# Settings of `[training]` that change how fast a result comes, never the result.
SPEED_ONLY = frozenset({"device", "threads"})


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


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


class SourceSettings(Branch):
    """Where interactions, items and users come from: Parquet, CSV, JSONL (globs, .gz) or a DuckDB query.

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


class ProfileSettings(Branch):
    """How items and users are put into words."""

    domain: str = Field(
        default="generic", description="books, games, movies, papers, products, generic, or a folder under prompts_dir"
    )
    engine: Annotated[PlainMapping, BeforeValidator(_named)] = Field(default_factory=lambda: dict(DEFAULT_ENGINE))
    prompts_dir: Path | None = Field(
        default=None, description="a folder of your own prompt files, <domain>/{item,user}.md"
    )
    attributes: tuple[str, ...] | None = Field(
        default=None, description="the prompts read only these columns; never more than they allow"
    )
    seed: int = Field(default=0, ge=0, description="which training items a user's prompt samples")
    reask: bool = Field(default=True, description="a reply that cannot be used is asked for once more")
    tolerate: tuple[str, ...] = Field(default=(), description="codes of contents that are let through, such as 'url'")
    pii: Literal["off", "strict"] = Field(
        default="off",
        description="'strict' takes e-mail addresses, telephone numbers, links and @handles out of reviews",
    )
    min_coverage: float = Field(
        default=0.5, ge=0, le=1, description="models that read language need this share of items with text"
    )
    max_quarantined_share: float = Field(default=0.05, ge=0, le=1)


class WordSettings(Branch):
    """Which words of items the models see that count words."""

    texts: tuple[str, ...] = Field(default=("profile",), min_length=1, description='"profile" and columns of the items')
    vocabulary: int = Field(default=8000, ge=1, description="the most frequent words, at most so many")
    stop_words: Literal["english", "none"] = "english"
    min_count: int = Field(default=4, ge=1, description="a word occurs at least so often in all texts")
    max_share: float = Field(default=0.6, gt=0, le=1, description="and in less than this share of the items")


class QualitySettings(Branch):
    """What the gate before training lets pass. A limit that is not set is no limit."""

    tolerate: tuple[str, ...] = Field(default=(), description="names of checks whose rows are let through")
    max_length_change: float | None = Field(
        default=None, gt=0, description="relative change of the mean length of item profiles, such as 0.5"
    )
    max_norm_change: float | None = Field(default=None, gt=0, description="the same of the vectors' mean length")
    min_neighbours_kept: float | None = Field(
        default=None, ge=0, le=1, description="share of the ten nearest items that must stay, such as 0.3"
    )


class EvaluationSettings(Branch):
    """How models are scored, how often, and beside which others."""

    protocol: str = Field(
        default="dmrec",
        description="'strong' with split.kind = 'users', and then the default; else 'dmrec'; 'dgrm-paper' and "
        "'dgrm-code' rank rated items alone",
    )
    ks: tuple[int, ...] = Field(default=(10, 20), description="20, 50 and 100 with protocol 'strong'")
    names: tuple[str, ...] = Field(
        default=("recall", "ndcg"),
        description="also mrr, hit, truncated_recall (with 'strong'), novelty, gini; coverage is always measured",
    )
    select_by: str = Field(
        default="recall@20",
        description="the validation metric that early stopping and comparisons use; ndcg@100 with protocol 'strong'",
    )
    cold_items: Literal["model", "text"] = Field(
        default="model",
        description="what scores items without a training interaction; papers leave it to the model",
    )
    relevant_rating: float | None = Field(
        default=None, description="only what was rated so and above is to be found, and learnt by who reads no ratings"
    )
    ties: Literal["random", "index"] | None = Field(
        default=None, description="protocols 'dgrm-*': how equal scores are ordered; random without it"
    )
    seeds: int = Field(default=1, ge=1, description="every model is trained with seeds 0 … n-1")
    baselines: tuple[str, ...] = Field(
        default=("mult_vae", "popularity"), description="catalogue names trained beside [model]"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_protocol_has_it(cls, said: Any) -> Any:
        """What was not said, as the named protocol measures it."""
        from rec_models import PROTOCOLS

        protocol = PROTOCOLS.get(said.get("protocol", "dmrec")) if isinstance(said, Mapping) else None
        if protocol is None:  # rec_models refuses an unknown name, and says which there are
            return said
        return {"ks": protocol.ks, "names": protocol.names, "select_by": protocol.select_by, **said}


class RecommendSettings(Branch):
    """What is published for every user."""

    k: int = Field(default=20, ge=1)
    cold_items: Literal["text", "model"] = Field(
        default="text", description="what scores items without an interaction, where the model reads language"
    )


class WarehouseSettings(Branch):
    """Where everything is kept."""

    root: Path = Path("var/warehouse")


class ReportSettings(Branch):
    """What the HTML report shows."""

    n_examples: int = Field(default=4, ge=0, le=50, description="example profiles and example users")


class Settings(Branch):
    """Everything that decides what a run does. Stored, hashed, with every run."""

    name: str = Field(default="semalign", description="what the report calls this catalogue")
    generated: bool = Field(default=False, description="the catalogue is made up; the report says so")
    source: SourceSettings = SourceSettings()
    split: SplitSettings = SplitSettings()
    profiles: ProfileSettings = ProfileSettings()
    embeddings: Annotated[PlainMapping, BeforeValidator(_named)] = Field(default_factory=lambda: dict(DEFAULT_ENCODER))
    encoders: dict[str, Annotated[PlainMapping, BeforeValidator(_named)]] = Field(
        default_factory=dict, description="[encoders.<name>]: more sets of vectors, each a table embeddings_<name>"
    )
    model: Annotated[PlainMapping, BeforeValidator(_named)] = Field(
        default_factory=lambda: json.loads(json.dumps(DEFAULT_MODEL))
    )
    models: dict[str, PlainMapping] = Field(
        default_factory=dict, description="[models.<name>]: defaults of the other catalogue names"
    )
    training: PlainMapping = Field(default_factory=dict)
    words: WordSettings = WordSettings()
    quality: QualitySettings = QualitySettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    recommend: RecommendSettings = RecommendSettings()
    warehouse: WarehouseSettings = WarehouseSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="before")
    @classmethod
    def _measured_as_it_is_split(cls, said: Any) -> Any:
        """Held-out users are measured by the protocol that is made for them, unless another is asked for."""
        split, evaluation = (said.get(name, {}) for name in ("split", "evaluation"))
        if isinstance(split, Mapping) and split.get("kind") == "users" and isinstance(evaluation, Mapping):
            return {**said, "evaluation": {"protocol": "strong", **evaluation}}
        return said

    def identity(self) -> PlainMapping:
        """The settings that can change a result, as plain JSON; the warehouse's place and all speed left out."""
        tree = self.model_dump(mode="json", exclude={"warehouse", "report", "name", "quality"})
        tree["training"] = {key: value for key, value in tree["training"].items() if key not in SPEED_ONLY}
        return tree

    def hash(self) -> str:
        """sha256 of `identity()`, the settings hash of a run row."""
        return digest(self.identity())


def digest(*parts: object) -> str:
    """sha256 of values as canonical JSON: equal values, equal digest, under any hash seed and locale."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces; refuses what JSON cannot say exactly."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
