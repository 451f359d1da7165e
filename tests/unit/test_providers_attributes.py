"""Profiles without a model: the attributes, in order, as sentences."""

from __future__ import annotations

from providers import NO_TEXT, AttributesConfig, Progress, Request
from providers.attributes import compose


def request(*fields: tuple[str, str], entity_id: str = "1") -> Request:
    return AttributesConfig().request(messages=(), schema={}, kind="item", entity_id=entity_id, fields=fields)


def test_a_profile_is_the_title_and_then_labelled_sentences():
    fields = [("", "Iron Harbour"), ("Genres", "Strategy, Simulation"), ("", "Build a port. Keep it running!")]
    assert compose(fields) == "Iron Harbour. Genres: Strategy, Simulation. Build a port. Keep it running!"


def test_a_title_that_ends_a_sentence_gets_no_second_full_stop():
    assert compose([("", "Who goes there?"), ("Tags", "Horror")]) == "Who goes there? Tags: Horror."
    assert compose([("", 'He said "stop."'), ("", "Über…")]) == 'He said "stop." Über…'


def test_nothing_to_say_is_no_text_and_no_fault_of_the_row():
    with AttributesConfig().open() as engine:
        (completion,) = engine.complete([request(("Genres", "  "))])
    assert (completion.text, completion.error_code) == (None, NO_TEXT)


def test_completions_come_in_order_verbatim_and_uncached_and_progress_reaches_the_total():
    seen: list[Progress] = []
    requests = [request(("", f"Title {n}"), entity_id=str(n)) for n in range(600)]
    with AttributesConfig().open() as engine:
        completions = list(engine.complete(requests, on_progress=seen.append))
    assert [completion.request.entity_id for completion in completions] == [str(n) for n in range(600)]
    assert all(completion.verbatim and not completion.cached for completion in completions)
    assert completions[7].text == "Title 7."
    assert [progress.done for progress in seen] == [256, 512, 600]
