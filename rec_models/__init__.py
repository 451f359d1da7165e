"""Recommenders whose collaborative space can be aligned with a language space; runs without the other packages."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rec_models.analysis import FactorItems, TextFactors, UserFactors, factors_of_users
    from rec_models.bundle import Bundle, SemanticSource, WordSource, write_bundle
    from rec_models.candidates import graph_candidates
    from rec_models.clusters import item_clusters
    from rec_models.comparison import PairedComparison, paired_comparison
    from rec_models.diversity import diversified
    from rec_models.errors import RecModelsError
    from rec_models.interactions import InteractionMatrix
    from rec_models.protocols import PROTOCOLS
    from rec_models.settings import (
        ModelCard,
        catalogue,
        parse_config,
        parse_evaluation,
        parse_training,
        refuse_protocol,
    )
    from rec_models.text_features import TextFeatures
    from rec_models.trained import TrainedModel
    from rec_models.training import resolve_device

# Resolved on first use: a bundle can be written and two models compared without importing torch.
_HOMES = {
    "PROTOCOLS": "protocols",
    "Bundle": "bundle",
    "FactorItems": "analysis",
    "InteractionMatrix": "interactions",
    "ModelCard": "settings",
    "PairedComparison": "comparison",
    "RecModelsError": "errors",
    "SemanticSource": "bundle",
    "UserFactors": "analysis",
    "catalogue": "settings",
    "diversified": "diversity",
    "factors_of_users": "analysis",
    "graph_candidates": "candidates",
    "item_clusters": "clusters",
    "paired_comparison": "comparison",
    "parse_config": "settings",
    "parse_evaluation": "settings",
    "parse_training": "settings",
    "refuse_protocol": "settings",
    "resolve_device": "training",
    "TextFactors": "analysis",
    "TextFeatures": "text_features",
    "TrainedModel": "trained",
    "WordSource": "bundle",
    "write_bundle": "bundle",
}

__all__ = [
    "PROTOCOLS",
    "Bundle",
    "FactorItems",
    "InteractionMatrix",
    "ModelCard",
    "PairedComparison",
    "RecModelsError",
    "SemanticSource",
    "TextFactors",
    "TextFeatures",
    "TrainedModel",
    "UserFactors",
    "WordSource",
    "catalogue",
    "diversified",
    "factors_of_users",
    "graph_candidates",
    "item_clusters",
    "paired_comparison",
    "parse_config",
    "parse_evaluation",
    "parse_training",
    "refuse_protocol",
    "resolve_device",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rec_models' has no attribute {name!r}")
    return getattr(import_module(f"rec_models.{_HOMES[name]}"), name)
