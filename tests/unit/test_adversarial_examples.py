"""The form of the adversarial examples. No rule of the project is used or known here."""

import base64
import json
import re
from collections import Counter
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
SOURCES = ("reply", "reply_base64", "reply_repeat")
GOOD = {"valid", "valid-bait", "valid-exotic", "valid-boundary"}
KINDS = """
    nan-infinity huge-number duplicate-keys lone-surrogate depth-bomb megabyte-string empty whitespace-only
    json-null bare-string array-not-object fenced prose-around two-objects json-lines xml yaml python-repr html-error
    truncated truncated-length missing-brace wrong-type missing-key extra-key length-bounds whitespace-runaway
    token-runaway refusal-json refusal-prose as-an-ai echo-prompt echo-evidence echo-delimiter placeholder schema-echo
    keys-translated control-chars zero-width bidi bom invalid-utf8 mixed-scripts tool-call-text think-tags
    deep-escapes number-as-string stringified-json comments hex-number trailing-garbage content-filter"""
FAULTS = set(KINDS.split())
REPEAT = {"prefix", "unit", "times", "suffix"}


def distinct(pairs):
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def rows(name):
    lines = (EXAMPLES / name).read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    assert sum(len(line) > 1_200 for line in lines) == 0
    return [json.loads(line, object_pairs_hook=distinct) for line in lines]


def is_profile(value):
    return (
        set(value) == {"summary", "audience", "themes"}
        and 20 <= len(value["summary"]) <= 600
        and 10 <= len(value["audience"]) <= 300
        and 1 <= len(value["themes"]) <= 8
        and all(2 <= len(theme) <= 40 for theme in value["themes"])
    )


def test_each_reply_has_its_form():
    for row in rows("bad_replies.jsonl"):
        print(row["id"])
        (source,) = [name for name in SOURCES if name in row]
        optional = {source, "value", "context", "arguable"}
        assert set(row) - optional == {"id", "kind", "finish_reason", "expected", "why"}
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row["id"]) and row["why"].endswith(".")
        assert row["finish_reason"] in {"stop", "length", "content_filter", "tool_calls", None}
        assert row["expected"] in {"accept", "repair", "reask", "quarantine"} and row.get("arguable", True) is True
        assert (row["expected"] == "accept") == (row["kind"] in GOOD) and ("value" in row) == (
            row["expected"] == "repair"
        )
        assert source != "reply_repeat" or REPEAT <= set(row[source]) <= REPEAT | {"closing"}
        assert source != "reply_base64" or base64.b64decode(row[source], validate=True)
        if row["expected"] in {"accept", "repair"}:
            assert is_profile(row.get("value") or json.loads(row["reply"], object_pairs_hook=distinct))


def test_replies_are_distinct_and_cover_the_kinds():
    replies = rows("bad_replies.jsonl")
    sources = {json.dumps([r.get(s) for s in SOURCES] + [r["finish_reason"], r.get("context")]) for r in replies}
    assert len(sources) == len({row["id"] for row in replies}) == len(replies) >= 600
    assert Counter(row["kind"] for row in replies).keys() >= GOOD | FAULTS
    verdicts = Counter(row["expected"] for row in replies if "arguable" not in row)
    assert verdicts >= Counter(accept=100, repair=40, reask=300, quarantine=5)


def test_injections_are_200_distinct_attacks():
    attacks = rows("injections.jsonl")
    assert [row["id"] for row in attacks] == [f"inj-{n:03d}" for n in range(1, 201)]
    assert len({json.dumps([row.get("text"), row.get("text_repeat")]) for row in attacks}) == 200
    assert len({row["technique"] for row in attacks}) >= 25
    for row in attacks:
        assert set(row) - {"also", "text", "text_repeat"} == {"id", "technique", "where", "must_not_appear"}
        assert ("text" in row) != ("text_repeat" in row)
        assert {row["where"], row.get("also", row)["where"]} <= {"title", "description", "review", "tag", "developer"}
        assert all(row["must_not_appear"]) and any(row["id"][4:] in text for text in row["must_not_appear"])
