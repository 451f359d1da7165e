"""A comparison as Markdown, CSV, LaTeX and HTML: every number traced to its models, every label only text."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.errors import SettingSyntaxError
from flows.steps.scores import Comparison, Difference, ModelScore
from flows.steps.tables import comparison_table
from flows.table_formats import FORMATS, table_format, written

HOSTILE = "=a@x|b\\input{/etc}&<script>alert(1)</script>$%#_{}~^\"'`*[x](javascript:1)\n\x1b[31m\u202e"
TEXTS = st.one_of(st.just(HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
TAGS = {*("html", "head", "meta", "title", "style", "body", "h1", "dl", "dt", "dd", "table", "thead", "tbody"), "tr"}
TAGS |= {"th", "td", "br", "p", "code", "small"}


def score(label: str, recall: float, ids: list[str], role: str = "baseline") -> ModelScore:
    return ModelScore(
        label=label,
        role=role,
        name="ease",
        model_ids=ids,
        reads_language=role == "model",
        valid={"recall@20": recall + 0.01},
        test={"recall@10": 0.05, "recall@20": recall, "coverage@20": 0.5},
        seconds=10.0,
        seconds_per_epoch=0.25,
        best_epoch=12.0,
        epochs=30.0,
        provenance={"edges": "surrogate edges"} if role == "model" else {},
        intervals={"recall@20": (recall - 0.01, recall + 0.01)},
        spread={"recall@20": 0.002},
    )


def comparison(label: str = "dmrec", not_run: tuple[str, ...] = ()) -> Comparison:
    return Comparison(
        scores=[score("mult_vae", 0.1, ["a1", "a2"], "base"), score(label, 0.15, ["b1"], "model")],
        differences=[Difference(label, "mult_vae", "recall@20", 0.05, 0.5, 0.04, 0.06, 1e-9, 2e-9, 700)],
        source="attributes",
        split="random 3:1:1, seed 0, screen of 50%",
        protocol="dmrec",
        select_by="recall@20",
        seeds=2,
        not_run=list(not_run),
        runs={"a1": "run-1", "a2": "run-2", "b1": "run-2"},
    )


def text_of(format_name: str, **made: object) -> str:
    return written(comparison_table(comparison(**made), "mult_vae", "00000007-ab"), format_name)  # type: ignore[arg-type]


class Cells(HTMLParser):
    """Tags, titles and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.titles += [value for name, value in attrs if name == "title" and value]

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("format_name", FORMATS[1:])
def test_every_format_names_sources_split_protocol_models_runs_and_what_was_not_run(format_name):
    text = text_of(format_name, not_run=("cvga",))
    for word in (
        "attributes",
        "screen of 50",
        "dmrec",
        "00000007-ab",
        "a1",
        "b1",
        "run-1",
        "run-2",
        "cvga",
        "not run",
        "surrogate",
    ):
        plain = re.sub(r"\\(?=[^a-z])", "", text)
        assert word in plain, word
    assert "0.15" in text and "1 of 2" in text and "0 of 2" in text


def test_a_spreadsheet_gets_numbers_and_can_stack_tables():
    rows = list(csv.DictReader(io.StringIO(text_of("csv", not_run=("cvga",)))))
    assert [row["model"] for row in rows] == ["mult_vae", "dmrec", "cvga"]
    assert float(rows[1]["test recall@20 mean"]) == 0.15 and float(rows[1]["test recall@20 spread"]) == 0.002
    gain = "recall@20 against mult_vae"
    assert float(rows[1][f"{gain} difference"]) == 0.05 and float(rows[1][f"{gain} p_holm"]) == 2e-9
    assert rows[0][f"{gain} difference"] == "" and rows[2]["test recall@20 mean"] == "not run"
    assert rows[0]["model ids"] == "a1 a2" and rows[0]["runs"] == "run-1 run-2"
    assert {row["table: split"] for row in rows} == {"random 3:1:1, seed 0, screen of 50%"}


@settings(max_examples=80, deadline=None)
@given(TEXTS)
def test_a_label_stays_text_in_html(label):
    page = Cells(text_of("html", label=label))
    assert set(page.tags) <= TAGS
    assert page.tags.count("tr") == 3 and "models b1; run run-2" in page.titles


@settings(max_examples=80, deadline=None)
@given(TEXTS)
def test_a_label_stays_in_its_cell_in_markdown_and_csv(label):
    lines = [line for line in text_of("markdown", label=label).splitlines() if line.startswith("| ")]
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}) == 1 and len(lines) == 4
    assert not any(re.search(r"(?<!\\)(?:\\\\)*[<`\[]", line) for line in lines[2:3])
    rows = list(csv.reader(io.StringIO(text_of("csv", label=label))))
    assert len({len(row) for row in rows}) == 1 and rows[2][0][:1] not in ("=", "+", "-", "@", "\t", "\r")


@settings(max_examples=80, deadline=None)
@given(TEXTS)
def test_a_label_is_no_command_in_latex(label):
    lines = text_of("latex", label=label).splitlines()
    body = [line for line in lines if not line.startswith("%")]
    assert len(body) == 8 and body[-1] == r"\end{tabular}"
    known = r"\\(?:text(?:backslash|asciitilde|asciicircum|less|greater|bar|quotedbl)\{\}|pm|[&%$#_{}\\])"
    row = re.sub(known, "", body[5].removesuffix(r" \\"))
    assert "\\" not in row and "%" not in row and row.count("&") == body[2].count("&") == 9


def test_p_values_and_missing_intervals_are_not_made_up():
    table = comparison_table(comparison(), "mult_vae", "s")
    assert "p &lt; 1e-4" in written(table, "html") and "0.5000</td>" in written(table, "html")
    alone = replace(comparison(), differences=[], scores=[replace(score("a", 0.1, ["a1"]), intervals={}, spread={})])
    assert "Holm" not in written(comparison_table(alone, "a", "s"), "markdown")


def test_the_format_is_the_one_named_or_the_files(tmp_path):
    assert table_format(None, None) == "table" and table_format("latex", None) == "latex"
    named = {suffix: table_format(None, tmp_path / f"t.{suffix}") for suffix in ("md", "csv", "tex", "html")}
    assert named == {"md": "markdown", "csv": "csv", "tex": "latex", "html": "html"}
    for name, output in (("docx", None), (None, tmp_path / "t.docx"), ("table", tmp_path / "t.md")):
        with pytest.raises(SettingSyntaxError, match=r"markdown \(.md\), csv, latex \(.tex\) or html"):
            table_format(name, output)


@pytest.mark.parametrize("format_name", ["markdown", "csv", "latex", "html"])
def test_what_a_model_says_of_itself_stands_in_its_row_where_any_model_does(format_name):
    plain = comparison()
    assert "diagnostics" not in text_of(format_name)
    told = [plain.scores[0], replace(plain.scores[1], diagnostics={"w1": (0.94, 0.55)})]
    table = comparison_table(replace(plain, scores=told), "mult_vae", "00000007-ab")
    assert table.columns[-1] == "diagnostics" and [row.values[-1] for row in table.rows] == [None, "w1 0.94 to 0.55"]
    assert "w1 0.94 to 0.55" in written(table, format_name)
