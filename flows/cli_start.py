"""Commands to begin with: demo, init, plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_options import THREADS, Options, command
from flows.cli_output import emit_json, emit_table, last_word, say

if TYPE_CHECKING:
    from flows.settings import Settings
    from flows.steps.pilot import Pilot

BOUNDS = ("usd_low", "usd_high")


def register(app: typer.Typer) -> None:
    """Adds demo, init and plan."""

    @command(app, "demo")
    def demo(
        options: Options,
        directory: Annotated[Path, typer.Option("--dir", help="Where the catalogue and its warehouse go.")] = Path(
            "var/demo"
        ),
        seed: Annotated[int, typer.Option("--seed", min=0, help="Another catalogue.")] = 0,
        difficulty: Annotated[str, typer.Option("--difficulty", help="easy, medium or hard.")] = "medium",
        users: Annotated[int | None, typer.Option("--users", min=10, help="How many users.")] = None,
        items: Annotated[int | None, typer.Option("--items", min=10, help="How many items.")] = None,
        threads: THREADS = None,
    ) -> int:
        """The whole job on a small generated catalogue: no key, no server, no data of yours."""
        return run_demo(options, directory, seed, difficulty, users, items, threads)

    @command(app, "init")
    def init(
        options: Options,
        directory: Annotated[Path, typer.Argument(help="Where semalign.toml goes.")],
        items: Annotated[str, typer.Option("--items", help="Items: Parquet, CSV or JSONL.")],
        interactions: Annotated[str, typer.Option("--interactions", help="Interactions: Parquet, CSV or JSONL.")],
        users: Annotated[
            str | None, typer.Option("--users", help="Users, if there is something to say of them.")
        ] = None,
        domain: Annotated[
            str, typer.Option("--domain", help="Prompts to use: books, games, movies, papers, products, generic")
        ] = "generic",
        force: Annotated[bool, typer.Option("--force", help="Overwrite a semalign.toml that is there.")] = False,
    ) -> int:
        """Writes a commented semalign.toml for your own files."""
        return write_settings(
            options, directory, {"interactions": interactions, "items": items, "users": users}, domain, force
        )

    @command(app, "plan")
    def plan(
        options: Options,
        pilot: Annotated[
            int | None,
            typer.Option("--pilot", min=1, help="First ask so many of the questions: paid for, kept, projected from."),
        ] = None,
    ) -> int:
        """What a run would do and cost. Sends nothing, writes nothing, unless --pilot asks for a few replies."""
        return show_plan(options, pilot)


def run_demo(
    options: Options,
    directory: Path,
    seed: int,
    difficulty: str,
    users: int | None,
    items: int | None,
    threads: int | None,
) -> int:
    """Generates the catalogue and its settings, then runs everything on it."""
    from dataclasses import replace

    from flows.cli_pipeline import run_stages
    from flows.demo_catalogue import generate
    from flows.demo_settings import DEMO_SETTINGS

    directory.mkdir(parents=True, exist_ok=True)
    sizes = {name: value for name, value in (("n_users", users), ("n_items", items)) if value is not None}
    catalogue = generate(directory, seed=seed, difficulty=difficulty, **sizes)
    config = directory / "semalign.toml"
    if not config.exists():
        config.write_text(DEMO_SETTINGS, encoding="utf-8")
    if not options.json:
        say(
            f"A generated catalogue ({difficulty}, seed {seed}): {catalogue.n_users:,} invented users, "
            f"{catalogue.n_items:,} invented items, {catalogue.n_interactions:,} interactions, in {directory}"
        )
    # Matrices this small gain nothing from a second thread and lose much to it where the cores are busy.
    return run_stages(replace(options, config=config), "report", ["demo"], threads or 1)


def write_settings(options: Options, directory: Path, sources: dict[str, str | None], domain: str, force: bool) -> int:
    """Looks at the files, writes settings that read them."""
    from flows.errors import FileExistsAlreadyError
    from flows.first_settings import first_settings, guessed_columns

    path = directory / "semalign.toml"
    if path.exists() and not force:
        raise FileExistsAlreadyError(str(path))
    guesses = {kind: guessed_columns(source, kind) for kind, source in sources.items() if source}
    text = first_settings(directory, sources, guesses, domain)
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if options.json:
        emit_json({"config": str(path), "columns": {kind: guess.mapped for kind, guess in guesses.items()}})
    else:
        rows = [
            (kind, ", ".join(f"{ours} = {theirs}" for ours, theirs in guess.mapped.items()), ", ".join(guess.others))
            for kind, guess in guesses.items()
        ]
        emit_table(str(path), ("source", "columns", "other columns"), rows)
    last_word(f"wrote {path}; look at its column map, then", ["plan", "--config", str(path)])
    return 0


def show_plan(options: Options, pilot: int | None = None) -> int:
    """Every stage with its state, calls, tokens, USD and seconds; after a pilot, from what the pilot's calls took."""
    from dataclasses import asdict

    from flows.model_choices import run_choices
    from flows.outlook import outlook
    from flows.progress import duration
    from warehouse import Warehouse

    settings = options.settings()
    tried = _piloted(settings, pilot) if pilot else None
    stages = outlook(settings, Warehouse(settings.warehouse.root), run_choices(settings))
    total = plan_totals([asdict(stage) for stage in stages])
    if options.json:
        document = {**total, "stages": [asdict(stage) for stage in stages]}
        emit_json(document if tried is None else {**document, "pilot": asdict(tried)})
    else:
        rows = [
            (stage.stage, stage.state, stage.what, stage.calls, stage.tokens, stage.usd, duration(stage.seconds))
            for stage in stages
        ]
        emit_table("plan", ("stage", "", "what", "calls", "tokens", "USD", "about"), rows)
    words = (
        f"{total['calls']:,} calls ({total['new']:,} new, {total['changed']:,} changed), {total['cached']:,} cached, "
        f"{_cost_in_words(total)}, about {duration(total['seconds'])}"
    )
    said = "nothing was sent" if tried is None else _pilot_in_words(tried)
    last_word(f"a run would take {words}; {said}", ["run", *options.flags()])
    return 0


def _piloted(settings: Settings, n: int) -> Pilot:
    from flows.progress import open_progress
    from flows.steps.pilot import run_pilot
    from flows.workspace import opened

    progress = open_progress()
    try:
        with opened(settings, "plan --pilot", progress) as workspace:
            return run_pilot(workspace, settings, n)
    finally:
        progress.close()


def _cost_in_words(total: dict[str, Any]) -> str:
    if total["usd"] is None:
        return "an unknown price"
    between = f" ({total['usd_low']:.4f} to {total['usd_high']:.4f})" if total["usd_low"] is not None else ""
    return f"about {total['usd']:.4f} USD{between}"


def _pilot_in_words(pilot: Pilot) -> str:
    cost = "price unknown" if pilot.usd is None else f"{pilot.usd:.4f} USD"
    faults = ", ".join(f"{code} {n}" for code, n in sorted(pilot.unusable.items()))
    unusable = f", {sum(pilot.unusable.values())} replies cannot be used ({faults})" if faults else ""
    return f"the pilot made {pilot.calls:,} calls ({cost}){unusable}; the run asks none of them again"


def plan_totals(stages: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the stages; an unknown price stays unknown. A stage without an interval adds what it costs to both."""
    usd = [stage["usd"] for stage in stages]
    has_interval = None not in usd and any(stage[name] is not None for stage in stages for name in BOUNDS)
    low, high = (
        sum(stage["usd"] if stage[name] is None else stage[name] for stage in stages) if has_interval else None
        for name in BOUNDS
    )
    return {
        "calls": sum(stage["calls"] or 0 for stage in stages),
        **{name: sum(stage[name] for stage in stages) for name in ("new", "changed", "reasks", "cached", "tokens")},
        "usd": None if None in usd else sum(usd),
        "usd_low": low,
        "usd_high": high,
        "seconds": round(sum(stage["seconds"] for stage in stages), 1),
    }
