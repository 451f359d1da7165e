"""What LLMRec and KAR ask a language model for: through the ledger and budget of the profiles, read by the models."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.catalogue import write_catalogue
from servers.counting import chat, counting_server
from servers.embeddings import embedded
from servers.training import train_here

import providers
from benchmarks.stand_ins import StandInEncoder
from flows import cli
from flows.errors import LeakedEvidenceError, StaleEvidenceError
from flows.settings_layers import load_settings
from flows.steps.guard import refuse_leaks_of_answers
from rec_models import Bundle
from warehouse import Snapshot, Warehouse, arrow_rows

ITEMS, USERS, DIM = 12, 9, 16
PROFILES = ITEMS + USERS
KAR = ITEMS + USERS
LLMREC = USERS + USERS + ITEMS
LEARNING = """
[training]
epochs = 2
[models.llmrec]
dim = 4
[models.kar]
dim = 4
expert_hidden_dim = 4
own_experts = 1
"""


class LetterEncoder(StandInEncoder):
    """Unit vectors that depend on every letter of a text."""

    key, short_name, dim, model, dtype = "e" * 64, "letters", DIM, "letters", "float32"

    def encode(self, texts, on_progress=None):
        drawn = [np.frombuffer(hashlib.sha256(text.encode()).digest()[:DIM], np.uint8) for text in texts]
        matrix = np.array(drawn, np.float32).reshape(len(texts), DIM) + 1
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def data_of(asked: Any) -> dict[str, Any]:
    """The block of a question, read as a model would."""
    block = re.search(r'<data id="[0-9a-f]+">(.*)</data', asked["messages"][1]["content"], re.DOTALL)
    assert block is not None
    return json.loads(block[1])


def wanted(asked: Any) -> set[str]:
    """The keys that a reply must have."""
    return set(asked["response_format"]["json_schema"]["schema"]["properties"])


def is_choice(asked: Any) -> bool:
    return "refused" in wanted(asked)


def is_facts(asked: Any) -> bool:
    return "disliked" in wanted(asked)


def is_missing(asked: Any) -> bool:
    return "themes" in wanted(asked)


def model(number: int, asked: Any) -> Any:
    """Takes the last candidate and leaves the first; else writes something of its own about everybody."""
    reasoning = {"reasoning": "Several facts agree with each other."}
    if is_choice(asked):
        n = len(data_of(asked)["candidates"])
        return chat(json.dumps({**reasoning, "liked": str(n), "refused": "1"}))
    digest = hashlib.sha256(asked["messages"][1]["content"].encode()).hexdigest()
    word = digest.translate(str.maketrans("0123456789", "ghijklmnop"))[:8]
    if is_facts(asked):
        return chat(
            json.dumps({**reasoning, "liked": [f"{word} puzzles"], "disliked": [], "makers": [f"{word} house"]})
        )
    if is_missing(asked):
        lists = {"makers": [], "kinds": ["puzzle"], "themes": [f"{word} rooms"], "languages": ["English"]}
        return chat(json.dumps({**reasoning, **lists}))
    profile = f"Somebody who keeps returning to slow exploration of the {word} sort, above all in the evening."
    return chat(json.dumps({**reasoning, "profile": profile}))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """(command -> document, last line, code), beside a server that counts; see `run.server`."""
    monkeypatch.setattr(providers, "parse_encoder", lambda settings: LetterEncoder())
    train_here(monkeypatch)
    monkeypatch.chdir(tmp_path)
    answers = {"script": model}
    with counting_server(lambda number, asked: answers["script"](number, asked)) as (url, server):
        write_catalogue(tmp_path, url, items=ITEMS, users=USERS)
        path = tmp_path / "semalign.toml"
        path.write_text(path.read_text(encoding="utf-8") + LEARNING, encoding="utf-8")

        def command(*words: str, code: int = 0) -> tuple[dict, str]:
            capsys.readouterr()
            assert cli.run([*words, "--json"]) == code, capsys.readouterr().err
            out, err = capsys.readouterr()
            return json.loads(out) if out else {}, err.strip().splitlines()[-1]

        command.server, command.folder, command.answers = server, tmp_path, answers  # type: ignore[attr-defined]
        yield command


def published(folder: Path) -> Snapshot:
    found = Warehouse(folder / "w").current()
    assert found is not None
    return found


def bundle_of(folder: Path, label: str) -> Bundle:
    found = [Bundle.open(path) for path in (folder / "w" / "models").iterdir()]
    return next(one for one in found if one.config["about"]["label"] == label)


def test_both_models_are_asked_for_what_they_read_and_nothing_is_asked_twice(run):
    plan, _ = run("compare", "--models", "llmrec,kar", "--only-estimate")
    counted = {stage["stage"]: stage["calls"] for stage in plan["estimate"]["stages"]}
    first, _ = run("compare", "--models", "llmrec,kar")
    questions = run.server.requests
    asked = [sum(map(kind, questions)) for kind in (is_choice, is_facts, is_missing)]
    assert asked == [USERS, USERS, ITEMS] and first["calls"] == len(questions) == PROFILES + LLMREC + KAR
    assert (counted["profile"], counted["augment"]) == (PROFILES, LLMREC + KAR)
    assert set(run.server.paid.values()) == {1}
    again, _ = run("compare", "--models", "llmrec,kar")
    assert again["calls"] == 0 and again["trained"] == 0 and len(run.server.requests) == len(questions)
    kept, _ = run("compare", "--models", "llmrec,kar", "--only-estimate")
    assert [stage["state"] for stage in kept["estimate"]["stages"]] == ["kept"] * 5
    assert again["metrics"] == first["metrics"]
    provenance = {score["label"]: score["provenance"] for score in first["scores"]}
    own = {"users_facts": "its own", "items_missing": "its own"}
    assert provenance["llmrec"] == {"edges": "a language model's", **own}
    assert provenance["kar"] == {"users_preference": "its own", "items_factual": "its own"}


def test_the_answers_are_rows_and_reach_the_models(run):
    run("compare", "--models", "llmrec,kar")
    snapshot = published(run.folder)
    rows = snapshot.read("augmentations").to_pylist()
    asked_of = {"choice": USERS, "facts": USERS, "missing": ITEMS, "preference": USERS, "factual": ITEMS}
    by_aspect = {aspect: [row for row in rows if row["aspect"] == aspect] for aspect in asked_of}
    assert {aspect: len(own) for aspect, own in by_aspect.items()} == asked_of and len(rows) == LLMREC + KAR
    keys = {call["request_key"] for call in snapshot.read("llm_calls").to_pylist()}
    splits = {(row["user_id"], row["item_id"]): row["part"] for row in snapshot.read("splits").to_pylist()}
    for row in rows:
        assert row["request_key"] in keys and row["source"] == "tiny" and row["prompt_version"] == 1
        assert row["prompt_id"] == f"generic/{row['kind']}_{row['aspect']}"
        assert all(splits[row["entity_id"], item] == "train" for item in row["evidence"])
    bundle = bundle_of(run.folder, "llmrec")
    users, items = (json.loads((bundle.directory / f"{kind}_ids.json").read_text()) for kind in ("user", "item"))
    edges = bundle.inputs().edges["llmrec"].tolist()
    for row in by_aspect["choice"]:
        assert row["text"] is None and row["liked"] == row["candidates"][-1] and row["refused"] == row["candidates"][0]
        assert not [item for item in row["candidates"] if splits.get((row["entity_id"], item)) == "train"]
        assert edges[users.index(row["entity_id"])] == [items.index(row["liked"]), items.index(row["refused"])]
    ids = {"users": users, "items": items}
    assert all(re.fullmatch(r"Likes: \w+ puzzles Makers: \w+ house", row["text"]) for row in by_aspect["facts"])
    for label, names in (("kar", ("users_preference", "items_factual")), ("llmrec", ("users_facts", "items_missing"))):
        inputs = bundle_of(run.folder, label).inputs()
        assert set(inputs.semantic) == {"users", "items", *names}
        for name in names:
            kind, _, aspect = name.partition("_")
            own = inputs.semantic[name]
            expected = LetterEncoder().encode([row["text"] for row in by_aspect[aspect]])
            places = [ids[kind].index(row["entity_id"]) for row in by_aspect[aspect]]
            assert own.present.all() and np.allclose(own.vectors.numpy()[places], expected)
    prompts = {row["prompt_id"] for row in snapshot.read("prompts").to_pylist()}
    assert prompts == {"games/item", "games/user"} | {f"generic/{row['kind']}_{row['aspect']}" for row in rows}


def test_without_a_language_model_nothing_is_asked_and_stand_ins_say_so(run):
    document, _ = run("compare", "--models", "llmrec,kar", "--set", "profiles.engine=attributes")
    assert not run.server.requests and document["calls"] == 0
    assert "augment" not in {stage["stage"] for stage in document["estimate"]["stages"]}
    provenance = {score["label"]: score["provenance"] for score in document["scores"]}
    stand_ins = {"users_facts": "profiles", "items_missing": "profiles"}
    assert provenance["llmrec"] == {"edges": "surrogate edges, from embeddings", **stand_ins}
    assert set(provenance["kar"].values()) == {"profiles"}
    assert published(run.folder).rows("augmentations") == 0


def test_a_model_that_reads_profiles_alone_asks_for_nothing_more(run):
    run("compare", "--models", "rlmrec_c", "--set", "models.rlmrec_c.dim=4")
    assert len(run.server.requests) == PROFILES


def test_one_cap_holds_for_profiles_and_answers_together_and_the_rest_comes_later(run):
    cap = f"profiles.engine.cap.calls={PROFILES + 4}"
    _, last = run("compare", "--models", "llmrec", "--set", cap, code=4)
    assert len(run.server.requests) == PROFILES + 4 and "calls" in last
    document, _ = run("compare", "--models", "llmrec")
    assert document["calls"] == LLMREC - 4 and set(run.server.paid.values()) == {1}


def test_a_choice_of_nothing_that_was_offered_is_asked_about_once_more_and_then_put_aside(run):
    def stubborn(number, asked):
        if is_choice(asked) and "An earlier answer" not in asked["messages"][1]["content"]:
            return chat(json.dumps({"reasoning": "Both are quiet.", "liked": "1", "refused": "1"}))
        if is_choice(asked) and number % 2:
            return chat(json.dumps({"reasoning": "That one.", "liked": "77", "refused": "1"}))
        return model(number, asked)

    run.answers["script"] = stubborn
    document, _ = run("compare", "--models", "llmrec")
    assert document["calls"] == PROFILES + LLMREC + USERS
    snapshot = published(run.folder)
    aside = snapshot.read("quarantine").to_pylist()
    told = {(row["stage"], row["aspect"], row["kind"], row["code"]) for row in aside}
    assert told == {("augment", "choice", "user", "not_a_choice")} and "same_choice" in aside[0]["detail"]
    edges = bundle_of(run.folder, "llmrec").inputs().edges["llmrec"]
    assert (edges[:, 0] < 0).sum() == len(aside) == LLMREC - snapshot.rows("augmentations")
    run("compare", "--models", "llmrec", "--set", "profiles.max_quarantined_share=0.1", code=4)
    assert len(run.server.requests) == document["calls"]


def test_an_estimate_counts_the_questions_and_the_vectors_of_their_answers(run, monkeypatch):
    monkeypatch.undo()  # no encoder of this test's own: the server makes the vectors too
    monkeypatch.chdir(run.folder)
    train_here(monkeypatch)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
    run.answers["script"] = lambda number, asked: embedded(asked) if "input" in asked else model(number, asked)
    path = run.folder / "semalign.toml"
    engine = re.search(r'base_url = "([^"]+)"', path.read_text(encoding="utf-8"))
    assert engine is not None
    bought = f'[embeddings]\nname = "openai"\nmodel = "test-embedder"\nbase_url = "{engine[1]}"\ntexts_per_call = 7\n'
    path.write_text(path.read_text(encoding="utf-8") + bought, encoding="utf-8")
    assert run("profile")[0]["calls"] == PROFILES
    plan, _ = run("compare", "--models", "llmrec", "--only-estimate")
    due = {stage["stage"]: stage for stage in plan["estimate"]["stages"]}
    n_texts = USERS + ITEMS  # choices are no texts
    assert due["augment"]["calls"] == LLMREC + -(-n_texts // 7) and f"then {n_texts} texts" in due["augment"]["what"]
    paid, _ = run("compare", "--models", "llmrec")
    assert paid["calls"] == due["augment"]["calls"] + due["embed"]["calls"]
    assert len({text for asked in run.server.requests for text in asked.get("input", ())}) == n_texts + PROFILES


def stubborn_about(spoil):
    """A model whose replies to questions of some kinds are changed: kind -> what it says instead."""

    def write(number, asked):
        reply = model(number, asked)
        for kind, change in spoil.items():
            if kind(asked):
                said = json.loads(json.loads(reply.body)["choices"][0]["message"]["content"])
                return chat(json.dumps(said | change))
        return reply

    return write


def test_answers_put_aside_are_asked_for_again_on_demand_and_reach_the_model(run):
    run.answers["script"] = stubborn_about({is_facts: {"liked": ["see www.puzzles.example"]}})
    document, _ = run("compare", "--models", "llmrec")
    assert document["calls"] == PROFILES + LLMREC + USERS
    listed, last = run("quarantine", "list")
    assert {(row["aspect"], row["code"]) for row in listed["rows"]} == {("facts", "url")} and "retry --all" in last
    assert not bundle_of(run.folder, "llmrec").inputs().semantic.get("users_facts")
    assert document["scores"][0]["provenance"]["users_facts"] == "profiles"
    again, _ = run("quarantine", "retry", "u3", code=3)
    assert (again["calls"], again["mended"], again["left"]) == (1, 0, [["facts", "user", "u3"]])
    assert "An earlier answer" not in run.server.requests[-1]["messages"][1]["content"]
    run.answers["script"] = model
    again, last = run("quarantine", "retry", "--all")
    assert (again["calls"], again["mended"], again["left"]) == (USERS, USERS, []) and "9 of 9 answers" in last
    rows = published(run.folder).read("augmentations").to_pylist()
    assert len(rows) == LLMREC and sum(row["aspect"] == "facts" for row in rows) == USERS
    run("quarantine", "retry", "--all", code=2)
    after, _ = run("compare", "--models", "llmrec")
    assert after["calls"] == 0 and after["trained"] == 1
    assert after["scores"][0]["provenance"]["users_facts"] == "its own"


def test_a_text_or_a_choice_that_was_put_aside_is_taken_by_a_decision(run):
    spoilt = {
        is_facts: {"liked": ["quiet maps"], "makers": ["www.maps.example"]},
        is_choice: {"reasoning": "ok. " * 300},
    }
    run.answers["script"] = stubborn_about(spoilt)
    run("compare", "--models", "llmrec")
    n_asked = len(run.server.requests)
    taken, _ = run("quarantine", "accept", "--code", "url")
    assert (taken["calls"], taken["mended"]) == (0, USERS)
    taken, _ = run("quarantine", "accept", "u2")
    assert (taken["calls"], taken["chosen"]) == (0, 1)
    rows = [row for row in published(run.folder).read("augmentations").to_pylist() if row["aspect"] != "missing"]
    (choice,) = [row for row in rows if row["aspect"] == "choice"]
    assert choice["entity_id"] == "u2" and choice["text"] is None
    assert (choice["liked"], choice["refused"]) == (choice["candidates"][-1], choice["candidates"][0])
    assert {row["text"] for row in rows if row["aspect"] == "facts"} == {"Likes: quiet maps Makers: www.maps.example"}
    decisions = published(run.folder).read("decisions").to_pylist()
    assert (
        sorted({(row["aspect"], row["code"]) for row in decisions})[1] == ("facts", "url")
        and len(decisions) == USERS + 1
    )
    told, _ = run("profile-of", "u2")
    assert told["profiles"][0]["decisions"] == []  # it is none about the profile
    # what was decided stands when the stage is computed again, and for the model
    run.answers["script"] = model
    again, _ = run("quarantine", "retry", "u4")
    assert again["calls"] == 1 and len(run.server.requests) == n_asked + 1
    after, _ = run("compare", "--models", "llmrec")
    bundle = Bundle.open(run.folder / "w" / "models" / after["scores"][0]["model_ids"][0])
    assert len(run.server.requests) == n_asked + 1 and bundle.inputs().semantic["users_facts"].present.all()
    users = json.loads((bundle.directory / "user_ids.json").read_text())
    chosen = np.flatnonzero(bundle.inputs().edges["llmrec"][:, 0].numpy() >= 0)
    assert {users[row] for row in chosen} == {"u2", "u4"}


def test_a_choice_of_nothing_that_was_offered_cannot_be_accepted(run):
    run.answers["script"] = stubborn_about({is_choice: {"liked": "77"}})
    run("compare", "--models", "llmrec")
    _, last = run("quarantine", "accept", "u2", code=2)
    assert "hold nothing to take" in last and published(run.folder).rows("decisions") == 0
    _, last = run("quarantine", "retry", "u2", "--set", "profiles.engine=attributes", code=2)
    assert "asks no language model" in last


def test_the_guard_refuses_answers_that_saw_what_is_tested(run):
    run("compare", "--models", "llmrec,kar")
    warehouse = Warehouse(run.folder / "w")
    settings = load_settings(run.folder / "semalign.toml", (), {}, run.folder).profiles
    current = published(run.folder)
    assert refuse_leaks_of_answers(current, settings) == LLMREC + KAR
    rows = current.read("augmentations").to_pylist()
    hidden = next(row for row in current.read("splits").to_pylist() if row["part"] == "test")
    with warehouse.lock("test"):
        for change, error in (
            ({"evidence": [hidden["item_id"]]}, LeakedEvidenceError),
            ({"evidence_hash": "0" * 64}, StaleEvidenceError),
        ):
            changed = [row | (change if row["entity_id"] == hidden["user_id"] else {}) for row in rows]
            builder = warehouse.begin(current)
            builder.replace("augmentations", arrow_rows("augmentations", changed))
            with pytest.raises(error):
                refuse_leaks_of_answers(builder.commit(), settings)
