"""Search spaces, the order in which they are tried, and the settings file that a choice becomes."""

from __future__ import annotations

import itertools
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.errors import SettingsFileError, SettingSyntaxError
from flows.model_choices import ModelChoice, choices_of, run_choices
from flows.model_errors import GridTooLargeError
from flows.search_space import Axis, SearchSpace, spaces_of
from flows.settings_file import as_toml, tuned_settings
from flows.settings_layers import load_settings, validated
from flows.steps.search import Budget, drawn, open_search
from flows.steps.tune import Trial, TunedModel, choice_of, extremes, foreseen

SETTINGS = validated({"model": {"name": "mult_vae", "dropout": 0.2}, "training": {"epochs": 9}})


def axis(text: str, models: tuple[str, ...] = ("mult_vae",)) -> Axis:
    return spaces_of([text], models)[models[0]].axes[0]


def test_values_and_ranges_are_written_inline_or_in_a_file(tmp_path):
    assert axis("dropout=0.1,0.5") == Axis("dropout", (0.1, 0.5))
    assert axis("hidden_dim=10..20") == Axis("hidden_dim", (), 10, 20, whole=True)
    assert axis("training.learning_rate=1e-4..1e-2:log") == Axis("training.learning_rate", (), 1e-4, 1e-2, log=True)
    file = tmp_path / "space.toml"
    file.write_text(
        '"matching.beta" = [0.0, 1.0]\n[training]\nlearning_rate = {low = 0.001, high = 0.1, log = true}\n'
        "[dmrec.base]\ndropout = {low = 0.1, high = 0.5}\n"
    )
    spaces = spaces_of([str(file), "ease:regularization=1,10"], ("dmrec@fuse=none", "ease"))
    assert [one.option for one in spaces["dmrec@fuse=none"].axes] == [
        "matching.beta",
        "training.learning_rate",
        "base.dropout",
    ]
    assert [one.option for one in spaces["ease"].axes] == ["matching.beta", "training.learning_rate", "regularization"]


@pytest.mark.parametrize(
    "text", ["a=", "=1", "A=1", "a=1..", "a=2..1", "a=0..1:log", "a=1..2:lin", "other:a=1", "a=x..y", "a=nan..1.0"]
)
def test_what_is_no_space_is_refused_with_what_was_expected(text):
    with pytest.raises(SettingSyntaxError):
        axis(text)


@pytest.mark.parametrize(
    "content", ["a = 1", "a = []", "a = {low = 1}", "a = {low = 1, high = 2, step = 1}", '"B c"=[1]']
)
def test_what_is_no_space_in_a_file_is_refused_too(tmp_path, content):
    (tmp_path / "s.toml").write_text(content)
    with pytest.raises(SettingSyntaxError, match=r"s\.toml"):
        axis(str(tmp_path / "s.toml"))
    with pytest.raises(SettingsFileError):
        axis(str(tmp_path / "none.toml"))
    with pytest.raises(SettingSyntaxError, match="something to try for ease"):
        spaces_of(["mult_vae:dropout=0.1"], ("mult_vae", "ease"))


@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e4), st.booleans(), st.booleans(), st.floats(0, 1))
def test_what_is_drawn_lies_in_its_range(low, ratio, log, whole, place):
    low = max(1.0, round(low)) if whole else low
    high = low + max(1, round(ratio)) if whole else low * ratio
    value = Axis("a", (), low, high, log, whole).at(place)
    assert isinstance(value, int if whole else float) and low <= value <= high


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 5))
def test_a_random_order_is_a_permutation_of_the_grid_and_the_same_every_time(sizes, seed):
    space = SearchSpace(tuple(Axis(f"a{n}", tuple(range(size))) for n, size in enumerate(sizes)))
    order = list(drawn(space, seed))
    assert order == list(drawn(space, seed)) and space.size() == len(order)
    assert sorted(map(str, order)) == sorted(map(str, space.combinations()))


def test_ranges_are_drawn_without_repetition_until_nothing_new_comes():
    space = SearchSpace((Axis("a", (), 1, 3, whole=True), Axis("b", (True, False))))
    assert len(list(drawn(space, 0))) == 6
    endless = list(itertools.islice(drawn(SearchSpace((Axis("a", (), 0.1, 0.9),)), 3), 50))
    assert len({str(values) for values in endless}) == 50


def test_a_grid_that_does_not_fit_its_budget_is_refused_not_cut():
    space = SearchSpace((Axis("a", (1, 2, 3)),))
    with pytest.raises(GridTooLargeError, match="3 combinations, the budget is 2 trials"):
        open_search("grid", space, Budget(2), 0)
    with pytest.raises(GridTooLargeError, match="a range"):
        open_search("grid", SearchSpace((Axis("a", (), 0, 1),)), Budget(None, 5.0), 0)
    assert Budget(None, 1.0).allows(99, 59) and not Budget(None, 1.0).allows(0, 60) and not Budget(2).allows(2, 0)


def test_a_parzen_estimator_finds_the_better_half_is_repeatable_and_never_proposes_twice():
    pytest.importorskip("optuna", reason="the extra hpo is not installed")
    space = SearchSpace((Axis("a", (), 0.0, 1.0), Axis("b", ("x", ["y"], False))))

    def run() -> list[dict]:
        search, tried = open_search("tpe", space, Budget(40), 0), []
        for _ in range(40):
            values = search.propose()
            assert values is not None
            if not values:  # the model as it stands
                search.learn(-1.0)
                continue
            search.learn(None if values["b"] is False else -abs(values["a"] - 0.7))  # type: ignore[operator]
            tried.append(values)
        return tried

    first = run()
    assert first == run() and len({str(values) for values in first}) == 39
    assert sum(abs(values["a"] - 0.7) < 0.2 for values in first[20:]) > 10
    small = open_search("tpe", SearchSpace((Axis("a", (1, 2)),)), Budget(9), 0)
    count = 0
    while small.propose() is not None:
        small.learn(0.5)
        count += 1
    assert count == 3


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_search_begins_with_the_model_as_it_stands_and_a_grid_does_not(method):
    if method == "tpe":
        pytest.importorskip("optuna", reason="the extra hpo is not installed")
    space = SearchSpace((Axis("dropout", (0.1, 0.4)),))
    search = open_search(method, space, Budget(3), 0)
    assert search.propose() == {} and choice_of("mult_vae", {}, SETTINGS).label == "mult_vae"
    assert open_search("grid", space, Budget(3), 0).propose() == {"dropout": 0.1}


def test_trials_are_foreseen_and_the_ends_of_every_option_looked_at_first():
    space = spaces_of(["dropout=0.0..0.9", "training.learning_rate=0.1,0.2,0.3"], ["mult_vae"])["mult_vae"]
    ends = extremes("mult_vae", space, SETTINGS)
    assert [choice.label for choice in ends][:3] == [
        "mult_vae@dropout=0.0",
        "mult_vae@dropout=0.9",
        "mult_vae@training.learning_rate=0.1",
    ]
    assert ends[2].training == {"learning_rate": 0.1} and ends[2].mapping == {"name": "mult_vae", "dropout": 0.2}
    assert len(foreseen("mult_vae", space, Budget(7), "tpe", SETTINGS)) == 7


def tuned(label: str, values: dict, valid: float) -> TunedModel:
    [choice] = choices_of([label], [f"{option}={value}" for option, value in values.items()], SETTINGS)
    return TunedModel(label, choice, (Trial(choice.label, values, valid, 1.0, 2.0, "trained"),))


def test_a_choice_is_written_where_compare_and_run_will_read_it(tmp_path):
    better = tuned("mult_vae", {"dropout": 0.7, "training.learning_rate": 0.01}, 0.3)
    other = tuned("mult_vae@input_norm=l2", {"dropout": 0.6}, 0.2)
    ease = tuned("ease", {"regularization": 7}, 0.1)
    file = tmp_path / "chosen.toml"
    file.write_text(as_toml(tuned_settings(SETTINGS, (better, other, ease))))
    read = load_settings(file, environ={})
    assert choices_of(["mult_vae"], [], read)[0].mapping == {"name": "mult_vae", "dropout": 0.7}
    assert run_choices(read)[0] == ModelChoice(
        "mult_vae", {"name": "mult_vae", "dropout": 0.7}, "model", {"learning_rate": 0.01}
    )
    assert choices_of(["ease"], [], read)[0].mapping == {"name": "ease", "regularization": 7}
    assert read.training == {"epochs": 9}


LEAVES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
TREES = st.recursive(
    st.dictionaries(
        KEYS, st.one_of(LEAVES, st.lists(LEAVES, max_size=3), st.lists(st.dictionaries(KEYS, LEAVES), max_size=2))
    ),
    lambda inner: st.dictionaries(KEYS, st.one_of(LEAVES, inner), max_size=4),
    max_leaves=12,
)


@given(TREES)
def test_a_tree_is_read_back_from_its_toml(tree):
    assert tomllib.loads(as_toml(tree)) == tree
