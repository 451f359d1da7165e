"""Evidence within its budget, details taken out, the same bytes everywhere, and no user's id in any of it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts import HistoryEntry, ReviewEntry, item_evidence, load_prompt, redact, user_evidence
from prompts.evidence import shown_tokens
from prompts.loader import SHIPPED, parse_prompt
from prompts.tokens import count_tokens


@lru_cache
def prompt_of(kind: str, budget: int):
    text = load_prompt("products", kind).text.replace("max_tokens: 4000", f"max_tokens: {budget}")
    return parse_prompt(f"products/{kind}", kind, text, SHIPPED / f"products/{kind}.md")


def text_of(rng: random.Random, n: int) -> str:
    alphabet = rng.choice(["kettle steel light ", "ünïcödé ", "軽い鍋です", "1234567890 ", "🫖🔥", "<>&\"'\\"])
    return "".join(rng.choices(alphabet, k=n))


def test_T_P3_500_random_lengths_never_exceed_their_budget():
    rng = random.Random(20_260_102)
    print("seed 20260102")
    n_cut = 0
    for number in range(500):
        budget = rng.choice([100, 150, 300, 1000, 4000])
        size = rng.choice([0, 10, 200, 1500])
        if number % 2:
            fields = {name: text_of(rng, size) for name in ("title", "brand", "features", "tags", "description")}
            reviews = [ReviewEntry(f"u{n}", text_of(rng, size)) for n in range(rng.randrange(9))]
            evidence = item_evidence(prompt_of("item", budget), fields, reviews, item_id=str(number))
        else:
            history = [
                HistoryEntry(f"i{n}", text_of(rng, size), text_of(rng, size), n, text_of(rng, size)) for n in range(8)
            ]
            prompt = prompt_of("user", budget)
            evidence = user_evidence(prompt, {"interests": text_of(rng, size)}, history, user_id=str(number))
        if evidence is None:
            continue
        assert shown_tokens(evidence) <= budget
        assert len(evidence.pairs) == len(evidence.reviews or evidence.history)
        n_cut += evidence.truncated
    assert n_cut > 100


@given(st.text(max_size=200), st.text(max_size=200))
def test_tokens_add_up_to_no_less_than_the_whole_and_an_empty_text_has_none(one, two):
    assert count_tokens("") == 0 <= count_tokens(one)
    assert count_tokens(one + two) <= count_tokens(one) + count_tokens(two)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("write to jo.doe+x@mail.example now", "write to [email] now"),
        ("jo (at) mail (dot) example", "[email]"),
        ("call +44 (0)20 7946-0958, evenings", "call [phone], evenings"),
        ("see https://shop.example/a?b=c and www.x.example.", "see [link] and [link]"),
        ("thanks @tea_lover!", "thanks [handle]!"),
        ("shop.example.com/deal", "[link]"),
        ("3 cups in 1999 for 12.50, rated 9/10, ISO 9001", "3 cups in 1999 for 12.50, rated 9/10, ISO 9001"),
        ("It boils fast. Then it cools", "It boils fast. Then it cools"),
    ],
)
def test_details_are_replaced_by_what_they_were(said, kept):
    assert redact(said) == kept and redact(redact(said)) == kept


RENDERING = """
import hashlib, sys
import prompts as p

domains = sorted({name.partition("/")[0] for name in p.known_prompts()})
pairs = [[p.load_prompt(domain, kind) for kind in ("item", "user")] for domain in domains]
rendered = []
for n in range(int(sys.argv[1])):
    game, player = pairs[n % len(pairs)]
    reviews = [p.ReviewEntry(f"SECRET-USER-{k}", f"r{k} " * (n % 700)) for k in range(9)]
    values = {f.name: [f"v{n}", "b", "Ü"] for f in game.fields} | {"title": f"Ü{n} İıß"}
    history = [p.HistoryEntry(str(k), f"t{k}", rating=k / 3, review="x" * n) for k in range(n % 30 + 1)]
    item = p.item_evidence(game, values, reviews, item_id=str(n))
    user = p.user_evidence(player, {}, history, n, f"SECRET-USER-{n}")
    rendered += [p.render(game, item), p.render(player, user)]
told = [(r.messages, r.nonce, r.evidence.hash, r.prompt.fingerprint) for r in rendered]
assert "SECRET-USER" not in repr([r.messages for r in rendered]), "a user's id was sent"
print(hashlib.sha256(repr(told).encode()).hexdigest())
"""
ENVIRONMENTS = [
    {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "UTC"},
    {"PYTHONHASHSEED": "77", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"},
    {"PYTHONHASHSEED": "random", "LC_ALL": "C", "TZ": "America/St_Johns"},
]


@pytest.mark.parametrize("n", [100, pytest.param(500, marks=pytest.mark.full)])
def test_T_P4_rendering_is_the_same_bytes_under_every_hash_seed_locale_and_time_zone(n):
    command = [sys.executable, "-c", RENDERING, str(n)]
    runs = [subprocess.run(command, env={**os.environ, **e}, capture_output=True, check=True) for e in ENVIRONMENTS]
    assert len({run.stdout for run in runs}) == 1 and len(runs[0].stdout) == 65
