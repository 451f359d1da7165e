"""RecGOAT: texts and IDs on attentive graphs, aligned item by item by contrast and as distributions by transport."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from rec_models.adaptive_transport import EntropicSettings, TransportForm, Untransported, gaps, transport_of
from rec_models.attention import (
    AttentionStack,
    Neighbourhood,
    TextAttention,
    kept_co_interaction_neighbours,
    neighbourhood,
)
from rec_models.derived import DerivedArrays
from rec_models.fusion import FusionForm, ModalityFusion
from rec_models.graph import GraphConfig, GraphRecommender, LayerSum, adjacency, kept_edges, ranking_loss, smoothed
from rec_models.interactions import PairBatch, UserBatch
from rec_models.losses import contrast_of_pairs, contrast_of_sides
from rec_models.neighbours import Neighbours, kept_neighbours
from rec_models.semantic import Language, ModelInputs, SemanticMatrix, Texts, texts_of
from rec_models.transport import PlanGradient

# What the released code does where the paper profile does otherwise; single options still overrule it.
_OFFICIAL_CODE = {
    "scoring": "unit",
    "layer_agg": "mean",
    "edge_keep": 1.0,
    "start": "normal",
    "penalty": "batch",
    "l2_weight": 1e-4,
    "neighbours": 20,
    "attention_residual": False,
    "heads": 8,
    "user_init": "id",
    "user_graph": "none",
    "fusion_start": (0.8,),
    "cmcl_pairs": 1 << 30,
    "cmcl_sign": -1,
    "cmcl_weight": 0.032,
    "mask_duplicates": False,
    "oat": "released",
    "oat_weight": 0.0,
    "reject_negatives": False,
}


class RecGOATConfig(GraphConfig):
    """Settings of RecGOAT.

    Attributes:
        profile: `paper` does what the abstract promises; `official_code` sets every option below that the released
            code decides otherwise, except those that are set beside it.
        modalities: `profiles` is the bundle's matrix `items` (and `users`); any other m is `items_m` (and `users_m`, if
            there is one). None at all leaves IDs alone.
        interaction_graph: `lightgcn`, whose layers are smoothed without weights, or `attention` in each layer.
        scoring: items are scored as the `product` of fused vectors and users; or fused vectors first pass a
            normalisation of the layer and dropout and become of `unit` length, as in the released code.
        start: embeddings begin uniform (`xavier`, as LightGCN here) or `normal` with deviation 0.1 (the released code).
        penalty: `l2_weight` is on the squares of `all` parameters, or of the embeddings a `batch` looks up, per pair.
        ids: items have embeddings of their own; otherwise they enter the graph as the mean of their modalities.
        neighbours: of an item in each modality, and of a user.
        attention_layers: of graph attention over neighbours; 0 leaves linear maps of texts.
        attention_residual: an item keeps its own mapped text beside what it hears.
        heads: of attention; must divide `dim`.
        dropout: of attention and of fused vectors.
        user_init: users enter the graph as an embedding, with their mapped texts added to it, or as those alone.
        user_graph: which neighbours users hear: of similar `profiles`, of `interactions` in common, `both` or `none`.
        user_fuse: what they hear is added to what the interaction graph says, or gated first.
        cmcl_weight: of the contrast; 0 leaves it out.
        cmcl_share: of pairs of modalities in the contrast; the rest is between users and the items they took (ρ).
        cmcl_pairs: of a batch that the contrast looks at.
        cmcl_sign: 1 draws modalities of an item together; -1 is the released code, which drives them apart.
        temperature: of the contrast (τ).
        mask_duplicates: an item that is in a batch twice is no negative of itself.
        oat: transport between items (`sample`), dimensions (`feature`), the released code's (`released`), or none.
        oat_weight: of the transport's cost in the loss (η).
        oat_epsilon: of the entropy, as a share of the median cost (ε).
        oat_items: of a batch that transport looks at.
        oat_iterations: Sinkhorn updates.
        oat_scaling: factor by which ε falls to its value from the largest cost, for small ε; None begins at it.
        oat_gradient: of the cost with the plan held constant (`detached`), or through the iterations (`unrolled`).
        oat_moves_ids: the `sample` form's cost draws IDs to language too, not only language to IDs.
        fusion: weights of the vectors that are summed, `free` or through a `softmax`; or a linear map of their
            concatenation or of their plain sum.
        fusion_start: first weight of each modality, or one that all share equally; IDs have the rest of 1.
        reject_negatives: a negative is no item the user took.
        language: `profiles`, or a control that carries no meaning: `shuffled` texts, `random` vectors.
    """

    paper: ClassVar[str] = "Li et al., RecGOAT: Graph Optimal Adaptive Transport for Multimodal Recommendation, 2026"
    reads_language: ClassVar[bool] = True

    name: Literal["recgoat"] = "recgoat"
    profile: Literal["paper", "official_code"] = "paper"
    modalities: tuple[str, ...] = ("profiles",)
    interaction_graph: Literal["lightgcn", "attention"] = "lightgcn"
    scoring: Literal["product", "unit"] = "product"
    start: Literal["xavier", "normal"] = "xavier"
    penalty: Literal["all", "batch"] = "all"
    ids: bool = True
    dim: int = Field(default=64, ge=1)
    layer_agg: LayerSum = "sum"
    edge_keep: float = Field(default=0.8, gt=0, le=1)
    l2_weight: float = Field(default=1e-5, ge=0)
    neighbours: int = Field(default=10, ge=1)
    attention_layers: int = Field(default=1, ge=0)
    attention_residual: bool = True
    heads: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    user_init: Literal["id", "id+llm", "llm"] = "id+llm"
    user_graph: Literal["none", "profiles", "interactions", "both"] = "both"
    user_fuse: Literal["add", "gate"] = "add"
    cmcl_weight: float = Field(default=0.05, ge=0)
    cmcl_share: float = Field(default=0.5, ge=0, le=1)
    cmcl_pairs: int = Field(default=1024, ge=1)
    cmcl_sign: Literal[1, -1] = 1
    temperature: float = Field(default=0.2, gt=0)
    mask_duplicates: bool = True
    oat: TransportForm = "sample"
    oat_weight: float = Field(default=0.2, ge=0)
    oat_epsilon: float = Field(default=0.05, gt=0)
    oat_items: int = Field(default=128, ge=2)
    oat_iterations: int = Field(default=30, ge=1)
    oat_scaling: float | None = Field(default=None, gt=0, lt=1)
    oat_gradient: PlanGradient = "detached"
    oat_moves_ids: bool = False
    fusion: FusionForm = "free"
    fusion_start: tuple[float, ...] = Field(default=(0.2,), min_length=1)
    reject_negatives: bool = True
    language: Language = "profiles"

    @model_validator(mode="before")
    @classmethod
    def _of_profile(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("profile") == "official_code":
            return _OFFICIAL_CODE | given
        return given

    @model_validator(mode="after")
    def _fits(self) -> RecGOATConfig:
        if self.dim % self.heads:
            raise ValueError(f"heads must divide dim; {self.heads} does not divide {self.dim}")
        if len(self.fusion_start) not in (1, len(self.modalities)):
            raise ValueError(f"fusion_start has {len(self.fusion_start)} weights for {len(self.modalities)} modalities")
        if not self.ids and not self.modalities:
            raise ValueError("without ids an item needs a modality")
        return self

    def first_weights(self) -> list[float]:
        """Of each modality in the fusion."""
        n = len(self.modalities)
        return [self.fusion_start[0] / n for _ in range(n)] if len(self.fusion_start) == 1 else list(self.fusion_start)

    def build(self, inputs: ModelInputs) -> RecGOAT:
        """The untrained model."""
        return RecGOAT(self, inputs, texts_of(self.name, inputs, self.modalities, self.language))


class Fused(NamedTuple):
    """Some items, in the order they were asked for; a modality that one lacks is stood in for by its ID.

    Attributes:
        ids: (some, dim).
        languages: modality -> (some, dim) after transport.
        present: modality -> (some,) bool.
        items: (some, dim) final vectors.
        cost: () what transport costs; 0 where it was not asked for.
    """

    ids: Tensor
    languages: dict[str, Tensor]
    present: dict[str, Tensor]
    items: Tensor
    cost: Tensor


class Heard(NamedTuple):
    """What the graphs make of everybody.

    Attributes:
        users: (n_users, dim) final vectors.
        ids: (n_items, dim) from the interaction graph.
        languages: modality -> (n_items, dim) from its own graph.
    """

    users: Tensor
    ids: Tensor
    languages: dict[str, Tensor]


class UserSide(nn.Module):
    """Users before the interaction graph, and what their neighbours add after it.

    Source: the abstract, which promises both; our reading of how.
    Deviations: the code has embeddings alone.
    """

    def __init__(self, config: RecGOATConfig, inputs: ModelInputs, texts: dict[str, SemanticMatrix]) -> None:
        super().__init__()
        self.how = config.user_init if texts else "id"
        self.table = None if self.how == "llm" else embeddings(inputs.n_users, config)
        asked = config.user_graph if config.attention_layers else "none"
        read = texts if config.user_init != "id" or asked != "none" else {}  # a map that nobody reads learns nothing
        self.maps = nn.ModuleDict(
            {name: nn.Linear(matrix.dim, config.dim, bias=False) for name, matrix in read.items()}
        )
        for name, matrix in read.items():
            self.register_buffer(f"vectors_{name}", matrix.vectors.float() * matrix.present[:, None], persistent=False)
        read_too = texts.values() if asked in ("profiles", "both") else []
        found = [alike(text, config, inputs.derived) for text in read_too]
        if asked in ("interactions", "both"):
            found.append(kept_co_interaction_neighbours(inputs.derived, inputs.train, config.neighbours))
        self.graph = neighbourhood(found)
        layers = 0 if self.graph is None else config.attention_layers
        self.attention = AttentionStack(config.dim, layers, config.heads, config.dropout)
        gated = self.graph is not None and config.user_fuse == "gate"
        self.gate = nn.Linear(2 * config.dim, config.dim) if gated else None

    def forward(self, rng: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        """(n_users, dim) what enters the interaction graph, and what neighbours say of each user, if any are asked."""
        said = [layer(self.get_buffer(f"vectors_{name}")) for name, layer in self.maps.items()]
        own: list[Tensor] = [] if self.table is None else [self.table]
        mapped = torch.stack(said or own).sum(0)
        begun = torch.stack(own if self.how == "id" else own + said).sum(0)
        return begun, None if self.graph is None else self.attention(mapped, self.graph, rng)

    def fused(self, users: Tensor, heard: Tensor | None) -> Tensor:
        """(n_users, dim) final vectors."""
        if heard is None:
            return users
        if self.gate is not None:
            heard = torch.sigmoid(self.gate(torch.cat([users, heard], 1))) * heard
        return users + heard


def alike(texts: SemanticMatrix, config: RecGOATConfig, derived: DerivedArrays) -> Neighbours:
    """The nearest by these texts."""
    return kept_neighbours(derived, texts.vectors, texts.present, config.neighbours)


def embeddings(n: int, config: RecGOATConfig) -> nn.Parameter:
    """(n, dim) of users or items before training."""
    table = torch.empty(n, config.dim)
    return nn.Parameter(nn.init.normal_(table, std=0.1) if config.start == "normal" else nn.init.xavier_uniform_(table))


class RecGOAT(GraphRecommender):
    """RecGOAT, as its abstract states it, on LightGCN's footing: without all it adds it is LightGCN, to the digit.

    Source: the abstract for what there is: attentive graphs of items, users and both, users begun from texts, CMCL,
    OAT, adaptive fusion; its released code (revision ca24976) for how, wherever the code does it.
    Deviations: `official_code` follows the code. Otherwise: the code pushes the modalities of an item apart
    (`cmcl_sign`); transports dimensions at a squared cost by a plan that is about 1 / dim beside a free map, or of mass
    0, and never descends its cost (`oat`); has no graph of users and no texts of users (`user_graph`, `user_init`);
    draws negatives among taken items (`reject_negatives`). How users' neighbours are found, what they add, and the
    contrast of every pair of modalities are our reading. Neither profile keeps the code's dropout at inference, its
    selection on test items, or an item as its own neighbour; audio is left out. A modality that a single item lacks is
    stood in for by its ID, as the code does for a modality that all lack, and takes no part in alignment.
    """

    def __init__(self, config: RecGOATConfig, inputs: ModelInputs, texts: dict[str, Texts]) -> None:
        super().__init__(inputs.train, config.batch_pairs)
        self.config = config
        self.graph = adjacency(inputs.train)
        self.listeners = Neighbourhood(self.graph.pattern()) if config.interaction_graph == "attention" else None
        layers = 0 if self.listeners is None else config.layers
        self.attention = AttentionStack(config.dim, layers, config.heads, config.dropout)
        self.user_side = UserSide(config, inputs, {name: text.users for name, text in texts.items() if text.users})
        self.item_table = embeddings(self.n_items, config) if config.ids else None
        stack = config.attention_layers, config.heads, config.dropout, config.attention_residual
        self.encoders = nn.ModuleDict()
        for name, (items, _) in texts.items():
            found = alike(items, config, inputs.derived) if config.attention_layers else None
            self.encoders[name] = TextAttention(items, found, config.dim, *stack)
        settings = EntropicSettings(**{name: getattr(config, f"oat_{name}") for name in EntropicSettings._fields})
        self.transports = nn.ModuleDict({name: transport_of(config.oat, config.dim, settings) for name in texts})
        self.fusion = ModalityFusion(
            config.fusion, config.first_weights(), config.dim, config.dropout, normalised=config.scoring == "unit"
        )

    def heard(self, rng: torch.Generator | None = None) -> Heard:
        """A pass over all graphs; with an `rng` with dropout, as in training."""
        config = self.config
        languages = {name: encoder(rng) for name, encoder in self.encoders.items()}
        first = self._said(languages) if self.item_table is None else self.item_table
        drop = {"symmetric": config.edge_drop_symmetric, "rescale": config.edge_drop_rescale}
        entries = None if rng is None else kept_edges(self.graph, config.edge_keep, rng, **drop)
        begun, said = self.user_side(rng)
        nodes = torch.cat([begun, first])
        if self.listeners is None:
            nodes = smoothed(self.graph, nodes, config.layers, config.layer_agg, entries)
        else:
            nodes = self.attention(nodes, self.listeners, rng)
        return Heard(self.user_side.fused(nodes[: self.n_users], said), nodes[self.n_users :], languages)

    def _said(self, languages: dict[str, Tensor]) -> Tensor:
        """(n_items, dim) mean of an item's modalities, 0 where it has none."""
        has = torch.stack([self.encoders[name].get_buffer("present") for name in languages])[:, :, None]
        return (torch.stack(list(languages.values())) * has).sum(0) / has.sum(0).clamp_min(1)

    def fused(self, heard: Heard, some: Tensor | None = None, rng: torch.Generator | None = None) -> Fused:
        """All items, or `some` (int64, each once) in training, with the cost of transport among `oat_items` of them."""
        every = slice(None) if some is None else some
        ids, cost = heard.ids[every], heard.ids.new_zeros(())
        among = torch.arange(len(ids), device=ids.device)
        if some is not None:
            among = torch.randperm(len(ids), generator=rng, device=ids.device)[: self.config.oat_items]
        languages, present = {}, {}
        for name, vectors in heard.languages.items():
            has = present[name] = self.encoders[name].get_buffer("present")[every]
            moved, spent = self.transports[name](vectors[every], ids, among[has[among]], costed=some is not None)
            languages[name] = torch.where(has[:, None], moved, ids)
            cost = cost + spent
        return Fused(ids, languages, present, self.fusion(ids, list(languages.values()), rng), cost)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Final vectors."""
        heard = self.heard()
        return heard.users, self.fused(heard).items

    def loss(self, batch: PairBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """BPR, the penalty, the contrast (CMCL) and the cost of transport (OAT)."""
        config, heard = self.config, self.heard(rng)
        negatives = self.negatives(batch, rng)
        # fused once, as few rows as there are: a gradient of an indexed table is as long as the table
        some, places = torch.unique(torch.cat([batch.items, negatives]), return_inverse=True)
        taken, drawn = places.split(len(batch))
        users, found = heard.users[batch.users], self.fused(heard, some, rng)
        terms = {
            "ranking": ranking_loss(users, found.items[taken], found.items[drawn]),
            "penalty": config.l2_weight * self.penalised(batch, negatives),
        }
        if config.cmcl_weight:
            n = config.cmcl_pairs  # pairs come in random order
            terms["alignment"] = config.cmcl_weight * self.contrast(users[:n], found, taken[:n], drawn[:n])
        if config.oat_weight and config.modalities:
            terms["transport"] = config.oat_weight * found.cost
        return terms

    def negatives(self, batch: PairBatch, rng: torch.Generator) -> Tensor:
        """(pairs,) int64 items drawn uniformly, from those not taken or from all."""
        if self.config.reject_negatives:
            return batch.negatives(rng).squeeze(1)
        return torch.randint(self.n_items, (len(batch),), generator=rng, device=batch.items.device)

    def contrast(self, users: Tensor, found: Fused, taken: Tensor, drawn: Tensor) -> Tensor:
        """() CMCL: users against what they took, and every pair of modalities, IDs among them, on what is in the batch.

        Args:
            users: (pairs, dim).
            found: the batch's items.
            taken, drawn: (pairs,) int64 places in `found` of each user's item and of its negative.
        """
        config = self.config
        how = config.temperature, config.mask_duplicates
        total = contrast_of_pairs(users, found.items, taken, *how)
        sides = [(found.ids, torch.ones_like(found.ids[:, 0], dtype=torch.bool))]
        sides += [(found.languages[name], found.present[name]) for name in found.languages]
        pairs = [
            contrast_of_sides(one, other, places[has_one[places] & has_other[places]], *how) / len(places)
            for places in (taken, drawn)
            for (one, has_one), (other, has_other) in combinations(sides, 2)
        ]
        if not pairs:
            return total
        between = torch.stack(pairs).mean()
        between = between if config.cmcl_sign > 0 else 1 - between
        return (1 - config.cmcl_share) * total + config.cmcl_share * between

    def penalised(self, batch: PairBatch, negatives: Tensor) -> Tensor:
        """() sum of squares of all parameters, or of the embeddings a batch looks up, each as often as it does."""
        if self.config.penalty == "all":
            return self.squares()
        rows = [] if self.user_side.table is None else [self.user_side.table[batch.users]]
        if self.item_table is not None:
            rows += [self.item_table[batch.items], self.item_table[negatives]]
        return (
            torch.cat([row.flatten() for row in rows]).square().sum() / len(batch)
            if rows
            else negatives.new_zeros(()).float()
        )

    @torch.no_grad()
    def diagnostics(self, batches: Iterable[UserBatch]) -> dict[str, float]:
        """`gaps` of every modality to the IDs, over items that have it."""
        found, means = self.fused(self.heard()), {}
        for name, vectors in found.languages.items():
            has = found.present[name]
            transport = cast(Untransported, self.transports[name])
            apart = gaps(vectors[has], found.ids[has], self.config.temperature, transport)
            means |= {f"{what}_{name}": value for what, value in apart.items()}
        return means
