"""No id of a user leaves this machine in any form: prompts need none, so that none is hashed or replaced either.

What a server sees of a user are what they did and wrote; what names a request is the sha256 of its question.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from servers.counting import chat, counting_server

from flows import cli
from flows.settings import ProfileSettings
from flows.steps.evidence import PromptPair, TrainingRow, TrainingWorld, load_prompts
from flows.steps.questions import Questioner
from prompts import FAULTS, corrected, known_prompts
from providers import parse_engine
from providers.chat_body import request_line
from providers.exchange import ChatExchange
from warehouse import Warehouse

SEED = 20_260_403
DOMAINS = sorted({name.split("/")[0] for name in known_prompts()})


def strange_ids(rng: random.Random, n: int) -> list[str]:
    """Ids of the shapes catalogues have: numbers, addresses, keys, other scripts, quotes."""
    shapes = ("{0:012d}", "reader.{0:x}@mail.example", "A{0:X}Z", "usér-{0:x}-\u4f60", "u'{0:x}\"&<", "{{{{{0:x}}}}}")
    return [shapes[i % len(shapes)].format(rng.getrandbits(48)) for i in range(n)]


def world_of(users: list[str], items: list[str], pair: PromptPair) -> TrainingWorld:
    """Everybody has every attribute that a prompt may read, and reviewed items that others reviewed too."""
    titled = {name: f"words for {name}" for name in pair.names("item")}
    told = {name: f"words for {name}" for name in pair.names("user")}
    world = TrainingWorld(
        {item: {**titled, "title": f"Title {n}", "item_id": item} for n, item in enumerate(items)},
        {user: {**told, "user_id": user, "name": user} for user in users},
    )
    for n, user in enumerate(users):
        rows = [TrainingRow(items[(n + step) % len(items)], 4.0, f"review {n} {step}") for step in range(3)]
        world.histories[user] = rows
        for row in rows:
            world.reviews.setdefault(row.item_id, []).append((user, row.text or ""))
    return world


def spellings(name: str) -> set[bytes]:
    """A text as bodies may carry it: as it is, and as either form of JSON, once and twice quoted."""
    found = {name}
    for _ in range(2):
        found |= {json.dumps(text, ensure_ascii=plain)[1:-1] for text in found for plain in (True, False)}
    return {text.encode() for text in found}


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("pii", ["off", "strict"])
def test_no_user_id_is_in_any_request_of_any_domain(domain, pii):
    print(f"seed {SEED}")
    rng = random.Random(f"{SEED} {domain}")
    users, items = strange_ids(rng, 12), [f"item-{rng.getrandbits(48):x}" for _ in range(8)]
    settings = ProfileSettings(domain=domain, pii=pii)
    pair = load_prompts(settings)
    engine = parse_engine({"name": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"})
    world = world_of(users, items, pair)
    questioner = Questioner(world, pair, settings, engine, {item: f"Profile of {n}." for n, item in enumerate(items)})
    sent = b""
    for kind, ids in (("item", items), ("user", users)):
        for question in (questioner.of(kind, entity_id) for entity_id in ids):
            assert question is not None
            request = question.request
            sent += b"".join(
                ChatExchange().body(request, form) for form in ("json_schema", "json_object")
            ) + request_line(request)
            for fault in FAULTS:
                sent += json.dumps(corrected(request.messages, fault, question.rendered.prompt)).encode()
    assert b"review 3 1" in sent and b"Title 3" in sent, "the reviews are there, and those who wrote them are not"
    for name in (*users, *items):
        assert not [spelling for spelling in spellings(name) if spelling in sent], name


def test_no_user_id_goes_over_the_wire_and_the_ledger_still_knows_whose_it_was(tmp_path: Path):
    users = [f"reader.{n:x}@mail.example" for n in range(0xC0FFEE, 0xC0FFEE + 3)]
    rows = ["user_id,item_id,text,split"]
    for user in users:
        parts = ("train", "train", "train", "valid", "test")
        rows += [f"{user},i{step},liked it,{part}" for step, part in enumerate(parts)]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    titles = (json.dumps({"item_id": f"i{n}", "title": f"Game {n}"}) for n in range(5))
    (tmp_path / "items.jsonl").write_text("\n".join(titles) + "\n", encoding="utf-8")
    with counting_server(lambda number, asked: chat()) as (url, server):
        engine = f'{{ name = "openai", model = "m", base_url = "{url}" }}'
        text = '[source]\nitems = "items.jsonl"\ninteractions = "rows.csv"\n[split]\nkind = "given"\n[profiles]\n'
        text += f'domain = "games"\nengine = {engine}\n[warehouse]\nroot = "w"\n'
        (tmp_path / "semalign.toml").write_text(text, encoding="utf-8")
        assert cli.run(["profile", "--json", "--config", str(tmp_path)]) == 0
    over_the_wire = json.dumps([server.requests, server.headers])
    assert len(server.requests) == 8 and "liked it" in over_the_wire
    assert not [user for user in users if user in over_the_wire or user.partition("@")[0] in over_the_wire]
    with Warehouse(tmp_path / "w").ledger(read_only=True) as ledger:
        assert set(users) < set(ledger.calls()["entity_id"].to_pylist())
