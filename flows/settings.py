"""The one typed tree of settings: what a run reads, says, embeds, learns and keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from flows.source_settings import Branch, SourceSettings, SplitSettings

# A branch that another package validates. Kept plain so that reading settings imports neither of them.
PlainMapping = dict[str, Any]

DEFAULT_MODEL: PlainMapping = {"name": "dmrec", "base": {"name": "mult_vae"}, "matching": {"name": "mddm"}}
DEFAULT_ENGINE: PlainMapping = {"name": "attributes"}
DEFAULT_ENCODER: PlainMapping = {"name": "sentence-transformers", "model": "all-MiniLM-L6-v2"}

# What a protocol may also be called; one of its names is stored and hashed.
_PROTOCOLS_ALSO = {"strong-generalisation": "strong"}

# Settings of `[training]` that change how fast a result comes, never the result.
SPEED_ONLY = frozenset({"device", "threads"})


def _one_name(value: object) -> object:
    return _PROTOCOLS_ALSO.get(value, value) if isinstance(value, str) else value


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


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

    protocol: Annotated[str, BeforeValidator(_one_name)] = Field(
        default="dmrec",
        description="'strong' (strong-generalisation) with split.kind = 'users', and then the default; else 'dmrec'; "
        "'dgrm-paper' and 'dgrm-code' rank rated items alone",
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
    cut_lists: Literal["always", "test"] | None = Field(
        default=None,
        description="protocols 'dgrm-*': where what is predicted low is kept out of lists; `test` spares validation",
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


class VariantSettings(Branch):
    """One arm of an A/B test: the share of the users who get it, and what is other for them."""

    share: float = Field(gt=0, le=1)
    model: str | None = Field(default=None, description="label of another model of the run; its own without it")
    diversity: float | None = Field(default=None, ge=0, lt=1, description="instead of recommend.diversity")


class RecommendSettings(Branch):
    """What is published for every user."""

    k: int = Field(default=20, ge=1)
    cold_items: Literal["text", "model"] = Field(
        default="text", description="what scores items without an interaction, where the model reads language"
    )
    diversity: float = Field(
        default=0.0, ge=0, lt=1, description="weight of being unlike what stands above, by text; 0 ranks by score alone"
    )
    candidates: int | None = Field(
        default=None, ge=1, description="how many of the best a diverse list is chosen from; five times k without it"
    )
    items: str | None = Field(
        default=None, description="SQL over the snapshot: only items whose item_id it gives are recommended"
    )
    users: str | None = Field(
        default=None, description="SQL over the snapshot: lists only for users whose user_id it gives"
    )
    variants: dict[str, VariantSettings] = Field(
        default_factory=dict, description="[recommend.variants.<name>]: arms of an A/B test, by hash of the user id"
    )
    salt: str = Field(default="", description="another salt deals the users to the arms anew")

    @field_validator("variants")
    @classmethod
    def _everybody_once(cls, variants: dict[str, VariantSettings]) -> dict[str, VariantSettings]:
        total = sum(arm.share for arm in variants.values())
        if variants and abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of {', '.join(variants)} add up to {total:g}, expected 1")
        return variants

    @property
    def depth(self) -> int:
        """How many items of every user are ranked before any list is chosen from them."""
        weights = [self.diversity, *(arm.diversity or 0.0 for arm in self.variants.values())]
        return max(self.k, self.candidates or 5 * self.k) if any(weights) else self.k


class EngineSettings(Branch):
    """Where shards of work are done. It changes how fast, never what comes out."""

    runner: Literal["local", "dask", "ray"] = Field(
        default="local", description="'dask' and 'ray' want the extra of that name; every worker sees warehouse.root"
    )
    workers: int = Field(default=2, ge=1, description="of a cluster that the run starts for itself")
    address: str | None = Field(default=None, description="of a cluster that is there, such as tcp://scheduler:8786")
    processes: int = Field(
        default=1, ge=1, description="that train one model, under torchrun; `training.batch_parts` is a multiple of it"
    )


class PromotionSettings(Branch):
    """When a model may take the place of the one that serves. A limit of None is no limit."""

    gate: bool = Field(default=True, description="off: whatever was trained last serves")
    max_loss: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="a model that is measured below the champion may serve where the 95 % interval of the loss in "
        "`evaluation.select_by`, paired over test users, stays within this share; one that is surely worse never may",
    )
    min_users: int = Field(default=10, ge=2, description="of fewer test users nothing is believed")
    min_served: float = Field(default=0.98, ge=0, le=1, description="this share of the users gets a list")
    min_coverage_kept: float | None = Field(
        default=0.5, ge=0, description="the share of the catalogue in any list, over the champion's"
    )
    max_quarantined_share: float | None = Field(
        default=0.05, ge=0, le=1, description="of items and users that were put aside"
    )
    max_drift: float | None = Field(
        default=0.5, gt=0, description="relative change of profile lengths and vector norms under the same recipe"
    )


class WarehouseSettings(Branch):
    """Where everything is kept."""

    root: Path = Path("var/warehouse")


class ReportSettings(Branch):
    """What the HTML report shows."""

    n_examples: int = Field(default=4, ge=0, le=50, description="example profiles and example users")
    n_map_items: int = Field(default=20_000, ge=0, le=50_000, description="items on the map, evenly spaced; 0 for none")


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
    promotion: PromotionSettings = PromotionSettings()
    engine: EngineSettings = EngineSettings()
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
        apart = {"warehouse", "engine", "report", "name", "quality", "promotion"}
        tree = self.model_dump(mode="json", exclude=apart)
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
