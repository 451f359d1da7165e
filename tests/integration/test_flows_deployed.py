"""The flows under Prefect: same steps, same results, skipped where another run holds the lock; runners of shards."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from servers.counting import counting_server
from servers.shard_steps import WordsConfig, die_once
from servers.training import train_here

import flows
import providers
from flows.engine_errors import MissingRunnerError
from flows.settings import EngineSettings, Settings
from flows.shards import SERVER_STARTS_WITHIN_S, run_shards
from flows.steps.embed import encode_shard
from warehouse import VectorShards

FOLDER = Path(flows.__file__).parent
N_TEXTS = 20_000
TEXTS = [f"{number:06d} a text of its own about number {number}" for number in range(N_TEXTS)]


def without(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed: pip install 'semalign[{module[8:]}]'")


RUNNERS = [
    pytest.param("dask", marks=without("prefect_dask")),
    pytest.param("ray", marks=without("prefect_ray")),
]


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """Prefect's own server for tests, its home in a folder of ours; workers of clusters find the folder of tests."""
    with pytest.MonkeyPatch.context() as patch:
        here = Path(__file__).parents[1]
        patch.setenv("PYTHONPATH", f"{here}:{here.parent}")
        patch.syspath_prepend(str(here))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES", str(256 * 1024**2))
        patch.setenv("RAY_worker_niceness", "0")  # 15 otherwise, which starves beside any other work
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "1")
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=300):
            yield


@pytest.fixture
def config(tmp_path) -> Path:
    (tmp_path / "items.jsonl").write_text(json.dumps({"item_id": "a", "title": "Alpha"}) + "\n", encoding="utf-8")
    (tmp_path / "rows.csv").write_text("user_id,item_id\nu,a\nv,a\n", encoding="utf-8")
    toml = '[source]\nitems = "items.jsonl"\ninteractions = "rows.csv"\n[warehouse]\nroot = "w"\n'
    (tmp_path / "semalign.toml").write_text(toml, encoding="utf-8")
    return tmp_path / "semalign.toml"


def test_a_flow_publishes_and_finds_its_work_again_and_skips_under_a_lock(harness, config):
    from flows.deployed import build_profiles
    from warehouse import Warehouse

    first = build_profiles(config=str(config))
    warehouse = Warehouse(config.parent / "w")
    current = warehouse.current()
    assert current is not None and current.id == first and current.rows("profiles") == 3
    assert build_profiles(config=str(config)) == first
    with warehouse.lock("another run"):
        skipped = build_profiles(config=str(config), return_state=True)
    assert skipped.is_completed() and skipped.name == "Skipped" and "another run" in skipped.message


def test_prefect_changes_nothing_of_what_is_made_and_adds_no_task_runs_with_the_items(harness, tmp_path, monkeypatch):
    from benchmarks.prefect_overhead import refreshed, write_world
    from flows import deployed

    train_here(monkeypatch)
    # what the benchmark puts in their place is gone after this test
    monkeypatch.setattr(deployed, "as_task", deployed.as_task)
    monkeypatch.setattr(providers, "parse_encoder", providers.parse_encoder)
    found = {}
    for how, n_items in (("plain", 40), ("prefect", 40), ("prefect", 160)):
        folder = tmp_path / f"{how}{n_items}"
        folder.mkdir()
        write_world(folder, n_items, n_users=24)
        found[how, n_items] = refreshed(how, folder / "semalign.toml")
    plain, small, large = found.values()
    assert plain["made"] == small["made"] != large["made"] and small["lists"] == 24 * 20
    assert 0 < small["tasks"] == large["tasks"] <= 50


def test_what_was_asked_and_paid_becomes_a_table_of_its_own(harness, config):
    from prefect.artifacts import Artifact

    from flows.deployed import build_profiles

    with counting_server() as (url, server):
        engine = ("name=openai", "model=tiny", f"base_url={url}")
        build_profiles(config=str(config), overrides=[f"profiles.engine.{setting}" for setting in engine])
    artifact = Artifact.get("semalign-costs")
    assert artifact is not None and artifact.type == "table"
    (row,) = json.loads(artifact.data)
    assert (row["engine"], row["model"], row["calls"], row["replies"]) == ("openai", "tiny", len(server.requests), 2)
    # the two users have the same history: their question is one, and asked once
    assert (row["cached"], row["quarantined"], row["usd"]) == (1, 0, 0.0)


def test_what_the_user_wrote_wrong_fails_at_once(harness, config):
    from flows.deployed import build_profiles

    state = build_profiles(config=str(config), overrides=["source.items=nowhere.csv"], return_state=True)
    assert state.is_failed()
    with pytest.raises(FileNotFoundError):
        state.result(raise_on_failure=True)


def test_only_unexplained_failures_are_tried_again():
    from flows.deployed import _worth_another_try
    from flows.errors import NothingLeftError

    class State:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def result(self, raise_on_failure: bool) -> None:
            raise self.error

    assert _worth_another_try(State(OSError("a network drive went away")))
    assert not _worth_another_try(State(NothingLeftError(3, "filters")))


def test_every_deployment_names_a_flow_that_is_there():
    declared = yaml.safe_load((FOLDER.parent / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    tree = ast.parse((FOLDER / "deployed.py").read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for deployment in declared:
        file, _, function = deployment["entrypoint"].partition(":")
        assert file == "flows/deployed.py" and function in defined
        assert deployment["tags"] and deployment["description"]
        one_at_a_time = {"limit": 1, "collision_strategy": "CANCEL_NEW"}
        assert function == "train_bundle" or deployment["concurrency_limit"] == one_at_a_time
        assert all("timezone" in schedule for schedule in deployment.get("schedules", []))


def test_every_parameter_says_what_it_is_and_none_is_a_secret():
    from prefect.utilities.callables import parameter_schema

    from flows import deployed

    declared = yaml.safe_load((FOLDER.parent / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    for name in {deployment["entrypoint"].partition(":")[2] for deployment in declared}:
        properties = parameter_schema(getattr(deployed, name)).properties
        assert all(said.get("description") for said in properties.values()), name
        assert not any("password" in str(said).lower() or "SecretStr" in str(said) for said in properties.values())


def test_secrets_are_read_from_named_blocks_where_the_environment_has_none(harness, config, monkeypatch):
    from prefect.blocks.system import Secret

    from flows.deployed import chosen_settings

    Secret(value="from the block").save("a-key")
    monkeypatch.setenv("PRESENT_KEY", "from the environment")
    monkeypatch.delenv("ABSENT_KEY", raising=False)
    chosen_settings(None, str(config), None, {"PRESENT_KEY": "a-key", "ABSENT_KEY": "a-key"})
    assert os.environ["PRESENT_KEY"] == "from the environment" and os.environ["ABSENT_KEY"] == "from the block"
    monkeypatch.delenv("ABSENT_KEY")


def test_a_failed_run_is_told_to_the_block_that_the_environment_names(harness, config, monkeypatch):
    from prefect.blocks.core import Block

    from flows import deployed

    told = []

    class Told:
        def notify(self, body, subject=None):
            told.append((subject, body))

    monkeypatch.setenv(deployed.NOTIFY, "slack-webhook/ops")
    monkeypatch.setattr(Block, "load", lambda name: Told() if name == "slack-webhook/ops" else None)
    state = deployed.build_profiles(config=str(config), overrides=["source.items=nowhere.csv"], return_state=True)
    assert state.is_failed() and len(told) == 1
    assert told[0][0] == "semalign: build-profiles failed" and "nowhere.csv" in told[0][1]


def test_only_deployments_and_clusters_import_prefect():
    importing = [path.name for path in FOLDER.rglob("*.py") if "prefect" in _imports(path)]
    assert sorted(importing) == ["deployed.py", "shards.py"]


def test_no_file_hides_a_module_that_prefect_or_python_imports():
    """Prefect puts the folder of the flow file first on sys.path."""
    names = {path.stem for path in FOLDER.glob("*.py")} | {path.name for path in FOLDER.iterdir() if path.is_dir()}
    names -= {"__init__", "__pycache__"}
    siblings = {"prompts", "providers", "warehouse", "rec_models"}
    assert not names & (set(sys.stdlib_module_names) | siblings)
    assert [name for name in names if importlib.util.find_spec(name) is not None] == []


def rows_of(folder: Path, runner: str, numbers: int = N_TEXTS) -> dict[bytes, bytes]:
    """text's hash → vector, of so many texts in shards of up to a thousand."""
    shards = VectorShards(folder, "e" * 64)
    hashes = np.array([b"%064d" % number for number in range(numbers)])
    parts = [
        (shards, WordsConfig(), hashes[places], [TEXTS[place] for place in places])
        for places in np.array_split(np.arange(numbers), max(4, numbers // 1000))
    ]
    began = time.perf_counter()
    names = list(run_shards(EngineSettings(runner=runner, workers=2), encode_shard, parts))
    print(f"{runner}: {numbers:,} texts in {len(parts)} shards, {time.perf_counter() - began:.2f} s", file=sys.stderr)
    return {bytes(key): row.tobytes() for name in names for key, row in zip(*shards.one(name), strict=True)}


@pytest.mark.parametrize("numbers", [2_000, pytest.param(N_TEXTS, marks=pytest.mark.full)])
@pytest.mark.parametrize("runner", RUNNERS)
def test_every_runner_of_shards_gives_the_rows_of_this_process(harness, runner, numbers, tmp_path):
    expected = rows_of(tmp_path / "here", "local", numbers)
    assert rows_of(tmp_path / "there", runner, numbers) == expected and len(expected) == numbers


@pytest.mark.full
@without("prefect_dask")
def test_a_shard_whose_worker_died_is_done_by_another(harness, tmp_path):
    shards, mark = VectorShards(tmp_path, "e" * 64), str(tmp_path / "died")
    parts = [(shards, number, mark) for number in range(6)]
    names = list(run_shards(EngineSettings(runner="dask", workers=2), die_once, parts))
    assert [float(shards.one(name)[1][0, 0]) for name in names] == [0, 1, 2, 3, 4, 5]
    assert Path(mark).exists()


@pytest.mark.parametrize(("told", "waited"), [(None, SERVER_STARTS_WITHIN_S), ("7", 7)])
def test_a_server_started_for_a_run_alone_is_waited_for(harness, told, waited, monkeypatch):
    from prefect.settings import (
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
        get_current_settings,
        temporary_settings,
    )
    from prefect.task_runners import ThreadPoolTaskRunner

    monkeypatch.setattr("flows.shards._runner", lambda engine: ThreadPoolTaskRunner())
    updates = {} if told is None else {PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: told}

    def seconds(part: str) -> str:
        return str(get_current_settings().server.ephemeral.startup_timeout_seconds)

    with temporary_settings(updates):
        assert list(run_shards(EngineSettings(runner="dask"), seconds, [("one",)])) == [str(waited)]


def test_a_runner_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(MissingRunnerError, match=r"semalign\[ray\]") as caught:
        list(run_shards(EngineSettings(runner="ray"), die_once, []))
    assert caught.value.exit_code == 2


def test_where_shards_are_done_is_no_part_of_a_run_s_identity():
    assert Settings().hash() == Settings(engine=EngineSettings(runner="dask", workers=7)).hash()


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found
