"""The flows under Prefect: same steps, same results, skipped where another run holds the lock."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
import yaml
from servers.counting import counting_server

import flows

FOLDER = Path(flows.__file__).parent


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """Prefect's own server for tests, its home in a folder of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "1")
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=120):
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


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found
