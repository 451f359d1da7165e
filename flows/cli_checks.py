"""Commands that check: doctor for machine and settings, verify for bytes."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import Options, command
from flows.cli_output import emit_json, emit_table, last_word

if TYPE_CHECKING:
    from flows.embedding_sets import DescribedSet
    from flows.settings import Settings
    from warehouse import Warehouse

MIN_FREE_BYTES = 2 << 30


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    what: str
    ok: bool
    found: str
    exit_code: int = 0


def register(app: typer.Typer) -> None:
    """Adds doctor and verify."""

    @command(app, "doctor")
    def doctor(options: Options) -> int:
        """What would stop a run, before it starts: machine, settings, sources, prompts, engine, encoder, lock."""
        return report_checks(options, list(checks(options)), "doctor", "plan")

    @command(app, "verify")
    def verify(
        options: Options,
        full: Annotated[
            bool, typer.Option("--full", help="Trust no note: hash every byte of snapshots, models, matrices.")
        ] = False,
    ) -> int:
        """Whether the published bytes are the ones that were written."""
        return verify_bytes(options, full)


def report_checks(options: Options, found: list[Check], words: str, next_command: str) -> int:
    """The checks as a table or JSON; the exit code of the first that failed."""
    bad = [check for check in found if not check.ok]
    if options.json:
        emit_json({"ok": not bad, "checks": [asdict(check) for check in found]})
    else:
        emit_table(
            words, ("", "what", "found"), [("ok" if check.ok else "NO", check.what, check.found) for check in found]
        )
    if bad:
        last_word(f"{len(bad)} of {len(found)} checks failed; first: {bad[0].what}: {bad[0].found}")
        return bad[0].exit_code
    last_word(f"{words}: {len(found)} checks passed", [next_command, *options.flags()])
    return 0


def checks(options: Options) -> Iterator[Check]:
    """Every check of `doctor`, cheap ones first; a failing one never hides the next."""
    yield Check("python", sys.version_info >= (3, 11), sys.version.split()[0], 1)
    yield Check("packages", *_packages())
    yield Check("sqlite", True, sqlite3.sqlite_version)
    settings: list[Settings] = []
    yield _tried(
        "settings", lambda: settings.append(options.settings()) or (str(options.config or "semalign.toml or defaults"))
    )
    if not settings:
        return
    [tree] = settings
    yield _tried("sources", lambda: _sources(tree))
    yield _tried("prompts", lambda: _prompts(tree))
    yield _tried("engine", lambda: _engine(tree))
    yield _tried("encoder", lambda: _encoder(tree))
    place = _tried("warehouse", lambda: _place(tree))
    yield place
    if place.ok:
        yield from _warehouse_checks(Path(tree.warehouse.root))


def verify_bytes(options: Options, full: bool) -> int:
    """Hashes what CURRENT names; with `full` also every kept snapshot, trained model and semantic matrix."""
    from flows.cli_inspect import published

    warehouse, snapshot = published(options)
    proved = snapshot.verify(trust_notes=not full)
    files = sum(len(fragments) for fragments in snapshot.tables.values())
    found = [Check(f"snapshot {snapshot.id}", True, f"{files} files, {proved:,} bytes")]
    if full:
        found += list(_everything(warehouse, snapshot.id))
    return report_checks(options, found, "verify", "status")


def _everything(warehouse: Warehouse, current: str) -> Iterator[Check]:
    for snapshot in warehouse.snapshots():
        if snapshot.id != current:
            yield _tried(f"snapshot {snapshot.id}", lambda snapshot=snapshot: f"{snapshot.verify():,} bytes")
    for folder in sorted((warehouse.root / "models").glob("*")):
        if folder.suffix != ".partial" and folder.is_dir():
            yield _tried(f"model {folder.name}", lambda folder=folder: _model(folder))
    yield _tried("matrices", lambda: _matrices(warehouse))
    if (warehouse.root / "ledger.sqlite").exists():
        yield _tried("ledger", lambda: _ledger(warehouse))


def _model(folder: Path) -> str:
    from flows.steps.verified import verified_metrics, verify_files

    n_files = verify_files(folder, folder.name)
    verified_metrics(folder, folder.name)
    return f"{n_files} files of its bundle, and its own checkpoint"


def _matrices(warehouse: Warehouse) -> str:
    sizes = [n_bytes for _, n_bytes in warehouse.verify_matrices()]
    return f"{len(sizes)} semantic matrices, {sum(sizes):,} bytes"


def _quality(warehouse: Warehouse) -> Iterator[Check]:
    """The published rows under every check of `warehouse/sql/checks`; only errors fail."""
    from flows.steps.quality import drift_words, finding_words, judged
    from warehouse import drift, findings, quality_checks

    current = warehouse.current()
    with warehouse.catalogue(current) as catalogue:
        found, moved = findings(catalogue), drift(catalogue)
    if current is not None:
        found = judged(found, current)
    yield Check("data", True, f"{len(quality_checks()) - len(found)} of {len(quality_checks())} checks of rows hold")
    for finding in found:
        yield Check(finding.check.name, finding.check.level == "warning", finding_words(finding), 4)
    if moved:
        yield Check("drift", True, "; ".join(map(drift_words, moved)))


def _ledger(warehouse: Warehouse) -> str:
    with warehouse.ledger(read_only=True) as ledger:
        spent = ledger.spent()
        worst = ledger.uncertain_cost()
        return f"{spent.calls:,} calls, {worst.attempts:,} uncertain (at most {worst.usd:.4f} USD)"


def _tried(what: str, look: Callable[[], str]) -> Check:
    """A check that fails with the sentence and the exit code of whatever it raises."""
    try:
        return Check(what, True, look())
    except Exception as error:
        return Check(what, False, str(error) or type(error).__name__, getattr(error, "exit_code", 1))


def _packages() -> tuple[bool, str, int]:
    found, missing = [], []
    for name in ("torch", "numpy", "scipy", "duckdb", "pyarrow", "sentence-transformers", "safetensors"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    return not missing, f"missing: {', '.join(missing)}; run `make install`" if missing else ", ".join(found), 2


def _sources(settings: Settings) -> str:
    from flows.steps.ingest import ingest_key

    if settings.source.database is not None:
        from warehouse import Database

        database = Database(settings.source.database.url_env)
        with database.reading():  # reached, and nothing asked: a check reads no table
            return f"queries go to {database.place}"
    return f"contents {ingest_key(settings.source, settings.split)[:12]}"


def _prompts(settings: Settings) -> str:
    from flows.steps.evidence import load_prompts

    pair = load_prompts(settings.profiles)
    return ", ".join(f"{prompt.id} v{prompt.version}" for prompt in (pair.item, pair.user))


def _engine(settings: Settings) -> str:
    from providers import parse_engine

    engine = parse_engine(settings.profiles.engine)
    with engine.open():
        return f"{engine.source}, {'paid' if engine.paid else 'not paid'}"


def _encoder(settings: Settings) -> str:
    from flows.embedding_sets import described, embedding_sets

    return "; ".join(_encoder_words(one) for one in described(embedding_sets(settings)))


def _encoder_words(one: DescribedSet) -> str:
    from flows.vector_sources import VectorFiles
    from providers import OpenAIEmbeddingsConfig

    identity, name = one.identity, f"{one.wanted.name}: " if one.wanted.name else ""
    if isinstance(one.config, VectorFiles):
        return f"{name}vectors of {identity.model}, files {identity.key[:12]}"
    if isinstance(one.config, OpenAIEmbeddingsConfig):
        one.config.checked_key()
        return f"{name}{identity.model} at {one.config.base_url}, {'paid' if one.config.paid else 'not paid'}"
    return f"{name}{identity.model}, {identity.dim} numbers, {identity.dtype}, files {identity.key[:12]}"


def _place(settings: Settings) -> str:
    from warehouse import Warehouse

    return str(Warehouse(settings.warehouse.root).root)


def _warehouse_checks(root: Path) -> Iterator[Check]:
    from warehouse import Warehouse

    existing = next(parent for parent in (root, *root.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    yield Check("free disk", free >= MIN_FREE_BYTES, f"{free / 1e9:.1f} GB at {existing}", 4)
    warehouse = Warehouse(root)
    holder = warehouse.holder() if root.exists() else None
    yield Check(
        "lock", holder is None, "free" if holder is None else f"held by {holder['command']} (pid {holder['pid']})", 5
    )
    if warehouse.current():
        yield from _quality(warehouse)
    yield _tried("published", lambda: str(warehouse.current().id if warehouse.current() else "nothing yet"))  # type: ignore[union-attr]
    if (root / "ledger.sqlite").exists():
        yield _tried("ledger", lambda: _ledger(warehouse))
