"""T-V2 and T-V3: the replies that somebody wrote before there were rules, and what the rules make of them."""

from __future__ import annotations

from collections import Counter

import pytest
from servers.examples import example_prompt, examples, read

from prompts import Reply
from prompts.text import clean

PROMPT = example_prompt()
ROWS = examples("bad_replies")
CLEAR = [row for row in ROWS if not row.get("arguable")]

# id → why the rule is right and the example is not followed; empty as long as no rule has to be defended
EXCEPTIONS: dict[str, str] = {}


def verdict(row: dict) -> str:
    kept = read(row, PROMPT)
    if isinstance(kept, Reply):
        return "repair" if kept.repaired else "accept"
    return "quarantine" if kept in ("content_filter", "refused") else "reask"


def test_T_V3_of_the_clear_bad_replies_at_least_98_percent_are_caught():
    bad = [row for row in CLEAR if row["expected"] in ("reask", "quarantine") and row["id"] not in EXCEPTIONS]
    missed = [row["id"] for row in bad if verdict(row) in ("accept", "repair")]
    assert len(bad) >= 390 and len(missed) <= 0.02 * len(bad), missed
    filtered = [row for row in bad if row["expected"] == "quarantine"]
    assert all(verdict(row) == "quarantine" for row in filtered)


def test_T_V3_of_the_clear_good_replies_at_most_one_percent_are_refused():
    good = [row for row in CLEAR if row["expected"] == "accept" and row["id"] not in EXCEPTIONS]
    refused = {row["id"]: read(row, PROMPT) for row in good if verdict(row) not in ("accept", "repair")}
    assert len(good) >= 115 and len(refused) <= 0.01 * len(good), refused


@pytest.mark.parametrize("row", [row for row in CLEAR if row["expected"] == "repair"], ids=lambda row: row["id"])
def test_T_V2_a_repaired_reply_is_exactly_the_object_that_was_meant(row):
    kept = read(row, PROMPT)
    assert isinstance(kept, Reply), kept
    meant = {name: clean(v) if isinstance(v, str) else tuple(map(clean, v)) for name, v in row["value"].items()}
    assert dict(kept.fields) == meant and kept.repaired
    assert (kept.profile, kept.reasoning) == (meant["summary"], meant["audience"])


def test_no_exception_outlives_its_example():
    assert set(EXCEPTIONS) <= {row["id"] for row in CLEAR}


def test_arguable_rows_are_reported_and_never_break_the_schema(capsys):
    counted = Counter((row["expected"], verdict(row)) for row in ROWS if row.get("arguable"))
    with capsys.disabled():
        pairs = ", ".join(f"{expected}→{got} {n}" for (expected, got), n in sorted(counted.items()))
        print(f"\n[arguable examples, expected→got: {pairs}]")
    assert sum(counted.values()) == len(ROWS) - len(CLEAR)
