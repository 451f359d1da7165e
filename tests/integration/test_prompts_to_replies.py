"""From rows to parsed replies: prompts and engines together, against our counting server and a real llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers.counting import chat, counting_server
from servers.journal import MemoryJournal
from servers.llama import llama_server

from prompts import Prompt, ReplyError, item_evidence, load_prompt, parse_reply, render
from providers import EngineConfig, OpenAIConfig, Request, parse_engine


def requests_of(config: EngineConfig, prompt: Prompt, n: int) -> list[Request]:
    requests = []
    for number in range(n):
        evidence = item_evidence(prompt, {"title": f"Game {number}", "genres": ["Puzzle"], "tags": ["calm", "short"]})
        assert evidence is not None
        rendered = render(prompt, evidence)
        requests.append(
            config.request(
                messages=rendered.messages,
                schema=rendered.schema,
                kind="item",
                entity_id=str(number),
                fields=rendered.fields,
            )
        )
    return requests


def test_the_attributes_engine_writes_natural_text_from_the_fields():
    config = parse_engine({"name": "attributes"})
    with config.open() as engine:
        (completion,) = engine.complete(requests_of(config, load_prompt("games", "item"), 1))
    assert completion.text == "Game 0. Genres: Puzzle. Tags: calm, short."


def test_a_changed_reading_of_stored_replies_costs_no_call():
    prompt = load_prompt("games", "item")
    journal = MemoryJournal()
    good = json.dumps({"reasoning": "Calm.", "profile": "Players who like short and calm puzzles."})
    with counting_server(lambda number, asked: chat(good if number % 3 else "I cannot say")) as (url, server):
        config = parse_engine({"name": "openai", "model": "m", "base_url": url, "concurrency": 1})
        codes = []
        for _ in range(2):
            with config.open() as engine:
                for completion in engine.complete(requests_of(config, prompt, 9), journal):
                    try:
                        parse_reply(completion.text or "", prompt)
                    except ReplyError as error:
                        codes.append(error.code)
        assert len(server.requests) == 9
    assert codes == ["not_json"] * 6


def test_the_model_sees_the_block_and_the_schema_of_its_prompt():
    prompt = load_prompt("games", "item")
    with counting_server() as (url, server):
        config = parse_engine({"name": "openai", "model": "m", "base_url": url})
        with config.open() as engine:
            list(engine.complete(requests_of(config, prompt, 1), MemoryJournal()))
    (sent,) = server.requests
    assert sent["response_format"]["json_schema"]["schema"] == prompt.reply_schema
    assert sent["messages"][0]["content"] == prompt.system
    assert '"title": "Game 0"' in sent["messages"][1]["content"]


def test_a_real_server_with_random_weights_gives_profiles_of_a_prompt_with_choices_only(tmp_path: Path):
    pytest.importorskip("xllamacpp", reason="the extra `local-llm` is not installed")
    (tmp_path / "games").mkdir()
    (tmp_path / "games/item.md").write_text(
        "---\nversion: 1\nabout: a test for random weights, whose replies mean nothing\n"
        "attributes:\n  - {name: title, required: true}\n"
        "reply:\n  reasoning: {choices: [test output]}\n  profile: {choices: [explorers, builders, fighters]}\n---\n"
        '# System\nChoose.\n\n# Message\n{{ open }}\n{"game": {{ attributes }}}\n{{ close }}\n'
    )
    prompt = load_prompt("games", "item", tmp_path)
    with llama_server(tmp_path) as url:
        config = OpenAIConfig(model="random", base_url=url, max_tokens=400, concurrency=2, deadline_s=60)
        with config.open() as engine:
            completions = list(engine.complete(requests_of(config, prompt, 6), MemoryJournal()))
    replies = [parse_reply(completion.text, prompt) for completion in completions if completion.text is not None]
    assert len(completions) == 6 and len(replies) >= 3
    assert {reply.profile for reply in replies} <= {"explorers", "builders", "fighters"}
