"""What a report says, as plain frozen values: the flow fills them, the template only shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

from flows.report.analysed import Collapse, PosteriorSpread
from flows.report.interests import UserFactors

Role = Literal["model", "base", "baseline", "control"]
"""`model` is what the run is about, `base` the same model without language, `control` that model with spoilt text."""

ACTIVE = 0.01
"""A latent dimension whose posterior mean varies less than this between users tells nothing about them."""

State = Literal["computed", "kept"]
"""Whether a stage did its work in this run or found it already done."""


@dataclass(frozen=True)
class RunFacts:
    """Which run this is: names, times and what was published."""

    run_id: str
    name: str
    """The settings' name: the catalogue's title in the report."""
    command: str
    started_at: datetime
    seconds: float
    snapshot: str
    settings_hash: str
    code_version: str
    generated: bool = False
    """True for the demo: the report says on its first line that the catalogue was invented."""


@dataclass(frozen=True)
class CatalogueFacts:
    """Sizes of what was read and how it was split, in rows."""

    n_users: int
    n_items: int
    n_interactions: int
    n_train: int
    n_valid: int
    n_test: int
    split: str
    """In words: "random 3:1:1, seed 0", "given column `split`"."""
    protocol: str
    n_fold_in: int = 0
    left_out: str = ""
    """In words, what filters left out; empty where nothing was."""


@dataclass(frozen=True)
class ProfileFacts:
    """Where the texts came from and how they became vectors."""

    source: str
    """`attributes` (composed, no model) or the language model's name."""
    user_source: str
    """`pooled` (mean of the training items' vectors), `attributes`, or the language model's name."""
    prompts: tuple[str, ...]
    """Prompt ids with versions: "games/item v1"."""
    n_item_profiles: int
    n_user_profiles: int
    encoder: str
    dim: int


@dataclass(frozen=True)
class Interval:
    """A mean over users with its 95 % bootstrap interval; bounds are None where none was computed."""

    metric: str
    """As in metrics.json: "recall@20"."""
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Difference:
    """This model minus another, the base where there is one, on one metric, paired over users."""

    metric: str
    difference: float
    relative: float | None
    """`difference` / the base's mean; None where the base is 0."""
    low: float
    high: float
    p_value: float | None
    n_users: int
    reference: str = ""
    """Label of the other one."""


@dataclass(frozen=True)
class Epoch:
    """One point of a training curve; `recall` is None where the epoch was not validated, `seconds` are training's."""

    epoch: int
    loss: float | None = None
    recall: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class ModelResult:
    """One trained model: test metrics, paired differences, and how it was trained."""

    label: str
    """Unique in the report: "dmrec", "mult_vae", "dmrec, shuffled text"."""
    role: Role
    reads_language: bool
    metrics: tuple[Interval, ...]
    differences: tuple[Difference, ...] = ()
    history: tuple[Epoch, ...] = ()
    """Of the first seed; empty for models that are not trained in epochs."""
    seeds: tuple[int, ...] = (0,)
    best_epoch: int | None = None
    seconds: float | None = None
    n_parameters: int | None = None
    device: str | None = None
    coverage: float | None = None
    """Share of the catalogue that appears in anyone's first 20, 0..1."""


@dataclass(frozen=True)
class GroupGain:
    """One model minus a reference over the users of one activity group; `p_holm` is corrected for all groups."""

    model: str
    reference: str
    group: str
    """In training interactions: "3–5"."""
    n_users: int
    value: float
    reference_value: float
    difference: float
    low: float
    high: float
    p_holm: float


@dataclass(frozen=True)
class LatentActivity:
    """How much the posterior means of one model differ between users: quantiles over dimensions of log variance."""

    model: str
    part: str
    """`decoded`, or of an aligned model `source` and `language`."""
    quantiles: tuple[float, float, float, float, float]
    """Minimum, quartiles with the median, maximum; natural logarithm."""
    n_active: int
    """Dimensions whose variance is at least `ACTIVE`."""
    n_dims: int


@dataclass(frozen=True)
class MaskDrift:
    """How far masks move the posterior means of users; quantiles over users, each over the variance between users."""

    model: str
    n_masks: int
    variance: tuple[float, float, float, float, float]
    """A tenth, quartiles with the median, nine tenths, of the variance of the mean over masks."""
    drift: tuple[float, float, float, float, float]
    """The same of the mean squared distance from the centroid of the anchors of one's items."""


@dataclass(frozen=True)
class SharingCurve:
    """How latent distance follows distance in rows, over pairs of users of one model."""

    model: str
    points: tuple[tuple[float, float], ...]
    """(items that one of two users has, 1-Wasserstein distance from above), means of tenths of the pairs."""
    correlation: float
    far_related: float
    """Share of pairs that differ in more items than half of all pairs do and yet share one."""
    inside: float
    """Share of those within the sharing radius."""
    helping: float
    """Share of those where a small step on one user does lower the loss of the other."""
    neighbour_overlap: float
    """Of the ten nearest users of a user under two masks, Jaccard."""


@dataclass(frozen=True)
class CohortMap:
    """Users of a few activities as a map of one model's latent; distances on it are no measure."""

    model: str
    cohorts: tuple[str, ...]
    """In items of a row, with the number of users: "5 (200)"."""
    points: tuple[tuple[float, float, int], ...]
    """(x, y, place among the cohorts) of each user."""
    purity: float
    """Share of the 15 nearest in the latent itself that are of one's own cohort."""


@dataclass(frozen=True)
class SweepPoint:
    """What one value of a swept option was worth."""

    value: float
    label: str
    valid: float | None
    test: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Sweep:
    """One option of one model, all others held: `model` is its label without the option."""

    model: str
    option: str
    points: tuple[SweepPoint, ...]


@dataclass(frozen=True)
class StageFacts:
    """One stage of the run: whether it worked, how long, and what came of it in words."""

    name: str
    state: State
    seconds: float
    summary: str = ""


@dataclass(frozen=True)
class CostFacts:
    """What the profiles cost and what the cache saved."""

    requests: int = 0
    """Profiles asked for in this run; of these `cached` were already answered."""
    cached: int = 0
    failed: int = 0
    tokens_in: int | None = 0
    tokens_out: int | None = 0
    usd: float | None = 0.0
    """None when a price is unknown: shown as "unknown", never as 0."""
    embeddings_computed: int = 0
    embeddings_cached: int = 0


@dataclass(frozen=True)
class CostRow:
    """What was asked of one model on one day, this run and the earlier ones together."""

    day: date
    engine: str | None
    """None for calls of no finished run: previews, pilots, runs that were stopped."""
    model: str | None
    calls: int
    replies: int
    """Kept, whatever they say."""
    cached: int | None
    tokens_in: int | None
    tokens_out: int | None
    usd: float | None
    """None when any price in it is unknown: shown as "unknown", never as 0."""
    reasked: int | None
    quarantined: int | None


@dataclass(frozen=True)
class QuarantineRow:
    """How many rows of one stage were set aside for one reason, with one example."""

    stage: str
    kind: str
    code: str
    rows: int
    example: str = ""


@dataclass(frozen=True)
class TextCoverage:
    """How many entities of one kind have a text of their own; the rest are masked or pooled."""

    kind: str
    n_with_text: int
    n_total: int


@dataclass(frozen=True)
class ProfileExample:
    """One profile as it was embedded, with the title it belongs to."""

    kind: str
    entity_id: str
    title: str
    profile: str
    source: str
    reasoning: str | None = None
    similar: tuple[str, ...] = ()
    """Titles of the nearest items in the language space."""


@dataclass(frozen=True)
class MapPoint:
    """One item of the map: where it lies, 0..1 from the left and the top, its group, and what is told of it."""

    x: float
    y: float
    group: int
    title: str
    text: str


@dataclass(frozen=True)
class ItemMap:
    """The items by their vectors, in two dimensions."""

    points: tuple[MapPoint, ...]
    n_items: int
    """Of the catalogue, whether on the map or not."""
    explained: float
    """Share of the vectors' variance that the two dimensions hold."""
    column: str | None
    """The attribute that groups are made of; None where there is a single group."""
    groups: tuple[str, ...]

    @property
    def named(self) -> bool:
        """Whether the groups say anything."""
        return self.column is not None


@dataclass(frozen=True)
class RecommendedItem:
    """One row of a user's list."""

    rank: int
    item_id: str
    title: str
    score: float
    reason: str = ""


@dataclass(frozen=True)
class RecommendationExample:
    """One user's training history (titles) and what the model would show next."""

    user_id: str
    history: tuple[str, ...]
    n_history: int
    items: tuple[RecommendedItem, ...]
    model: str


@dataclass(frozen=True)
class ReportContent:
    """All that one report shows. Every text in it is untrusted and is escaped by the template."""

    run: RunFacts
    catalogue: CatalogueFacts
    profiles: ProfileFacts
    models: tuple[ModelResult, ...]
    """In the order to be shown; the first with role `model` is the one the summary speaks of."""
    groups: tuple[GroupGain, ...] = ()
    latents: tuple[LatentActivity, ...] = ()
    """Of the models whose latent was looked at by `semalign analyse latent`."""
    sweeps: tuple[Sweep, ...] = ()
    masks: tuple[MaskDrift, ...] = ()
    """Of the models that `semalign analyse masks` looked at; so with the next three and their commands."""
    sharing: tuple[SharingCurve, ...] = ()
    cohorts: tuple[CohortMap, ...] = ()
    spreads: tuple[PosteriorSpread, ...] = ()
    collapses: tuple[Collapse, ...] = ()
    """Of the models that predict ratings."""
    stages: tuple[StageFacts, ...] = ()
    cost: CostFacts = CostFacts()
    cost_rows: tuple[CostRow, ...] = ()
    quarantine: tuple[QuarantineRow, ...] = ()
    quarantine_command: str = ""
    """The exact command that lists the rows set aside."""
    text_coverage: tuple[TextCoverage, ...] = ()
    item_map: ItemMap | None = None
    """None where the items have no vectors."""
    profile_examples: tuple[ProfileExample, ...] = ()
    recommendation_examples: tuple[RecommendationExample, ...] = ()
    explained: tuple[UserFactors, ...] = ()
    """The interests of a few users, where the published model has such."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """The resolved settings tree, nested plain mappings; secrets must already be left out."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package name → version."""
    notes: tuple[str, ...] = ()
    """Sentences the reader must know, shown under the summary: "titles only", "re-split, not the paper's"."""
