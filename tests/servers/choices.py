"""A catalogue whose prompts ask for choices alone: even random weights obey it, and nothing they choose means anything.

Whatever shows such profiles can tell what they are: the domain is `test_output`, the prompt's own text says so and is
kept in the table `prompts`, and a model that is asked in tests is named after its random weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOMAIN = "test_output"
RANDOM_MODEL = "random-weights-test"
CHOICES = ("people who like quiet puzzles", "people who like loud races", "people who like long stories")
PROMPT = """---
version: 1
about: a test prompt whose replies are choices; profiles made with it are test output and mean nothing
attributes:
  - {{name: title, required: {required}}}
reply:
  reasoning: {{choices: [seen, guessed]}}
  profile: {{choices: [{choices}]}}
---
# System
This is a test. Choose; the choice means nothing.

# Message
{{{{ open }}}}
{{"{kind}": {{{{ attributes }}}}, "more": {{{{ {more} }}}}}}
{{{{ close }}}}
"""


def write_choices_catalogue(folder: Path, items: int = 6, users: int = 4, history: int = 3) -> Path:
    """Items, rows with a given split, and the two prompts under `own/`; write_choices_settings adds the rest."""
    rows = [{"item_id": f"i{n}", "title": f"Game number {n}"} for n in range(items)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lines = ["user_id,item_id,split"]
    for user in range(users):
        parts = (*["train"] * history, "valid", "test")
        lines += [f"u{user},i{(user + step) % items},{part}" for step, part in enumerate(parts)]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "own" / DOMAIN).mkdir(parents=True)
    for kind, more, required in (("item", "reviews", "true"), ("user", "history", "false")):
        text = PROMPT.format(kind=kind, more=more, required=required, choices=", ".join(CHOICES))
        (folder / "own" / DOMAIN / f"{kind}.md").write_text(text, encoding="utf-8")
    return folder


def write_choices_settings(folder: Path, engine: Mapping[str, Any], more: Sequence[str] = (), first: str = "") -> Path:
    """semalign.toml of such a catalogue.

    Args:
        more: further lines, tables of their own.
        first: lines before the first table.
    """
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in engine.items())
    text = f"""
{first}
[source]
items = "items.jsonl"
interactions = "rows.csv"
[split]
kind = "given"
[profiles]
domain = "{DOMAIN}"
prompts_dir = "own"
[profiles.engine]
{lines}
[warehouse]
root = "w"
"""
    (folder / "semalign.toml").write_text(text + "\n".join(more) + "\n", encoding="utf-8")
    return folder / "semalign.toml"
