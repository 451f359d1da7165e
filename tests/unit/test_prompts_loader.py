"""Prompt files: what is declared is checked before anything is rendered, and refused with the line."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

import prompts
from prompts import (
    PromptError,
    PromptFileError,
    UnknownAttributeError,
    UnknownPromptError,
    known_prompts,
    load_prompt,
)

FRONT = """\
version: 3
about: a test
attributes:
  - {name: title, required: true}
  - {name: tags, label: Tags, max_items: 2}
personal: [age]
"""
BODY = """
# System
Say it.

# Message
Look:

{{ open }}
{"item": {{ attributes }}, "reviews": {{ reviews }}}
{{ close }}
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(front: str = FRONT, body: str = BODY, name: str = "tests/item") -> Path:
        path = tmp_path / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"---\n{front}---\n{body}", encoding="utf-8")
        return tmp_path

    return write


def test_a_prompt_is_its_front_matter_and_two_texts(write):
    prompt = load_prompt("tests", "item", write())
    assert (prompt.id, prompt.kind, prompt.version) == ("tests/item", "item", 3)
    assert (prompt.required, prompt.optional, prompt.personal) == (("title",), ("tags",), ("age",))
    assert prompt.system == "Say it." and prompt.template.startswith("Look:")
    assert prompt.text.startswith("---\nversion: 3")


def test_the_users_directory_wins_over_the_shipped_file_and_adds_to_the_others(write):
    shipped = load_prompt("games", "item")
    directory = write(name="games/item")
    write()
    assert load_prompt("games", "item", directory).fingerprint != shipped.fingerprint
    assert load_prompt("games", "user", directory) == load_prompt("games", "user")
    assert {"tests/item", "games/user"} <= set(known_prompts(directory))


@pytest.mark.parametrize(("domain", "kind"), [("game", "item"), ("games", "items"), ("../games", "item"), ("", "")])
def test_an_unknown_prompt_is_refused_with_the_known_ones(domain, kind):
    with pytest.raises(UnknownPromptError, match="known: books/item, books/user, games/item") as refused:
        load_prompt(domain, kind)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("front", "body", "sentence"),
    [
        (FRONT + "verison: 1\n", BODY, r"line 8: `verison`: unknown key; known: version, about, attributes"),
        (FRONT.replace("max_items", "maxitems"), BODY, r"line 6: `attributes\.1\.maxitems`: unknown key; known: name"),
        (FRONT.replace("version: 3", "version: 0"), BODY, "line 2: `version`"),
        (FRONT.replace("about: a test\n", ""), BODY, "`about`: Field required"),
        (FRONT.replace("name: tags", "name: title"), BODY, "attribute `title` is listed twice"),
        (FRONT.replace("name: tags", "name: age"), BODY, "`age` is listed as personal and among the attributes"),
        (FRONT.replace("name: tags", "name: Tags"), BODY, "attributes.1.name"),
        ("a: [1\n", BODY, "line 3: not readable YAML"),
        ("a: &x [1]\nb: *x\n", BODY, "aliases"),
        ("version: !!python/object/apply:os.system ['true']\n", BODY, "not readable YAML"),
        ("- 1\n", BODY, "front matter"),
        (FRONT, "# System\nx\n", "expected the two headings"),
        (FRONT, BODY.replace("reviews }}", "revies }}"), r"line 17: template: unknown variable `revies`; known"),
        (FRONT, BODY.replace("{{ reviews }}", "{{ attributes.tittle }}"), "has no attribute 'tittle'"),
        (FRONT, BODY.replace("{{ reviews }}", "{{ reviews"), "template: "),
        (FRONT, BODY.replace("{{ close }}", ""), "one {{ open }} and one {{ close }}"),
        (FRONT, BODY.replace('"item":', '"item"'), "is not JSON"),
        (FRONT, BODY.replace("{{ reviews }}", "{{ attributes.__class__ }}"), "SecurityError|no attribute"),
        (FRONT, BODY.replace("{{ reviews }}", "{{ open.__class__.__mro__ }}"), "unsafe|SecurityError|undefined"),
        (FRONT, BODY.replace("{{ reviews }}", "{% for a in reviews %}"), "template: "),
        (FRONT, BODY.replace("{{ reviews }}", "{{ range(9) }}"), "unknown variable `range`"),
    ],
)  # fmt: skip
def test_a_prompt_file_that_cannot_be_used_is_refused_before_any_row(front, body, sentence, write):
    with pytest.raises(PromptFileError, match=sentence) as refused:
        load_prompt("tests", "item", write(front, body))
    assert "item.md" in str(refused.value) and refused.value.exit_code == 2


def test_a_file_without_front_matter_or_that_is_no_text_is_refused(write, tmp_path):
    path = write() / "tests/item.md"
    path.write_text("# System\nx")
    with pytest.raises(PromptFileError, match="expected front matter"):
        load_prompt("tests", "item", tmp_path)
    path.write_bytes(b"---\n\xff\n---\n")
    with pytest.raises(PromptFileError, match="not UTF-8"):
        load_prompt("tests", "item", tmp_path)
    path.write_bytes(b"x" * 2_000_000)
    with pytest.raises(PromptFileError, match="larger than"):
        load_prompt("tests", "item", tmp_path)


def test_a_bomb_of_aliases_is_refused_at_once(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    started = time.monotonic()
    with pytest.raises(PromptFileError, match="aliases"):
        load_prompt("tests", "item", write("\n".join(lines) + "\n"))
    assert time.monotonic() - started < 1


def test_comments_and_line_ends_cost_nothing_and_meaning_changes_the_fingerprint(write):
    before = load_prompt("tests", "item", write()).fingerprint
    directory = write("# a comment\n" + FRONT)
    path = directory / "tests/item.md"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_prompt("tests", "item", directory).fingerprint == before
    changed = {load_prompt("tests", "item", write(FRONT.replace("max_items: 2", "max_items: 3"))).fingerprint}
    changed.add(load_prompt("tests", "item", write(body=BODY.replace("Say it", "Say this"))).fingerprint)
    changed.add(load_prompt("tests", "item", write(body=BODY.replace("Look", "See"))).fingerprint)
    assert len(changed | {before}) == 4


def test_a_prompt_can_be_made_to_read_less_and_never_more():
    prompt = load_prompt("papers", "item")
    titles = prompt.restricted_to(["title"])
    assert [field.name for field in titles.fields] == ["title"] and titles.fingerprint != prompt.fingerprint
    with pytest.raises(UnknownAttributeError, match="does not read the attribute `age`; it reads: title, tags"):
        prompt.restricted_to(["title", "age"])


def test_choices_become_an_enum_in_the_reply_schema(write):
    front = FRONT + "reply: {profile: {choices: [builders, explorers]}}\n"
    schema = load_prompt("tests", "item", write(front)).reply_schema
    assert schema["properties"]["profile"] == {"type": "string", "enum": ["builders", "explorers"]}
    assert schema["additionalProperties"] is False and schema["required"] == ["reasoning", "profile"]


def test_every_error_survives_pickling_and_speaks_a_sentence():
    facts = {
        UnknownPromptError: ("a/b", ("games/item",), None),
        PromptFileError: (Path("x.md"), 3, "wrong"),
        prompts.MissingAttributeError: ("games/item", "title", ("name", "titel")),
        UnknownAttributeError: ("games/item", "age", ("title",)),
        prompts.RenderError: ("games/item", "wrong"),
        prompts.ReplyError: ("not_json", "x at 3"),
    }
    exported = {value for value in vars(prompts).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert exported - {PromptError} == set(facts)
    for error_class, arguments in facts.items():
        error = error_class(*arguments)
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert str(again) == str(error) and vars(again) == vars(error) and error.exit_code == 2


def test_importing_prompts_loads_no_model_and_no_table_library():
    heavy = "{'torch', 'numpy', 'pyarrow', 'duckdb', 'openai', 'providers', 'warehouse', 'flows'}"
    code = f"import sys, prompts; prompts.load_prompt('games', 'item'); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
