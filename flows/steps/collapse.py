"""Whether predicted ratings have kept the distribution of the true ones: by epoch, and of the trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.steps.train import TrainingPlan
from flows.steps.verified import verified_metrics

if TYPE_CHECKING:
    from flows.report import Collapse
    from warehouse import Warehouse

# What a table shows of a trained model, and what it calls it.
SHOWN = {
    "rmse": "RMSE",
    "rating_kl": "KL true to predicted",
    "rating_kl_back": "KL back",
    "rating_w1": "W1",
    "rating_bins": "bins of 1 % and more",
    "rating_least_bin": "least bin",
    "rating_deviation": "deviation in a user",
    "true_deviation": "true deviation",
    "ks_share_5": "KS at 5 %",
    "ks_share_5_of_10": "KS at 5 %, 10 ratings and more",
}
# What is drawn by epoch, where a model tells it.
CURVES = ("rating_kl", "rating_least_bin", "critic_gap", "critic_slope")
_BY_EPOCH = ("rated_is_", "unrated_is_", *CURVES)


def collapses(warehouse: Warehouse, plan: TrainingPlan) -> list[Collapse]:
    """Of every model of the plan that predicts ratings."""
    from flows.report import Collapse

    found = []
    for label in plan.labels():
        seeds = plan.seeds_of(label)
        if not seeds[0].rated:  # it predicts none, and to verify a checkpoint is to hash it
            continue
        metrics = [verified_metrics(warehouse.inside("models", model.model_id), model.model_id) for model in seeds]
        if "rating_kl" in metrics[0]["test"]:
            names = [name for name in SHOWN if name in metrics[0]["test"]]
            means = {name: sum(told["test"][name] for told in metrics) / len(metrics) for name in names}
            found.append(Collapse(label, means, tuple(_passes(metrics[0]["history"]))))
    return found


def _passes(history: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [
        {"epoch": row["epoch"]} | {name: value for name, value in row.items() if name.startswith(_BY_EPOCH)}
        for row in history
        if "rating_kl" in row
    ]
