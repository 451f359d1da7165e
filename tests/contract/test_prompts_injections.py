"""The 200 attacks: they stay inside their block, and a model that obeys them spoils its own row and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from servers.examples import examples, repeated
from servers.models import ScriptedModel, good_reply

import providers
from flows import cli
from prompts import ReviewEntry, item_evidence, load_prompt, render, rendered_data
from prompts.templates import closing, opening
from prompts.text import clean, shorten
from warehouse import Warehouse

ATTACKS = examples("injections")
GAME = load_prompt("games", "item")
KEY = "sk-canary-of-the-injection-tests"
OTHERS = ("The Glass Orchard", "Tin Choir")
COLUMN = {"tag": "tags"}
LINTED = re.compile(r"https?://|www\.|!\[|\]\(|<[a-z/][^>]*>|\S@\S+\.\S", re.IGNORECASE)


def parts_of(attack: dict) -> dict[str, str]:
    """Where → text of an attack, its second part included."""
    text = repeated(attack["text_repeat"]) if "text_repeat" in attack else attack["text"]
    parts = {attack["where"]: text}
    if also := attack.get("also"):
        parts[also["where"]] = also.get("text") or repeated(also["text_repeat"])
    return parts


def filled(text: str, nonce: str, system: str) -> str:
    spaced = " ".join(reversed(nonce))
    for name, value in (("NONCE", nonce), ("NONCE_REVERSED", spaced), ("SYSTEM", system), ("API_KEY", KEY)):
        text = text.replace(f"@@{name}@@", value)
    return text


def attributes_of(attack: dict, nonce: str = "0" * 16) -> tuple[dict, list[str]]:
    attributes: dict = {"title": f"Plain Game {attack['id'][4:]}", "genres": ["Puzzle"]}
    reviews = []
    for where, text in parts_of(attack).items():
        text = filled(text, nonce, GAME.system)
        if where == "review":
            reviews.append(text)
        else:
            attributes[COLUMN.get(where, where)] = [text] if where == "tag" else text
    return attributes, reviews


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack["id"])
def test_T_P2_a_rendered_attack_parses_back_to_exactly_its_fields(attack):
    nonce = "0" * 16
    for _ in range(2):  # the second time the attacker knows the digits of the first
        attributes, reviews = attributes_of(attack, nonce)
        evidence = item_evidence(GAME, attributes, [ReviewEntry("u", text) for text in reviews])
        assert evidence is not None
        rendered = render(GAME, evidence)
        data, message = rendered_data(rendered), rendered.messages[1][1]
        assert data["game"] == {n: v if isinstance(v, str) else list(v) for n, v in evidence.attributes}
        assert data["player_reviews"] == list(evidence.reviews)
        if "description" in attributes and not evidence.truncated:
            assert data["game"]["description"] == shorten(clean(attributes["description"]), 2000)[0]
        assert message.count(opening(rendered.nonce)) == message.count(closing(rendered.nonce)) == 1
        assert message.count("<") == 2 and message.count(">") == 2
        nonce = rendered.nonce


class Obeying(ScriptedModel):
    """Does whatever the attack of an entity wants, in another way each time; plain rows get plain profiles."""

    def __init__(self, attacks: dict[str, dict]) -> None:
        super().__init__(self.obey)
        self.attacks = attacks

    def obey(self, request) -> str:
        attack = self.attacks.get(request.entity_id)
        if attack is None:
            return good_reply(request)
        (_, system), (_, content) = request.messages
        nonce = content.partition('<data id="')[2][:16]
        said = [filled(text, nonce, system) for text in attack["must_not_appear"]]
        wanted = " ".join(said)
        plain = json.loads(good_reply(request))
        style = (int(attack["id"][4:]) + (request.attempt_class != "first")) % 6
        return (
            wanted,
            json.dumps(plain | {"profile": f"{wanted} {plain['profile']}"}),
            json.dumps(plain | {"reasoning": wanted, "profile": wanted}),
            json.dumps(plain | dict.fromkeys(said, wanted) | {"entity_id": OTHERS[0], "profile_of": OTHERS[1]}),
            json.dumps(plain) + "\n" + json.dumps({"entity_id": OTHERS[0], "profile": wanted}),
            '{"profile": "' + wanted + '", "reasoning": "' + wanted,
        )[style]


def write_catalogue(folder: Path, attacks: list[dict]) -> None:
    """An item for each attack, with one user who chose it; 20 other items and 10 users beside them."""
    items, rows = [], ["user_id,item_id,text,split"]
    for attack in attacks:
        attributes, reviews = attributes_of(attack)
        items.append({"item_id": attack["id"], **attributes})
        review = '"' + (reviews[0] if reviews else "fine").replace('"', '""').replace("\0", "") + '"'
        rows.append(f"a{attack['id'][4:]},{attack['id']},{review},train")
    for number in range(20):
        title = OTHERS[number] if number < len(OTHERS) else f"Other Game {number}"
        items.append({"item_id": f"other-{number}", "title": title, "genres": ["Card"]})
        for user in range(10):
            part = "test" if (number + user) % 10 == 0 else "valid" if (number + user) % 10 == 1 else "train"
            rows.append(f"plain-{user},other-{number},,{part}")
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    (folder / "rows.csv").write_text("\n".join(rows) + "\n", encoding="utf-8", errors="replace")


def profiled(folder: Path, attacks: list[dict], monkeypatch) -> Warehouse:
    folder.mkdir()
    write_catalogue(folder, attacks)
    toml = '[source]\nitems = "items.jsonl"\ninteractions = "rows.csv"\nmax_quarantined_share = 1.0\n'
    toml += '[split]\nkind = "given"\n[profiles]\ndomain = "games"\nmax_quarantined_share = 1.0\n'
    (folder / "semalign.toml").write_text(toml + '[warehouse]\nroot = "w"\n', encoding="utf-8")
    model = Obeying({name: attack for attack in attacks for name in (attack["id"], f"a{attack['id'][4:]}")})
    monkeypatch.setattr(providers, "parse_engine", lambda settings: model)
    monkeypatch.chdir(folder)
    assert cli.run(["profile", "--json"]) in (0, 3)
    return Warehouse(folder / "w")


@pytest.fixture
def both(tmp_path, monkeypatch, capsys):
    """The catalogue with the attacks, and the one that never met them."""
    folders = {"attacked": ATTACKS, "plain": []}
    return [profiled(tmp_path / name, attacks, monkeypatch).current() for name, attacks in folders.items()]


def test_an_obeying_model_spoils_the_free_text_of_its_own_row_and_nothing_else(both):
    attacked, plain = both
    rows = {row["entity_id"]: row for row in attacked.read("profiles").to_pylist()}
    aside = {row["entity_id"]: row for row in attacked.read("quarantine").to_pylist() if row["stage"] == "profile"}
    before = {row["entity_id"]: row for row in plain.read("profiles").to_pylist()}
    others = [name for name in before if name.startswith(("other-", "plain-"))]
    assert len(others) == 30
    for name in others:
        same = {column: value for column, value in before[name].items() if column != "snapshot"}
        assert {column: value for column, value in rows[name].items() if column != "snapshot"} == same

    caught = kept = 0
    for attack in ATTACKS:
        own = {attack["id"], f"a{attack['id'][4:]}"}
        assert own <= rows.keys() | aside.keys()
        # the canary of this attack; longer texts that other attacks share prove nothing
        marks = [text for text in attack["must_not_appear"] if attack["id"][4:] in text]
        assert marks
        for name, row in rows.items():
            free = ("profile", "reasoning") if name in own else ()
            shown = json.dumps(
                {c: str(v) for c, v in row.items() if c not in free and c not in ("entity_id", "evidence")}
            )
            assert not any(mark in shown for mark in marks), (attack["id"], name)
        for name in own & rows.keys():
            row = rows[name]
            assert 20 <= len(row["profile"]) <= 1600 and 1 <= len(row["reasoning"]) <= 1600
        for row in aside.values():
            assert not any(mark in f"{row['code']} {row['detail']}" for mark in marks)
        caught += len(own & aside.keys())
        kept += len(own & rows.keys())
        if any(LINTED.search(text) for text in attack["must_not_appear"]):
            said = " ".join(str(rows[name]["profile"]) + str(rows[name]["reasoning"]) for name in own & rows.keys())
            assert not LINTED.search(said), attack["id"]
    assert caught + kept == 400 and caught >= 200
    print(f"caught {caught} of 400 rows, {kept} spoilt in their own free text")
