"""LLMRec: edges a language model chose, and texts of users and items, beside embeddings on the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from rec_models.graph import GraphRecommender, scaled
from rec_models.interactions import InteractionMatrix, PairBatch, ResidentInteractions
from rec_models.losses import bpr, unit
from rec_models.recommender import RecommenderConfig
from rec_models.semantic import (
    Language,
    ModelInputs,
    SemanticMatrix,
    keep_texts,
    language_of,
    own_names,
    whose_texts,
)

# Degree powers of a row and of a column; the code's flag says mean but divides by the root.
NORMS = {"row_sqrt": (0.5, 0.0), "row_mean": (1.0, 0.0), "sym": (0.5, 0.5)}
EDGES = "llmrec"
# What LLMRec asks a language model for beside edges, under the names a bundle gives it; profiles stand in for what is
# not there.
OWN_TEXTS = {"user": "users_facts", "item": "items_missing"}
_USERS_AT_ONCE = 256


class LLMRecConfig(RecommenderConfig):
    """Settings of LLMRec; the defaults are those of its code, but for an inverted penalty.

    Attributes:
        dim: width of embeddings and of mapped texts.
        layers: graph steps of the embeddings.
        norm: how interactions are scaled before a step.
        profile_weight: of the facts about users in the final vectors.
        text_weight: of the items' profiles.
        attribute_weight: of the items' attributes; 0 leaves that branch out.
        profile_loss_weight: of ranking by facts about users against attributes of items.
        text_loss_weight: of ranking by profiles of items.
        drop_share: share of a batch's terms that pruning leaves out.
        prune_keep: `large_loss` keeps the hardest terms, as the code does; `small_loss` drops what looks like noise, as
            the paper reads, and hardly learns: the terms it keeps are those with the least gradient.
        edge_share: users of a batch whose chosen and refused item join it.
        l2_weight: on half the squares of the batch's final vectors, over its size.
        regularizer: `l2`, or `inverse` as in the code, which rewards large vectors.
        feature_l2_weight: on half the squares of the text branch, over the number of items.
        candidates: unseen items a surrogate edge is chosen from.
        batch_pairs: interactions an optimiser step.
        language: `profiles`, or a control that carries no meaning: `shuffled` texts, `random` vectors.
    """

    paper: ClassVar[str] = "Wei et al., LLMRec: Large Language Models with Graph Augmentation, WSDM 2024"
    reads_language: ClassVar[bool] = True
    scores_new_users: ClassVar[bool] = False

    name: Literal["llmrec"] = "llmrec"
    dim: int = Field(default=64, ge=1)
    layers: int = Field(default=2, ge=1)
    norm: Literal["row_sqrt", "row_mean", "sym"] = "row_sqrt"
    profile_weight: float = Field(default=2.8, ge=0)
    text_weight: float = Field(default=0.02, ge=0)
    attribute_weight: float = Field(default=0.005, ge=0)
    profile_loss_weight: float = Field(default=0.012, ge=0)
    text_loss_weight: float = Field(default=1e-4, ge=0)
    drop_share: float = Field(default=0.71, ge=0, lt=1)
    prune_keep: Literal["small_loss", "large_loss"] = "large_loss"
    edge_share: float = Field(default=0.1, ge=0, le=1)
    l2_weight: float = Field(default=1e-5, ge=0)
    regularizer: Literal["l2", "inverse"] = "l2"
    feature_l2_weight: float = Field(default=1e-5, ge=0)
    candidates: int = Field(default=10, ge=2)
    batch_pairs: int = Field(default=1024, ge=1)
    language: Language = "profiles"

    def build(self, inputs: ModelInputs) -> LLMRec:
        """The untrained model, with the bundle's edges and own texts, or surrogates for them."""
        items, users = language_of(self.name, inputs, self.language)
        names = own_names(inputs, OWN_TEXTS)
        attributes, facts = language_of(self.name, inputs, self.language, items=names["item"], users=names["user"])
        # in a control nothing may carry meaning, and a language model's choice does
        given = inputs.edges.get(EDGES) if self.language == "profiles" else None
        edges = surrogate_edges(inputs.train, items, users, self.candidates) if given is None else given
        whose = {"edges": "surrogate edges, from embeddings" if given is None else "a language model's"}
        texts = {"item": items, "user": facts} | ({} if attributes is items else {"attribute": attributes})
        return LLMRec(self, inputs.train, texts, edges, whose | whose_texts(names, OWN_TEXTS))


@torch.no_grad()
def surrogate_edges(train: InteractionMatrix, items: SemanticMatrix, users: SemanticMatrix, n: int) -> Tensor:
    """(n_users, 2) int64 most and least fitting candidate of each user by cosine of vectors; -1 where there is none.

    Candidates are the `n` unseen items with text that a parameter-free graph step from a user's items ranks highest.

    Source: none; it stands in for the language model's choice, which takes candidates of a trained recommender.
    """
    to_users, to_items = scaled(train, row_power=0.5, column_power=0.5)
    history = ResidentInteractions(train)
    edges = torch.full((train.n_users, 2), -1)
    item_vectors, user_vectors = unit(items.vectors.float()), unit(users.vectors.float())
    for start in range(0, train.n_users, _USERS_AT_ONCE):
        chosen = torch.arange(start, min(start + _USERS_AT_ONCE, train.n_users))
        rows = history.batch(chosen.numpy())
        own = torch.zeros(train.n_items, len(chosen))
        own[rows.items, rows.rows] = 1.0
        scores = to_items(to_users(own)).t().contiguous()
        scores[rows.rows, rows.items] = -torch.inf
        scores[:, ~items.present] = -torch.inf
        best, candidates = scores.topk(min(n, train.n_items), dim=1)
        real = torch.isfinite(best)
        fit = (item_vectors[candidates] * user_vectors[chosen, None]).sum(-1)
        liked = candidates.gather(1, fit.masked_fill(~real, -torch.inf).argmax(1, keepdim=True))
        refused = candidates.gather(1, fit.masked_fill(~real, torch.inf).argmin(1, keepdim=True))
        told = users.present[chosen] & (real.sum(1) > 1)
        edges[chosen[told]] = torch.cat([liked, refused], 1)[told]
    return edges


@dataclass(frozen=True)
class Branches:
    """Vectors of users and of items: the final ones and those of facts about users, of profiles of items, of facts."""

    final: tuple[Tensor, Tensor]
    profile: tuple[Tensor, Tensor]
    text: tuple[Tensor, Tensor]
    attribute: tuple[Tensor, Tensor] | None


class LLMRec(GraphRecommender):
    """LLMRec without images.

    Source: LLMRec (Wei et al. 2024) and its code, which is followed where the two differ.
    Deviations: the penalty is on squares, where the code rewards large vectors (`regularizer`). Pruning keeps the terms
    of large loss, as the code does and against the paper's words (`prune_keep`). Validation selects, not test. The
    item's profile is its text. Facts about users leave out who they are: no age, gender, country or language. Facts
    about items (makers, kinds, themes, languages) are one text and so one attribute, where the code has a vector each.
    No images, no masked features (their weight is 0 in the code), Adam without decoupled decay. Nodes without text have
    a zero vector in that branch. Edges and facts come from the bundle; without a language model edges are surrogates
    made from embeddings and profiles stand in for facts; `provenance` says so. The penalty's weight 1e-5 is ours.
    """

    item_vectors: Tensor
    user_vectors: Tensor
    item_present: Tensor
    user_present: Tensor
    edges: Tensor

    def __init__(
        self,
        config: LLMRecConfig,
        train: InteractionMatrix,
        texts: Mapping[str, SemanticMatrix],
        edges: Tensor,
        whose: dict[str, str],
    ) -> None:
        super().__init__(train, config.batch_pairs)
        self.config, self.whose = config, whose
        row_power, column_power = NORMS[config.norm]
        self.to_users, self.to_items = scaled(train, row_power=row_power, column_power=column_power)
        keep_texts(self, texts)
        self.attributes = "attribute" if "attribute" in texts else "item"
        self.register_buffer("edges", edges, persistent=False)
        self.user_table = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_users, config.dim)))
        self.item_table = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_items, config.dim)))
        self.profile_map = nn.Linear(texts["user"].dim, config.dim)
        self.text_map = nn.Linear(texts["item"].dim, config.dim)
        self.attribute_map = nn.Linear(texts[self.attributes].dim, config.dim) if config.attribute_weight else None

    def provenance(self) -> dict[str, str]:
        """Who chose the added edges, and which texts stand for facts about users and items."""
        return self.whose

    def propagated(self) -> tuple[Tensor, Tensor]:
        """Embeddings, averaged over layers; items see the users of their own step, the last step ends in a softmax."""
        users, items = cast(Tensor, self.user_table), cast(Tensor, self.item_table)
        of_users, of_items = [users], [items]
        for layer in range(self.config.layers):
            last = layer == self.config.layers - 1
            users = torch.softmax(self.to_users(items), -1) if last else self.to_users(items)
            items = torch.softmax(self.to_items(users), -1) if last else self.to_items(users)
            of_users.append(users)
            of_items.append(items)
        return torch.stack(of_users).mean(0), torch.stack(of_items).mean(0)

    def mapped(self, layer: nn.Linear, texts: str) -> Tensor:
        """(n, dim) texts through a layer; zero where there is none."""
        return layer(self.get_buffer(f"{texts}_vectors")) * self.get_buffer(f"{texts}_present")[:, None]

    def spread(self, mapped: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of users from those of their items, and of items from those of their users."""
        users = self.to_users(mapped)
        return users, self.to_items(users)

    def branches(self) -> Branches:
        """Everything a step or a ranking needs."""
        config = self.config
        users, items = self.propagated()
        profile_items = self.to_items(self.mapped(self.profile_map, "user"))
        profile = self.to_users(profile_items), profile_items
        text = self.spread(self.mapped(self.text_map, "item"))
        attribute = None
        added = [(config.profile_weight, profile), (config.text_weight, text)]
        if self.attribute_map is not None:
            attribute = self.spread(self.mapped(self.attribute_map, self.attributes))
            added.append((config.attribute_weight, attribute))
        for weight, (of_users, of_items) in added:
            users, items = users + weight * unit(of_users), items + weight * unit(of_items)
        return Branches((users, items), profile, text, attribute)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Final vectors."""
        return self.branches().final

    def loss(self, batch: PairBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Pruned BPR on final vectors and on the branches, and the penalties."""
        config, made = self.config, self.branches()
        chosen = self.with_edges(batch, rng)
        sides = config.text_loss_weight * self.pruned(*made.text, *chosen)
        if made.attribute is not None:
            sides = sides + config.profile_loss_weight * self.pruned(made.profile[0], made.attribute[1], *chosen)
        features = made.text[0].square().sum() + made.text[1].square().sum()
        return {
            "ranking": self.pruned(*made.final, *chosen),
            "branches": sides,
            "penalty": config.l2_weight * self.penalty(*made.final, *chosen)
            + config.feature_l2_weight * features / (2 * self.n_items),
        }

    def with_edges(self, batch: PairBatch, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Users, taken and untaken items of the batch, some of its users' chosen and refused items appended."""
        negatives = batch.negatives(rng).squeeze(1)
        order = torch.randperm(len(batch), generator=rng, device=batch.users.device)
        users = batch.users[order[: round(self.config.edge_share * len(batch))]]
        users = users[self.edges[users, 0] >= 0]
        liked, refused = self.edges[users].unbind(1)
        return torch.cat([batch.users, users]), torch.cat([batch.items, liked]), torch.cat([negatives, refused])

    def pruned(self, users: Tensor, items: Tensor, who: Tensor, taken: Tensor, untaken: Tensor) -> Tensor:
        """() mean of the BPR terms that pruning keeps; at least one."""
        own = users[who]
        terms = bpr((own * items[taken]).sum(-1), (own * items[untaken]).sum(-1))
        kept = max(1, int((1 - self.config.drop_share) * len(terms)))
        return terms.topk(kept, largest=self.config.prune_keep == "large_loss").values.mean()

    def penalty(self, users: Tensor, items: Tensor, who: Tensor, taken: Tensor, untaken: Tensor) -> Tensor:
        """() half the sum of squares of the batch's vectors over its size, or the inverse of twice that sum."""
        squares = users[who].square().sum() + items[taken].square().sum() + items[untaken].square().sum()
        return (squares / 2 if self.config.regularizer == "l2" else 1 / (2 * squares)) / len(who)
