"""The report page: every text escaped, nothing to fetch or run, and sentences that say what happened."""

import base64
import hashlib
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser

import pytest

from flows.report import (
    CatalogueFacts,
    Collapse,
    CostFacts,
    CostRow,
    Difference,
    Epoch,
    Interval,
    ModelResult,
    PosteriorSpread,
    ProfileExample,
    ProfileFacts,
    QuarantineRow,
    RecommendationExample,
    RecommendedItem,
    ReportContent,
    RunFacts,
    StageFacts,
    TextCoverage,
    render,
)
from flows.report.heat_map import heat_map, signed_map

HOSTILE = "<script>alert('x')</script><img src=//evil.example onerror=alert(1)> \"' & \u202e\x00\ud800 {{ 7*7 }}"


class Elements(HTMLParser):
    """Tags with their attributes, the text, and the ids, as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def model(label: str, role: str, recall: float, gap: Difference | None = None, **facts: object) -> ModelResult:
    metrics = (Interval("recall@20", recall, recall - 0.01, recall + 0.01), Interval("coverage@20", 0.5))
    trained = ModelResult(label, role, role != "base", metrics, (gap,) if gap else (), seconds=12.0)  # type: ignore[arg-type]
    return replace(trained, **facts)


def content(text: str = "Silver Trebuchet", **changes: object) -> ReportContent:
    """A complete report in which `text` stands at every place that comes from outside."""
    history = tuple(Epoch(epoch, 9.0 - epoch, 0.01 * epoch if epoch % 3 == 0 else None) for epoch in range(10))
    gap = Difference("recall@20", 0.0249, 0.148, 0.0143, 0.0359, 2e-6, 1986)
    complete = ReportContent(
        run=RunFacts("r1", text, "semalign run", datetime(2026, 11, 21, tzinfo=UTC), 104.2, "s1", "h1", "0.1.0"),
        catalogue=CatalogueFacts(2400, 1200, 23890, 15472, 4224, 4194, "random 3:1:1, seed 0", "dmrec"),
        profiles=ProfileFacts("attributes", "pooled", ("games/item v1",), 1200, 0, "all-MiniLM-L6-v2", 384),
        models=(
            model("dmrec", "model", 0.1927, gap, history=history, best_epoch=9, coverage=0.5),
            model("mult_vae", "base", 0.1677, history=history, best_epoch=9),
        ),
        stages=(StageFacts("embed", "computed", 20.0, text),),
        quarantine=(QuarantineRow("ingest", "item", "duplicate_id", 3, text),),
        quarantine_command="semalign quarantine list",
        cost_rows=(CostRow(date(2026, 11, 21), "openai", text, 1203, 1200, 7, 120000, 24000, None, 3, 1),),
        text_coverage=(TextCoverage("item", 1100, 1200),),
        profile_examples=(ProfileExample("item", text, text, text, "attributes", text, (text,)),),
        recommendation_examples=(
            RecommendationExample(text, (text,), 7, (RecommendedItem(1, text, text, 1.5, text),), "dmrec"),
        ),
        settings={"name": text, "model": {"base": {"dropout": 0.5}}},
        versions={"torch": "2.13.0"},
        notes=(text,),
    )
    return replace(complete, **changes)  # type: ignore[arg-type]


def test_hostile_text_changes_no_tag_and_no_attribute_name() -> None:
    calm, hostile = Elements(render(content())), Elements(render(content(HOSTILE)))
    assert [(tag, sorted(found)) for tag, found in hostile.tags] == [(tag, sorted(found)) for tag, found in calm.tags]
    assert "alert('x')" in hostile.text  # shown, not run
    assert "{{ 7*7 }}" in hostile.text


def test_control_characters_and_reordering_marks_are_made_visible() -> None:
    html = render(content(HOSTILE))
    html.encode("utf-8")
    assert not re.search("[\x00\u202e\ud800]", html)
    assert "\ufffd" in html


def test_nothing_is_fetched_and_nothing_runs() -> None:
    page = Elements(render(content()))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "link", "iframe", "object", "embed", "form"})
    for _, found in page.tags:
        assert not any(name.startswith("on") or name in ("src", "style") for name in found)
        assert (found.get("href") or "#").startswith("#")


def test_the_policy_allows_this_style_sheet_and_nothing_else() -> None:
    html = render(content())
    [policy] = [found["content"] for _, found in Elements(html).tags if found.get("http-equiv")]
    style = html[html.index("<style>") + 7 : html.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style and "@import" not in style


def test_every_link_leads_to_a_section_and_every_chart_is_described() -> None:
    page = Elements(render(content()))
    ids = {found["id"] for _, found in page.tags if "id" in found}
    assert {(found["href"] or "")[1:] for tag, found in page.tags if tag == "a"} <= ids
    assert all(found.get("aria-label") for tag, found in page.tags if tag == "svg")


def test_ratings_and_posteriors_have_their_tables_and_models_that_tell_no_epochs_no_curve() -> None:
    epochs = tuple({"epoch": float(epoch), "rating_kl": 1 / (1 + epoch)} for epoch in range(3))
    spread = PosteriorSpread("pia", 1.25, 2.5, 30.0, 20.0, 10.0, 63.5, 64)
    told = content(collapses=(Collapse("dgrm", {"rating_kl": 0.209, "rating_bins": 4.6}, epochs),), spreads=(spread,))
    page = Elements(render(told))
    assert "dgrm–0.2094.6" in re.sub(r"\s", "", page.text) and "pia1.252.5030.0020.0010.0063.5of64" in re.sub(
        r"\s", "", page.text
    )
    described = [found.get("aria-label") or "" for tag, found in page.tags if tag == "svg"]
    assert any("rating_kl by epoch: dgrm lowest 0.3333 at epoch 2" in words for words in described)
    silent = render(content(collapses=(Collapse("item_mean", {"rating_kl": 3.3}, ()),)))
    assert "Predicted ratings" in silent and "rating_kl by epoch" not in silent
    assert "Predicted ratings" not in render(content()) and "How far posteriors spread" not in render(content())


def test_the_summary_names_the_source_of_the_profiles_and_the_gain_with_its_interval() -> None:
    text = Elements(render(content())).text
    assert "composed from the items’ own attributes; no language model wrote them" in text
    assert "dmrec reached Recall@20 0.1927, its base without language (mult_vae) 0.1677" in text
    assert "gains 0.0249 (+14.8 %) over the base (95 % interval +0.0143 to +0.0359, p < 0.001, 1,986 users)" in text


def test_a_language_model_is_named_as_the_writer() -> None:
    written = ProfileFacts("gpt-5-mini", "gpt-5-mini", (), 1100, 2300, "e", 384)
    text = Elements(render(content(profiles=written))).text
    assert "1,100 item profiles were written by gpt-5-mini" in text
    assert "2,300 user profiles were written by gpt-5-mini" in text
    assert "no language model" not in text


def test_a_generated_catalogue_says_so_before_anything_else() -> None:
    plain = content()
    text = Elements(render(content(run=replace(plain.run, generated=True)))).text
    assert text.index("generated catalogue") < text.index("This catalogue was generated") < text.index("Recall@20")
    assert "generated" not in Elements(render(plain)).text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.002, 0.01, "cannot be told from zero"), (-0.03, -0.001, "Reading the texts loses 0.0100")],
)
def test_a_gain_that_is_none_is_not_called_one(low: float, high: float, said: str) -> None:
    gap = Difference("recall@20", -0.01, -0.06, low, high, 0.2, 1986)
    plain = content()
    shown = content(models=(replace(plain.models[0], differences=(gap,)), plain.models[1]))
    assert said in Elements(render(shown)).text


def test_an_unknown_price_is_unknown_and_never_nothing() -> None:
    paid = ProfileFacts("gpt-5-mini", "pooled", (), 1100, 0, "e", 384)
    text = Elements(render(content(profiles=paid, cost=CostFacts(9000, 1200, 3, 10, 5, usd=None)))).text
    assert "Paid for profiles unknown 9,000 requests, 1,200 already answered" in text
    assert "$0" not in text


def test_a_model_without_intervals_or_base_is_shown_with_what_is_known() -> None:
    alone = ModelResult("ease", "model", False, (Interval("recall@20", 0.1749),), seconds=0.4)
    text = Elements(render(content(models=(alone,)))).text
    assert "ease reached Recall@20 0.1749; no base was trained beside it" in text


def test_a_run_without_models_examples_or_quarantine_still_has_a_page() -> None:
    bare = content()
    html = render(ReportContent(bare.run, bare.catalogue, bare.profiles, ()))
    text = Elements(html).text
    assert "No model was evaluated in this run." in text
    assert "Nothing was set aside: every row passed." in text
    assert "<svg" not in html


def test_quarantined_rows_are_counted_and_the_command_is_given() -> None:
    text = Elements(render(content())).text
    assert "3 rows were set aside" in text and "semalign quarantine list" in text


def test_coverage_is_in_its_own_table_and_not_among_the_metrics() -> None:
    text = Elements(render(content())).text
    assert "Coverage@20" not in text
    assert "Items in anyone’s first 20, dmrec 600 1,200 50.0 %" in text


def test_the_metric_of_the_summary_comes_first() -> None:
    plain = content()
    metrics = tuple(Interval(name, 0.1) for name in ("ndcg@10", "ndcg@20", "recall@10", "recall@20"))
    models = replace(plain.models[0], metrics=metrics), plain.models[1]
    text = Elements(render(content(models=models))).text
    assert "Model Recall@10 Recall@20 NDCG@10 NDCG@20 Recall@20 against the base" in text


def test_without_a_base_the_table_names_whom_it_compares_with_and_else_has_no_such_column() -> None:
    lead, other = (model(label, role, 0.2) for label, role in (("bandvae", "model"), ("macrid_vae", "baseline")))
    gap = Difference("recall@20", -0.02, -0.1, -0.03, -0.01, 1e-6, 900, "macrid_vae")
    told = Elements(render(content(models=(replace(lead, differences=(gap,)), other)))).text
    assert "Recall@20 against macrid_vae" in told and "against the base" not in told
    assert "against" not in Elements(render(content(models=(lead, other)))).text


def test_the_best_value_is_not_claimed_by_a_control() -> None:
    plain = content()
    control = model("dmrec, shuffled text", "control", 0.3)
    html = render(content(models=(*plain.models, control)))
    assert re.findall(r'class="number best">([\d.]+)', html) == ["0.1927"]


def test_every_day_of_asking_is_a_row_whose_unknowns_are_no_zeros() -> None:
    stopped = CostRow(date(2026, 11, 20), None, "m", 5, 4, None, 500, None, 0.0123, None, None)
    page = Elements(render(content(cost_rows=(stopped, *content().cost_rows))))
    assert "2026-11-20 – m 5 4 – 500 – $0.0123 – –" in page.text
    assert "2026-11-21 openai Silver Trebuchet 1,203 1,200 7 120,000 24,000 unknown 3 1" in page.text
    assert "asked of language models" not in Elements(render(content(cost_rows=()))).text


def test_a_heat_map_shows_the_shares_of_each_row_and_nothing_of_a_row_without_mass():
    chart = heat_map([[0.1, 0.3], [0.0, 0.0]], "plan")
    assert [(cell.value, cell.strength) for cell in chart.cells] == [
        ("25 %", 0.25),
        ("75 %", 0.75),
        *[("0 %", 0.0)] * 2,
    ]
    assert [tick.label for tick in chart.rows] == ["interest 1", "interest 2"] and len(chart.columns) == 2
    assert all(cell.x + chart.size <= chart.width and cell.y + chart.size <= chart.height for cell in chart.cells)
    assert heat_map([], "nobody").cells == ()


def test_weights_of_either_sign_are_drawn_in_two_colours_by_the_largest():
    chart = signed_map([[0.25, -0.5], [0.0, 0.1]], "attention")
    assert [(cell.value, cell.strength, cell.negative) for cell in chart.cells] == [
        ("+0.25", 0.5, False),
        ("−0.50", 1.0, True),
        ("+0.00", 0.0, False),
        ("+0.10", 0.2, False),
    ]
    assert [cell.strength for cell in signed_map([[0.0]], "nothing").cells] == [0.0]
