"""Every runner of shards gives the same rows: here, on a Dask cluster of two workers, on Ray."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from servers.shard_steps import WordsConfig, die_once

from flows.engine_errors import MissingRunnerError
from flows.settings import EngineSettings, Settings
from flows.shards import run_shards
from flows.steps.embed import encode_shard
from warehouse import VectorShards

N_TEXTS = 20_000
TEXTS = [f"{number:06d} a text of its own about number {number}" for number in range(N_TEXTS)]


def without(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed: pip install 'semalign[{module[8:]}]'")


RUNNERS = [
    pytest.param("local"),
    pytest.param("dask", marks=without("prefect_dask")),
    # starting Ray takes longer than all the rest
    pytest.param("ray", marks=[without("prefect_ray"), pytest.mark.full]),
]


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory):
    """One Prefect for all, in a folder of its own; workers find this folder's modules."""
    from prefect.testing.utilities import prefect_test_harness

    with pytest.MonkeyPatch.context() as patch:
        here = Path(__file__).parents[1]
        patch.setenv("PYTHONPATH", f"{here}:{here.parent}")
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.syspath_prepend(str(here))
        with prefect_test_harness(server_startup_timeout=120):
            yield


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
def test_the_same_rows_come_out(runner, numbers, tmp_path):
    expected = rows_of(tmp_path / "here", "local", numbers)
    assert rows_of(tmp_path / "there", runner, numbers) == expected and len(expected) == numbers


@pytest.mark.full
@without("prefect_dask")
def test_a_shard_whose_worker_died_is_done_by_another(tmp_path):
    shards, mark = VectorShards(tmp_path, "e" * 64), str(tmp_path / "died")
    parts = [(shards, number, mark) for number in range(6)]
    names = list(run_shards(EngineSettings(runner="dask", workers=2), die_once, parts))
    assert [float(shards.one(name)[1][0, 0]) for name in names] == [0, 1, 2, 3, 4, 5]
    assert Path(mark).exists()


def test_a_runner_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(MissingRunnerError, match=r"semalign\[ray\]") as caught:
        list(run_shards(EngineSettings(runner="ray"), die_once, []))
    assert caught.value.exit_code == 2


def test_where_shards_are_done_is_no_part_of_a_run_s_identity():
    assert Settings().hash() == Settings(engine=EngineSettings(runner="dask", workers=7)).hash()
