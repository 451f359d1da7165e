"""T-G1 and T-G2: what the gate lets through, what it keeps out, and what it says then."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.promotion_gate import Duel, GateFacts, reasons_against
from flows.settings import PromotionSettings

# 1,000 users, recall 0.210 after 0.200, surely better, with as many items in its lists
BETTER = Duel("recall@20", 0.21, 0.2, 0.01, 0.004, 0.016, 1000, 0.4, 0.4)
SOUND = GateFacts(BETTER, served=1.0)


def duel(**changes: float) -> GateFacts:
    return replace(SOUND, duel=replace(BETTER, **changes))


CASES = {
    "surely better": (SOUND, None),
    "no champion to beat": (replace(SOUND, duel=None), None),
    "equal, as far as anybody can tell": (duel(value=0.2, difference=0.0, low=-0.008, high=0.008), None),
    "a little lower, within the limit": (duel(value=0.198, difference=-0.002, low=-0.012, high=0.008), None),
    "exactly at the limit": (duel(difference=-0.001, low=-0.02), None),
    "better, and nobody can be sure": (duel(low=-0.05, high=0.07), None),
    "a champion that finds nothing": (duel(champion_value=0.0, low=0.1), None),
    "surely worse, though by little": (duel(value=0.19, difference=-0.01, low=-0.015, high=-0.005), "it is worse"),
    "perhaps much worse": (duel(value=0.19, difference=-0.01, low=-0.03, high=0.01), "may be worse by more than"),
    "half as good": (duel(value=0.1, difference=-0.1, low=-0.11, high=-0.09), "it is worse"),
    "a metric that is no number": (duel(value=nan), "no number"),
    "an interval that is no number": (duel(low=nan, high=nan), "no number"),
    "an infinite metric": (duel(value=inf), "no number"),
    "too few users": (duel(n_users=9), "only 9 test users are known to both models"),
    "nobody whom both know": (duel(n_users=0, value=nan, low=nan, high=nan), "no number"),
    "lists of the same few items": (duel(coverage=0.1), "10.0% of the catalogue, the champion's 40.0%"),
    "users without a list": (replace(SOUND, served=0.97), "97.0% of the users get a list"),
    "scores that are no numbers": (replace(SOUND, n_not_finite=3), "3 scores of its lists are not finite"),
    "another item map": (replace(SOUND, n_strangers=2), "2 items or users are not where its item map has them"),
    "too much put aside": (replace(SOUND, quarantined_share=0.06), "6.0% of items and users are in quarantine"),
    "vectors twice as long": (replace(SOUND, drifts=(("vector norm", 1.0),)), "vector norm changed by +100.0%"),
    "rolled back before": (replace(SOUND, rolled_back="it was rolled back on 2026-01-02"), "it was rolled back"),
    "no share of users at all": (replace(SOUND, served=nan), "of the users get a list"),
}


@pytest.mark.parametrize("case", CASES)
def test_T_G2_scripted_cases_end_as_they_should(case):
    facts, reason = CASES[case]
    found = reasons_against(facts, PromotionSettings())
    assert (found == []) if reason is None else (len(found) == 1 and reason in found[0]), found


def test_several_faults_are_several_reasons():
    facts = replace(duel(high=-0.001, coverage=0.1), served=0.5, quarantined_share=0.5)
    assert len(reasons_against(facts, PromotionSettings())) == 4


def test_without_the_gate_only_what_cannot_be_served_is_kept_out():
    off = PromotionSettings(gate=False)
    assert reasons_against(replace(duel(high=-0.1), served=0.0, rolled_back="taken out"), off) == []
    assert len(reasons_against(replace(SOUND, n_not_finite=1, n_strangers=1), off)) == 2


@given(st.floats(0.01, 1), st.floats(-0.5, 0.5), st.floats(0, 0.3), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_better_interval_never_closes_the_gate_and_a_stricter_limit_never_opens_it(champion, gain, half, limit, more):
    facts = duel(value=champion + gain, champion_value=champion, difference=gain, low=gain - half, high=gain + half)
    better = replace(facts, duel=replace(facts.duel, low=gain - half + more, high=gain + half + more))
    loose, strict = PromotionSettings(max_loss=limit), PromotionSettings(max_loss=limit / 2)
    if reasons_against(facts, loose) == []:
        assert reasons_against(better, loose) == []
    if reasons_against(facts, strict) == []:
        assert reasons_against(facts, loose) == []
