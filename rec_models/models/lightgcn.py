"""LightGCN: embeddings of users and items, smoothed over the graph of who took what."""

from __future__ import annotations

from typing import ClassVar, Literal

from rec_models.graph import EmbeddedGraph, GraphConfig
from rec_models.semantic import ModelInputs


class LightGCNConfig(GraphConfig):
    """Settings of LightGCN; the defaults are those of RLMRec's backbone on Amazon-Book."""

    paper: ClassVar[str] = "He et al., LightGCN: Simplifying and Powering Graph Convolution Network, SIGIR 2020"

    name: Literal["lightgcn"] = "lightgcn"

    def build(self, inputs: ModelInputs) -> LightGCN:
        """The untrained model."""
        return LightGCN(self, inputs.train)


class LightGCN(EmbeddedGraph):
    """LightGCN as RLMRec runs it.

    Source: He et al. 2020, equations 3-4 and 15; RLMRec's code for everything below.
    Deviations: layers are summed, not averaged (`layer_agg`); edges are dropped in training, each direction for itself
    and unscaled (`edge_keep`, 1 in the paper); the penalty runs over all parameters without 1/2 or 1/batch, where the
    paper has the batch's embeddings. Negatives are drawn anew for each batch, which is the code's one draw an epoch for
    each interaction. Users are scored from the graph the model was trained on, whatever history is fed later.
    """
