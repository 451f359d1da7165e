"""Engines made of a function: what a model would write to each request, kept in the journal like any other reply."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from providers import Completion, Journal, Request
from providers.completion import Outcome
from providers.envelope import read_envelope

Writes = Callable[[Request], "str | Mapping[str, Any]"]
"""The content of the reply, or a choice with `finish_reason` or `refusal` of its own."""


@dataclass
class ScriptedModel:
    """Settings and engine in one; `asked` holds every request that was not answered before."""

    writes: Writes
    asked: list[Request] = field(default_factory=list)
    max_tokens: int = 300
    name: str = "scripted"
    source: str = "scripted"
    paid: bool = False

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}

    def known_price(self) -> None:
        return None

    def request(self, *, messages: Any, schema: Any, kind: str, entity_id: str, fields: Any = ()) -> Request:
        return Request("scripted", messages, schema, {"max_tokens": self.max_tokens}, kind, entity_id, fields)

    def open(self) -> ScriptedModel:
        return self

    def __enter__(self) -> ScriptedModel:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def complete(
        self, requests: Iterable[Request], journal: Journal | None = None, on_progress: object = None
    ) -> Iterator[Completion]:
        assert journal is not None
        for request in requests:
            stored = journal.answered(request.key)
            body = stored.body if stored else self._body(request)
            if stored is None:
                number = journal.intend(request)
                journal.settle(request.key, number, Outcome(state="ok", latency_ms=1, status=200, body=body))
                self.asked.append(request)
            envelope = read_envelope(body)
            yield Completion(
                request,
                envelope.text,
                envelope.error_code,
                cached=stored is not None,
                detail=envelope.detail,
                usd=None if stored else 0.0,
            )

    def _body(self, request: Request) -> bytes:
        written = self.writes(request)
        choice = {"finish_reason": "stop"} | (dict(written) if isinstance(written, Mapping) else {"content": written})
        message = {"content": choice.pop("content", ""), "refusal": choice.pop("refusal", None)}
        return json.dumps({"choices": [{**choice, "message": message}]}).encode()


def good_reply(request: Request) -> str:
    """A profile that depends on nothing but the entity."""
    subject = "films of that kind" if request.kind == "user" else "such quiet games"
    profile = f"People who enjoy {subject} and come back to them often, as {request.entity_id} shows well enough."
    return json.dumps({"reasoning": "The facts agree with each other.", "profile": profile})
