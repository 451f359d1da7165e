"""Shards of work on other machines: the same function on every shard, here or through Prefect's task runners.

What comes back of a shard is the name of what it wrote. No cluster is ours: Dask and Ray schedule, retry and lose
workers as they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flows.engine_errors import MissingRunnerError
from flows.settings import EngineSettings

# A shard that died with its worker is done again elsewhere: its result is a file named by its content.
RETRIES = 2
SERVER_STARTS_WITHIN_S = 180


def run_shards(engine: EngineSettings, step: Callable[..., str], parts: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    """What the step gives for every part, in their order.

    Args:
        step: a function of a module, which a worker imports by name; its arguments are pickled.

    Raises:
        MissingRunnerError: the extra of the engine's runner is not installed.
        Whatever the step raises, after its retries.
    """
    if engine.runner == "local":
        yield from (step(*part) for part in parts)
        return
    from prefect import flow, task
    from prefect.client.orchestration import get_client
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_SERVER_ANALYTICS_ENABLED,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
        temporary_settings,
    )

    shard = task(name=step.__name__, retries=RETRIES, persist_result=False)(step)

    @flow(name="shards", task_runner=_runner(engine), persist_result=False, validate_parameters=False)
    def shards() -> list[str]:
        return [future.result() for future in [shard.submit(*part) for part in parts]]

    # a server that Prefect starts for this run alone gets 20 s unless told otherwise, too few on a busy machine, and
    # would tell its makers of it
    alone: dict[Any, object] = {
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: SERVER_STARTS_WITHIN_S,
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
    }
    with (
        temporary_settings(set_defaults=alone),
        get_client(sync_client=True) as client,
        # workers that are told of no server would each start one of their own
        temporary_settings(set_defaults={PREFECT_API_URL: str(client.api_url)}),
    ):
        names = shards()
    yield from names


def _runner(engine: EngineSettings) -> Any:
    try:
        if engine.runner == "dask":
            from prefect_dask.task_runners import DaskTaskRunner

            if engine.address:
                return DaskTaskRunner(address=engine.address)
            alone = {"n_workers": engine.workers, "threads_per_worker": 1, "dashboard_address": None}
            return DaskTaskRunner(cluster_kwargs=alone)
        from prefect_ray.task_runners import RayTaskRunner  # pyright: ignore[reportMissingImports] - an extra of its own
    except ImportError as error:
        raise MissingRunnerError(engine.runner) from error
    if engine.address:
        return RayTaskRunner(address=engine.address)
    # its parts find each other over loopback, whatever networks there are; Ray listens on all of them all the same
    alone = {"num_cpus": engine.workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    return RayTaskRunner(init_kwargs=alone)
