"""The adversarial examples as tests use them: raw bodies of a server, and what a reader makes of each."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompts import Asked, Prompt, Reply, ReplyError, parse_reply
from prompts.loader import parse_prompt
from providers.envelope import read_envelope

EXAMPLES = Path(__file__).parents[1] / "examples"

# The examples answer a prompt of their own: a summary that is embedded, an audience as its reasoning, and a list.
PROMPT_FILE = """---
version: 1
about: the prompt that the example replies answer
attributes:
  - {name: title, required: true}
reply:
  summary: {part: profile, min_chars: 20, max_chars: 600}
  audience: {part: reasoning, min_chars: 10, max_chars: 300}
  themes: {min_chars: 2, max_chars: 40, max_items: 8}
---
# System
Describe the item.

# Message
{{ open }}
{"item": {{ attributes }}, "reviews": {{ reviews }}}
{{ close }}
"""


def example_prompt() -> Prompt:
    return parse_prompt("examples/item", "item", PROMPT_FILE, Path("examples/item.md"))


def examples(name: str) -> list[dict[str, Any]]:
    """The rows of `bad_replies` or `injections`."""
    lines = (EXAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def repeated(parts: Mapping[str, Any]) -> str:
    """The text of a `reply_repeat` or a `text_repeat`."""
    closing = parts.get("closing", "") * parts["times"]
    return parts["prefix"] + parts["unit"] * parts["times"] + closing + parts["suffix"]


def body_of(row: Mapping[str, Any]) -> bytes:
    """The body in which a server would have sent this reply."""
    if "reply_base64" in row:
        content = _quoted(base64.b64decode(row["reply_base64"]))
    else:
        content = json.dumps(row["reply"] if "reply" in row else repeated(row["reply_repeat"])).encode()
    reason = json.dumps(row["finish_reason"]).encode()
    return b'{"choices": [{"finish_reason": ' + reason + b', "message": {"content": ' + content + b"}}]}"


def _quoted(raw: bytes) -> bytes:
    """Bytes as a JSON string: escaped where they are text, lone surrogates included, else as the broken bytes."""
    try:
        return json.dumps(raw.decode("utf-8", "surrogatepass")).encode()
    except UnicodeDecodeError:
        escaped = raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
        return b'"' + escaped + b'"'


def asked_of(row: Mapping[str, Any]) -> Asked:
    context = row.get("context", {})
    evidence = context.get("evidence", {})
    labelled = " ".join(f"{name}: {text}" for name, text in evidence.items())
    shown = [*evidence.values(), labelled] if evidence else []
    return Asked(context.get("prompt", ""), shown, context.get("nonce", ""), context.get("language"))


def read(row: Mapping[str, Any], prompt: Prompt) -> Reply | str:
    """The reply as it would be kept, or the code under which it is not."""
    envelope = read_envelope(body_of(row))
    if envelope.text is None:
        return envelope.error_code or "no_reply"
    try:
        return parse_reply(envelope.text, prompt, asked_of(row))
    except ReplyError as error:
        return error.code
