"""The command that says what stands behind a user's list: explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_inspect import published
from flows.cli_options import Options, command
from flows.cli_output import emit_json, emit_table, last_word, say
from flows.steps.explain import SHARP, chosen_model, explained_users

if TYPE_CHECKING:
    from flows.report.interests import TextChannel, UserFactors


def register(app: typer.Typer) -> None:
    """Adds explain."""

    @command(app, "explain")
    def explain(
        options: Options,
        user: Annotated[str, typer.Argument(help="A user id.")],
        model: Annotated[
            str | None, typer.Option("--model", help="Label or id of a trained model; that of the lists by default.")
        ] = None,
        k: Annotated[int, typer.Option("-k", min=1, help="Items and words of each factor.")] = 5,
        epsilon: Annotated[float, typer.Option("--epsilon", min=1e-3, help="Of the sharpened alignment.")] = SHARP,
        taken: Annotated[bool, typer.Option("--taken", help="Show items the user has as well.")] = False,
    ) -> int:
        """The interests behind a user's list: their items, their words, and how the two go together."""
        return show_explanation(options, user, model, k, epsilon, taken)


def show_explanation(options: Options, user: str, model: str | None, k: int, epsilon: float, taken: bool) -> int:
    """Interests, themes and alignment of one user."""
    warehouse, snapshot = published(options)
    label, model_id = chosen_model(warehouse, snapshot, model)
    [told] = explained_users(warehouse, snapshot, [user], model_id, top=k, epsilon=epsilon, taken=taken)
    if options.json:
        document = {"snapshot": snapshot.id, "model": label, "model_id": model_id, "epsilon": epsilon, **asdict(told)}
        emit_json(document)
    else:
        _say_factors(told, label)
        for channel in told.channels:
            _say_channel(channel, epsilon)
    themes = "".join(f", {len(channel.factors)} themes in {channel.name}" for channel in told.channels)
    last_word(
        f"user {user}: {len(told.factors)} interests{themes} of {label} in snapshot {snapshot.id}",
        ["report", *options.flags()],
    )
    return 0


def _say_factors(told: UserFactors, label: str) -> None:
    say(f"user {told.user_id}, {told.n_history:,} items in their history, model {label}")
    rows = [
        (place, f"{factor.share:.0%}", _listed(factor.held), _listed([item.title for item in factor.shown]))
        for place, factor in enumerate(told.factors, start=1)
    ]
    emit_table(
        "interests",
        ("interest", "of history", "holds", "would show"),
        rows,
        caption=f"mean cosine between two of them {told.similarity:.3f}; at 1 they are one",
    )


def _say_channel(channel: TextChannel, epsilon: float) -> None:
    rows = [
        (place, f"{factor.share:.0%}", ", ".join(factor.units)) for place, factor in enumerate(channel.factors, start=1)
    ]
    caption = f"{channel.overlap:.0%} of what two of them speak of is the same"
    emit_table(f"themes in {channel.name}", ("theme", "of text", "speaks of"), rows, caption=caption)
    for title, rows, note in _matrices(channel, epsilon):
        columns = ("interest", *(f"theme {place}" for place in range(1, len(channel.factors) + 1)))
        emit_table(title, columns, [(place, *row) for place, row in enumerate(rows, start=1)], caption=note)


def _matrices(channel: TextChannel, epsilon: float) -> Iterator[tuple[str, list[list[object]], str]]:
    """Title, cells and note of each table of interests by themes."""
    if channel.signed:
        note = "from -1 to 1; below 0 an interest takes on the opposite of a theme"
        yield "attention to themes", [[f"{weight:+.2f}" for weight in row] for row in channel.plan], note
        return
    note = f"as the model mixes them, entropy {channel.entropy:.2f} of {channel.most_entropy:.2f} bits"
    yield "alignment, % of each interest", list(map(_row, channel.plan)), note
    if channel.sharp is not None:
        yield "nearest, % of each interest", list(map(_row, channel.sharp)), f"the same costs at epsilon {epsilon:g}"


def _row(masses: Sequence[float]) -> list[object]:
    """Shares of one factor's mass in percent."""
    whole = sum(masses) or 1.0
    return [round(100 * mass / whole) for mass in masses]


def _listed(titles: Sequence[str]) -> str:
    return " · ".join(titles) or "–"
