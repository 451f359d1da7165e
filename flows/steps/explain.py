"""What stands behind a user's list: the factors of a trained model, with titles instead of ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.model_errors import UntrainedModelError
from flows.report.interests import Factor, ShownItem, TextChannel, TextFactor, UserFactors
from flows.steps.rows import records, strings
from flows.steps.train import is_trained

if TYPE_CHECKING:
    import rec_models
    from warehouse import Snapshot, Warehouse

# At costs between 0 and 4 a plan at this epsilon follows the nearest pairs.
SHARP = 0.02


def explained_users(
    warehouse: Warehouse,
    snapshot: Snapshot,
    user_ids: Sequence[str],
    model_id: str,
    *,
    top: int = 10,
    epsilon: float = SHARP,
    taken: bool = False,
) -> list[UserFactors]:
    """The factors behind each user's list.

    Args:
        top: items and words a factor.
        epsilon: of the sharpened alignment.
        taken: whether items of the history may be among those a factor shows.

    Raises:
        UnknownIdsError, NoFactorsError: from rec_models: the model knows no such user, or has no factors.
    """
    from rec_models import Bundle, factors_of_users

    bundle = Bundle.open(warehouse.inside("models", model_id))
    told = factors_of_users(bundle, user_ids, top=top, epsilon=epsilon, taken=taken)
    rows = snapshot.read("items", columns=["item_id", "title"])
    pairs = zip(strings(rows, "item_id"), rows.column("title").to_pylist(), strict=True)
    titles = {item_id: title for item_id, title in pairs if title}
    return [_titled(user, titles) for user in told]


def chosen_model(warehouse: Warehouse, snapshot: Snapshot, named: str | None) -> tuple[str, str]:
    """(label, id) of the model that lists are published of, or of the trained one with that label or id.

    Of several seeds of a label it is the first, of several trainings the last.

    Raises:
        UntrainedModelError: there is none.
    """
    if named is None and "recommend" in snapshot.stages:
        summary = snapshot.stages["recommend"]["summary"]
        return summary["model"], summary["model_id"]
    rows = records(snapshot.read("metrics", columns=["label", "seed", "model_id"]))
    found = {(row["label"], row["seed"]): row["model_id"] for row in rows if row["seed"] >= 0 and row["model_id"]}
    trained = {key: model_id for key, model_id in sorted(found.items()) if is_trained(warehouse, model_id)}
    for (label, _), model_id in trained.items():
        if named in (label, model_id):
            return label, model_id
    raise UntrainedModelError(named, list(dict.fromkeys(label for label, _ in trained)))


def _titled(user: rec_models.UserFactors, titles: dict[str, str]) -> UserFactors:
    def name(item_id: str) -> str:
        return titles.get(item_id, f"item {item_id}")

    factors = tuple(
        Factor(
            factor.share,
            tuple(map(name, factor.held)),
            tuple(ShownItem(item, name(item), score) for item, score in zip(factor.shown, factor.scores, strict=True)),
        )
        for factor in user.factors
    )
    channels = tuple(
        TextChannel(
            text.name,
            tuple(
                TextFactor(share, tuple(map(name, units)) if text.name == "items" else units)
                for share, units in zip(text.shares, text.units, strict=True)
            ),
            text.plan,
            text.sharp,
            text.signed,
            text.entropy,
            text.overlap,
        )
        for text in user.texts
    )
    return UserFactors(user.user_id, user.n_history, user.similarity, factors, channels)
