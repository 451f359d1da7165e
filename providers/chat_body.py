"""The body of one chat request, the same whoever sends it: a call of ours, a batch, a file for another program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from providers.completion import Request
from providers.response_form import ResponseForm, response_format

ENDPOINT = "/v1/chat/completions"


def chat_body(
    request: Request, token_limit_field: str = "max_tokens", form: ResponseForm = "json_schema"
) -> dict[str, Any]:
    """What a server of the OpenAI protocol reads; the schema keeps its order, in which a reply is written."""
    sampling = dict(request.sampling)
    if "max_tokens" in sampling:
        sampling[token_limit_field] = sampling.pop("max_tokens")
    return {
        "model": request.model,
        "messages": [{"role": role, "content": content} for role, content in request.messages],
        "response_format": response_format(request.schema, form),
        **sampling,
    }


def request_line(request: Request, token_limit_field: str = "max_tokens") -> bytes:
    """One line of a batch file, with its end; equal requests give equal bytes.

    Pure ASCII: some readers of JSONL take U+2028 and its like for the end of a line.
    """
    line = {"custom_id": request.key, "method": "POST", "url": ENDPOINT, "body": chat_body(request, token_limit_field)}
    return json.dumps(line, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def request_of_line(line: bytes | str, kind: str = "item") -> Request:
    """The request a line of a batch file asks; its entity is its custom_id.

    Raises:
        ValueError: no such line, or one whose custom_id is not the key of what it asks.
    """
    asked = json.loads(line)
    if not isinstance(asked, Mapping) or not isinstance(asked.get("body"), Mapping):
        raise ValueError("expected an object with custom_id, method, url and body")
    body = dict(asked["body"])
    form = body.pop("response_format", {})
    if "max_completion_tokens" in body:
        body["max_tokens"] = body.pop("max_completion_tokens")
    messages = tuple((message["role"], message["content"]) for message in body.pop("messages"))
    schema = form.get("json_schema", {}).get("schema", {})
    request = Request(body.pop("model"), messages, schema, body, kind, asked["custom_id"])
    if request.key != asked["custom_id"]:
        raise ValueError(f"custom_id {asked['custom_id']} is not the key of what the line asks ({request.key})")
    return request
