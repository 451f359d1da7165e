"""Faulty replies asked for once more, then set aside; and what a person can do about those that were."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from servers.catalogue import write_games
from servers.commands import command
from servers.models import ScriptedModel, good_reply

import providers
from flows import cli
from warehouse import Warehouse

FAULTS = {
    "i0": "Sorry, I cannot help with that.",
    "i1": {"finish_reason": "length", "content": '{"reasoning": "The facts'},
    "i2": {"finish_reason": "content_filter", "content": ""},
    "i3": {"refusal": "no"},
    "i4": json.dumps({"reasoning": "It says so.", "profile": "None"}),
    "i5": json.dumps({"reasoning": "It says so.", "profile": "People who like maps; see www.maps.example for more."}),
    "i6": "```json\n" + json.dumps({"reasoning": "It says so.", "profile": "People who like quiet maps."}) + "\n```",
    "i7": {"content": "  "},
}
TOLERANT = ("--set", "profiles.max_quarantined_share=1.0")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    write_games(tmp_path, 12)
    pairs = [f"u{user},i{8 + (user + step) % 4}" for user in range(2) for step in range(3)]
    (tmp_path / "rows.csv").write_text("\n".join(["user_id,item_id", *pairs]) + "\n", encoding="utf-8")
    toml = '[source]\nitems = "items.jsonl"\ninteractions = "rows.csv"\n[profiles]\ndomain = "games"\n'
    (tmp_path / "semalign.toml").write_text(toml + '[warehouse]\nroot = "w"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(monkeypatch) -> ScriptedModel:
    """Writes good profiles; every item of FAULTS gets its fault while `stubborn`, else at the first question only."""

    def write(request):
        faulty = request.entity_id in FAULTS and (model.stubborn or request.attempt_class == "first")
        return FAULTS[request.entity_id] if faulty else good_reply(request)

    model = ScriptedModel(write)
    model.stubborn = False  # type: ignore[attr-defined]
    monkeypatch.setattr(providers, "parse_engine", lambda settings: model)
    return model


def run(capsys, *arguments: str) -> tuple[int, dict, str]:
    return command(capsys, *arguments, *TOLERANT)


def summary() -> dict:
    snapshot = Warehouse(Path("w")).current()
    assert snapshot is not None
    return snapshot.stages["profile"]["summary"]


def aside() -> dict[str, tuple[str, str]]:
    snapshot = Warehouse(Path("w")).current()
    assert snapshot is not None
    return {row["entity_id"]: (row["code"], row["detail"]) for row in snapshot.read("quarantine").to_pylist()}


def test_a_fault_is_asked_about_once_more_and_a_verdict_is_not(folder, model, capsys):
    code, document, _ = run(capsys, "profile")
    classes = Counter(request.attempt_class for request in model.asked)
    assert classes == {"first": 14, "reask": 3, "double": 1} and document["calls"] == 18
    assert code == 3 and {name: fault for name, (fault, _) in aside().items()} == {
        "i2": "content_filter",
        "i3": "refused",
        "i4": "no_profile",
    }
    assert (summary()["reasked"], summary()["repaired"]) == (4, 1)
    first = {request.entity_id: request for request in model.asked if request.attempt_class == "first"}
    for request in model.asked:
        before = first[request.entity_id]
        if request.attempt_class == "double":
            assert request.sampling == {"max_tokens": 600} and request.messages == before.messages
        if request.attempt_class == "reask":
            added = request.messages[-1][1].removeprefix(before.messages[-1][1])
            assert request.messages[:-1] == before.messages[:-1] and "could not be used" in added
            # the fault is named, and not a word of the reply comes back
            assert "www" not in added and "cannot help" not in added
    assert run(capsys, "profile")[1]["calls"] == 0


def test_what_fails_twice_is_set_aside_with_both_faults_and_never_asked_again(folder, model, capsys):
    model.stubborn = True
    code, document, _ = run(capsys, "profile")
    assert code == 3 and document["calls"] == 18
    assert aside()["i0"][0] == "not_json" and aside()["i1"][0] == "truncated" and "asked 2 times" in aside()["i1"][1]
    assert set(aside()) == {"i0", "i1", "i2", "i3", "i4", "i5", "i7"}
    again = [run(capsys, "profile")[1]["calls"], run(capsys, "run", "--until", "profile", "--retry")[1]["calls"]]
    assert again == [0, 0] and len(model.asked) == 18


def test_T_V4_a_changed_rule_judges_the_stored_replies_without_a_call(folder, model, capsys):
    model.stubborn = True
    run(capsys, "profile", "--set", "profiles.reask=false")
    assert len(model.asked) == 14 and aside()["i5"][0] == "url"
    code, document, _ = run(capsys, "profile", "--set", "profiles.reask=false", "--set", 'profiles.tolerate=["url"]')
    assert code == 3 and document["calls"] == 0 and len(model.asked) == 14 and "i5" not in aside()
    code, _, last = run(capsys, "profile", "--set", 'profiles.tolerate=["urls"]')
    assert code == 2 and "profiles.tolerate" in last and "url" in last


def test_a_retry_is_another_question_and_three_are_the_end(folder, model, capsys):
    model.stubborn = True
    run(capsys, "profile")
    code, listed, last = run(capsys, "quarantine", "list")
    assert code == 0 and len(listed["rows"]) == 7 and "quarantine retry" in last
    assert run(capsys, "quarantine", "retry")[0] == 2
    for number in (1, 2, 3, 4):
        code, document, _ = run(capsys, "quarantine", "retry", "i0")
        assert code == 3 and document["calls"] == (1 if number <= 3 else 0)
    assert [r.attempt_class for r in model.asked if r.entity_id == "i0"][2:] == ["retry-1", "retry-2", "retry-3"]
    model.stubborn = False
    code, document, _ = run(capsys, "quarantine", "retry", "--code", "truncated")
    assert code == 0 and document["mended"] == 1 and "i1" not in aside()
    n_calls = len(model.asked)
    (folder / "semalign.toml").write_text((folder / "semalign.toml").read_text() + "\n# nothing\n", encoding="utf-8")
    assert run(capsys, "profile", "--set", "split.seed=0")[1]["calls"] == 0 and len(model.asked) == n_calls
    assert "i1" not in aside() and run(capsys, "quarantine", "retry", "nobody")[0] == 2


def test_accepting_takes_the_stored_text_and_stands_until_the_question_changes(folder, model, capsys):
    model.stubborn = True
    run(capsys, "profile")
    code, document, _ = run(capsys, "quarantine", "accept", "i5")
    assert code == 0 and document["calls"] == 0 and "i5" not in aside()
    _, told, _ = run(capsys, "profile-of", "i5")
    (row,) = told["profiles"]
    assert row["profile"].startswith("People who like maps") and row["decisions"][0]["code"] == "url"
    assert len(row["calls"]) == 2 and row["evidence"] == []
    # a decision outlives a stage that is computed again
    assert run(capsys, "quarantine", "retry", "i0")[1]["calls"] == 1 and "i5" not in aside()
    for nothing in ("i2", "i7"):
        code, _, last = run(capsys, "quarantine", "accept", nothing)
        assert code == 2 and "cannot be accepted" in last and nothing in aside()


def test_a_preview_sends_only_on_demand_and_what_it_paid_for_is_not_paid_again(folder, model, capsys):
    code, document, last = run(capsys, "preview", "-n", "3")
    assert code == 0 and len(document["previews"]) == 3 and model.asked == [] and "nothing was sent" in last
    code, document, _ = run(capsys, "preview", "--send", "i0", "i9")
    replies = {shown["entity_id"]: shown["reply"] for shown in document["previews"]}
    assert code == 0 and replies["i0"]["code"] == "not_json" and replies["i9"]["profile"].startswith("People")
    assert run(capsys, "profile")[1]["calls"] == 16 and len(model.asked) == 18
    _, told, _ = run(capsys, "profile-of", "u0")
    assert {shown["title"] for shown in told["profiles"][0]["evidence"]} <= {f"Game number {n}" for n in range(12)}
    assert run(capsys, "profile-of", "nobody")[0] == 2
    cli.run(["preview", "-n", "1", "--kind", "user", *TOLERANT])
    cli.run(["profile-of", "i9", *TOLERANT])
    cli.run(["quarantine", "list", *TOLERANT])
    shown = capsys.readouterr().out
    assert "[system]" in shown and "games_played" in shown and "content_filter" in shown and "tokens_in" in shown
