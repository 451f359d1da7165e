"""The Batch API: whatever way a batch ends, what was answered is kept and only what is missing is submitted again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from servers.batches import PROFILE, Plan, answer_line, batch_server

from providers import (
    BatchCancelledError,
    BatchesPendingError,
    BatchRefusedError,
    BudgetReachedError,
    OpenAIBatchConfig,
    OpenAIConfig,
    Request,
    ResultsGoneError,
)
from warehouse import Ledger

SEED = 20_261


def batch_config(url: str, **settings) -> OpenAIBatchConfig:
    quick = {"poll_s": 0.01, "poll_most_s": 0.05, "adopt_wait_s": 0.05}
    return OpenAIBatchConfig(**{"model": "m", "base_url": url, **quick, **settings})


def questions(config, n: int) -> list[Request]:
    return [
        config.request(
            messages=(("system", "Describe."), ("user", f"item {i}")),
            schema={"type": "object"},
            kind="item",
            entity_id=str(i),
        )
        for i in range(n)
    ]


def run(config, ledger, requests, heard=None):
    def hear(progress):
        if heard is not None and progress.note:
            heard.append(progress.note)

    with config.open() as engine:
        return list(engine.complete(requests, ledger, hear))


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def test_shards_are_packed_by_lines_and_by_bytes_and_every_request_is_answered(ledger):
    with batch_server() as (url, backend):
        completions = run(batch_config(url, shard_requests=40), ledger, questions(batch_config(url), 100))
        assert [len(backend.lines_of(name)) for name in backend.batches] == [40, 40, 20]
        assert all(json.loads(done.text or "") == PROFILE and not done.cached for done in completions)
        small = batch_config(url, shard_bytes=1500, model="other")
        run(small, ledger, questions(small, 12))
        uploaded = [backend.files[batch.file_id] for batch in list(backend.batches.values())[3:]]
    assert len(completions) == 100 and len(uploaded) > 2 and all(len(content) <= 1500 for content in uploaded)
    assert ledger.spent().calls == 112 and ledger.uncertain() == 0


def test_a_key_answered_in_a_batch_is_not_asked_by_single_calls_nor_the_other_way(ledger):
    with batch_server() as (url, backend):
        batched, single = batch_config(url), OpenAIConfig(model="m", base_url=url)
        assert [one.key for one in questions(batched, 9)] == [one.key for one in questions(single, 9)]
        assert batched.identity() == single.identity()
        run(batched, ledger, questions(batched, 9))
        before = list(backend.requests)
        assert all(done.cached for done in run(single, ledger, questions(single, 9)))
        assert backend.requests == before
        again = run(batched, ledger, questions(batched, 9))
    assert all(done.cached for done in again) and len(backend.batches) == 1


def test_equal_requests_are_one_line(ledger):
    with batch_server() as (url, backend):
        config = batch_config(url)
        completions = run(config, ledger, questions(config, 5) * 3)
    assert len(completions) == 15 and sum(not done.cached for done in completions) == 5
    assert sum(backend.charged.values()) == 5


def test_T_B2_a_completed_batch_with_errors_only_is_no_success(ledger):
    with batch_server(lambda number, n: Plan(only_errors=True)) as (url, backend):
        config = batch_config(url)
        completions = run(config, ledger, questions(config, 20))
    assert {done.error_code for done in completions} == {"http_400"} and len(completions) == 20
    assert all("Unknown parameter" in (done.detail or "") for done in completions)
    assert len(backend.batches) == 1 and Counter(ledger.calls()["state"].to_pylist()) == {"terminal": 20}


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_T_B3_a_batch_that_ended_early_is_collected_and_only_the_rest_submitted(ledger, status):
    with batch_server(lambda number, n: Plan(status, looks=0, finished=0.37) if number == 1 else Plan()) as (
        url,
        backend,
    ):
        config = batch_config(url)
        completions = run(config, ledger, questions(config, 1000))
        first, second = ([line["custom_id"] for line in backend.lines_of(name)] for name in backend.batches)
    assert len(second) == 630 and set(second) == set(first) - set(list(first)[:370])
    assert len(completions) == 1000 and all(done.text is not None for done in completions)
    assert set(backend.charged.values()) == {1} and len(backend.charged) == 1000


def test_a_batch_that_never_finishes_a_line_ends_as_exhausted_not_as_a_loop(ledger):
    with batch_server(lambda number, n: Plan("expired", finished=0)) as (url, backend):
        config = batch_config(url, submissions=3)
        completions = run(config, ledger, questions(config, 4))
    assert {done.error_code for done in completions} == {"exhausted"} and len(backend.batches) == 3


def test_T_B4_shuffled_doubled_unknown_and_broken_lines_cost_nothing_but_themselves(ledger):
    print(f"seed {SEED}")
    stranger = json.dumps(answer_line({"custom_id": "f" * 64, "body": {"model": "m"}})).encode()
    plan = Plan(shuffled=True, corrupt=0.05, extra=(stranger, b"", b"not JSON at all", b'{"custom_id": 3}'))
    with batch_server(lambda number, n: plan, SEED) as (url, backend):
        config = batch_config(url)
        requests = questions(config, 400)
        completions = run(config, ledger, requests)
        (row,) = ledger.batches.rows()
        reasons = Counter(reason for reason, _ in ledger.batches.aside(row.shard_hash))
        again = run(config, ledger, [done.request for done in completions if done.text is not None])
    assert len(completions) == 400 and {done.request.key for done in completions} == {one.key for one in requests}
    assert Counter(done.error_code for done in completions) == {None: 380, "bad_line": 20}
    assert reasons == {"unknown_id": 1, "bad_line": 2} and ledger.answered("f" * 64) is None
    assert all(done.cached for done in again) and len(backend.batches) == 1


def test_T_B4_a_line_that_lost_its_name_is_an_error_of_the_row_that_misses_one(ledger):
    plan = Plan(corrupt=0.1, nameless=True)
    with batch_server(lambda number, n: plan, SEED) as (url, backend):
        config = batch_config(url)
        completions = run(config, ledger, questions(config, 50))
    assert Counter(done.error_code for done in completions) == {None: 45, "bad_line": 5} and len(backend.batches) == 1


def test_T_B5_a_full_queue_halves_the_shards_and_says_why(ledger):
    full = Plan("failed", looks=0, errors=(("token_limit_exceeded", "Enqueued token limit reached for m"),))
    heard: list[str] = []
    with batch_server(lambda number, n: full if n > 30 else Plan()) as (url, backend):
        config = batch_config(url)
        completions = run(config, ledger, questions(config, 100), heard)
        sizes = [len(backend.lines_of(name)) for name in backend.batches]
    refused, accepted = [size for size in sizes if size > 30], [size for size in sizes if size <= 30]
    assert refused == [100, 50, 50] and sum(accepted) == 100 and max(accepted) <= 25
    assert len(completions) == 100 and all(done.text for done in completions)
    assert any("Enqueued token limit" in note and "at most 50" in note for note in heard)
    assert set(backend.charged.values()) == {1}


def test_T_B5_any_other_refusal_stops_with_the_servers_words_and_is_tried_again_by_the_next_run(ledger):
    wrong = Plan("failed", looks=0, errors=(("model_not_found", "The model m does not exist"),))
    with batch_server(lambda number, n: wrong if number == 1 else Plan()) as (url, _):
        config = batch_config(url)
        with pytest.raises(BatchRefusedError, match="The model m does not exist") as refused:
            run(config, ledger, questions(config, 10))
        assert refused.value.exit_code == 4
        assert all(done.text for done in run(config, ledger, questions(config, 10)))


def test_T_B6_results_that_are_gone_are_never_paid_again_unasked(ledger):
    with batch_server(lambda number, n: Plan(looks=2)) as (url, backend):
        config = batch_config(url)
        with pytest.raises(BatchesPendingError):
            run(config.model_copy(update={"wait_s": 0.0}), ledger, questions(config, 30))
        backend.look("batch_1"), backend.look("batch_1")
        del backend.files[backend.batches["batch_1"].output_file_id or ""]
        for _ in range(2):
            with pytest.raises(
                ResultsGoneError, match="results gone: 30 rows must be paid again; confirm with"
            ) as gone:
                run(config, ledger, questions(config, 30))
            assert gone.value.exit_code == 4 and len(backend.batches) == 1
        assert ledger.batches.release() == 30
        completions = run(config, ledger, questions(config, 30))
    assert all(done.text for done in completions) and len(backend.batches) == 2 and ledger.uncertain() == 30


def test_T_B6_a_batch_the_server_has_forgotten_is_gone_too_and_the_others_are_collected(ledger):
    with batch_server(lambda number, n: Plan(looks=2)) as (url, backend):
        config = batch_config(url, shard_requests=10)
        with pytest.raises(BatchesPendingError):
            run(config.model_copy(update={"wait_s": 0.0}), ledger, questions(config, 20))
        forgotten = {line["custom_id"] for line in backend.lines_of("batch_1")}
        del backend.batches["batch_1"]
        kept = []
        with pytest.raises(ResultsGoneError) as gone, config.open() as engine:
            for done in engine.complete(questions(config, 20), ledger):
                kept.append(done)
    assert gone.value.rows == 10 and len(kept) == 10
    assert not forgotten & {done.request.key for done in kept}


def test_results_that_come_back_are_collected_though_they_were_called_gone(ledger):
    with batch_server(lambda number, n: Plan(looks=2)) as (url, backend):
        config = batch_config(url)
        with pytest.raises(BatchesPendingError):
            run(config.model_copy(update={"wait_s": 0.0}), ledger, questions(config, 8))
        hidden = backend.batches.pop("batch_1")  # as with the key of another project
        with pytest.raises(ResultsGoneError):
            run(config, ledger, questions(config, 8))
        backend.batches["batch_1"] = hidden
        completions = run(config, ledger, questions(config, 8))
    assert all(done.text for done in completions) and len(backend.batches) == 1 and ledger.batches.release() == 0


def test_results_that_are_handed_over_in_part_are_kept_and_the_rest_is_gone_not_repaid(ledger):
    def short(number: int, n_lines: int) -> Plan:
        return Plan("expired", finished=0.5)

    with batch_server(short) as (url, backend):
        end = backend._end

        def losing(batch, status):
            end(batch, status)
            lines = backend.files[batch.output_file_id].splitlines()
            backend.files[batch.output_file_id] = b"\n".join(lines[:3])

        backend._end = losing
        config = batch_config(url)
        kept = []
        with pytest.raises(ResultsGoneError) as gone, config.open() as engine:
            for done in engine.complete(questions(config, 20), ledger):
                kept.append(done)
    assert len(kept) == 3 and gone.value.rows == 17 and len(backend.batches) == 1


def test_a_run_that_may_not_wait_leaves_the_batches_and_the_next_collects_them(ledger):
    with batch_server(lambda number, n: Plan(looks=4)) as (url, backend):
        config = batch_config(url, wait_s=0.0)
        with pytest.raises(BatchesPendingError, match="batches list"):
            run(config, ledger, questions(config, 12))
        assert ledger.uncertain() == 12
        completions = run(batch_config(url), ledger, questions(config, 12))
    assert len(backend.batches) == 1 and [done.cached for done in completions] == [False] * 12
    assert ledger.uncertain() == 0


def test_a_batch_cancelled_while_it_is_waited_for_is_not_submitted_again_by_this_run(ledger):
    with batch_server(lambda number, n: Plan("in_progress", finished=0.5) if number == 1 else Plan()) as (url, backend):
        config = batch_config(url)
        heard = []
        with pytest.raises(BatchCancelledError) as cancelled, config.open() as engine:
            kept = []

            def hear(progress):
                heard.append(progress.note or "")
                if "in_progress" in heard[-1]:
                    backend.cancel("batch_1")

            for done in engine.complete(questions(config, 10), ledger, hear):
                kept.append(done)
        assert cancelled.value.unanswered == 5 and len(kept) == 5 and len(backend.batches) == 1
        completions = run(config, ledger, questions(config, 10))
        assert len(backend.lines_of("batch_2")) == 5
    assert all(done.text for done in completions)


def test_a_cap_is_kept_before_a_shard_is_submitted(ledger):
    with batch_server() as (url, backend):
        config = batch_config(url, cap={"calls": 25}, shard_requests=10)
        kept = []
        with pytest.raises(BudgetReachedError), config.open() as engine:
            for done in engine.complete(questions(config, 100), ledger):
                kept.append(done)
    assert sum(len(backend.lines_of(name)) for name in backend.batches) == 25 == len(kept)


def test_a_batch_costs_half(ledger):
    price = {"input_usd_per_million": 10.0, "output_usd_per_million": 100.0}
    with batch_server() as (url, _):
        config = batch_config(url, price=price)
        (done,) = run(config, ledger, questions(config, 1))
    assert done.usd == pytest.approx((100 * 10 + 20 * 100) / 1e6 / 2) == ledger.spent().usd


def test_batches_are_found_beyond_the_first_page(ledger):
    with batch_server() as (url, backend):
        backend.page_size = 3
        config = batch_config(url, shard_requests=1, open_batches=20)
        run(config, ledger, questions(config, 11))
        first = ledger.batches.rows()[0]
        with config.server() as server:
            found = server.find(first.shard_hash, None, 0.0)
    assert found is not None and found.batch_id == first.batch_id == "batch_1"


def test_a_creation_that_went_unanswered_is_looked_for_not_repeated(ledger, monkeypatch):
    with batch_server() as (url, backend):
        create, fell = backend.create, []

        def created_but_unheard(asked):
            document = create(asked)
            if not fell:
                fell.append(1)
                raise ConnectionResetError
            return document

        monkeypatch.setattr(backend, "create", created_but_unheard)
        config = batch_config(url)
        completions = run(config, ledger, questions(config, 5))
    assert fell and len(backend.batches) == 1 and all(done.text for done in completions)


def test_an_engine_without_a_journal_of_batches_refuses_before_anything_is_sent():
    with (
        batch_server() as (url, backend),
        batch_config(url).open() as engine,
        pytest.raises(TypeError, match="journal"),
    ):
        engine.complete(questions(batch_config(url), 1), None)
    assert backend.requests == []
