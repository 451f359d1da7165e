"""Profiles composed from attributes alone: no model, no call, nothing invented, and labelled as such."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from providers.completion import NO_TEXT, Completion, FieldText, Journal, Message, OnProgress, Progress, Request

_REPORT_EVERY = 256
_ENDS_A_SENTENCE = re.compile(r"[.!?…。！？]['\"”’)\]]*$")


def compose(fields: Iterable[FieldText]) -> str | None:
    """Text such as `Title. Genres: a, b. Tags: c, d.` in the given order, or None when no field holds any."""
    parts = [f"{label}: {text.strip()}" if label else text.strip() for label, text in fields if text.strip()]
    ended = [part if _ENDS_A_SENTENCE.search(part) else f"{part}." for part in parts]
    return " ".join(ended) or None


class AttributesConfig(BaseModel):
    """Settings of the default engine: there are none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["attributes"] = "attributes"

    @property
    def source(self) -> str:
        return "attributes"

    @property
    def paid(self) -> bool:
        return False

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}

    def known_price(self) -> None:
        """None: there is nothing to pay for."""
        return None

    def request(
        self,
        *,
        messages: tuple[Message, ...],
        schema: Mapping[str, Any],
        kind: str,
        entity_id: str,
        fields: tuple[FieldText, ...] = (),
    ) -> Request:
        return Request(self.source, messages, schema, {}, kind, entity_id, fields)

    def open(self) -> AttributesEngine:
        return AttributesEngine()


class AttributesEngine:
    """Writes each request's fields out as text; never touches the journal."""

    def complete(
        self, requests: Iterable[Request], journal: Journal | None = None, on_progress: OnProgress | None = None
    ) -> Iterator[Completion]:
        """One completion a request, in order; a request without any field ends as `no_text`, which is no fault."""
        done = failed = 0
        for request in requests:
            text = compose(request.fields)
            done += 1
            failed += text is None
            yield Completion(request, text, error_code=NO_TEXT if text is None else None, verbatim=True)
            if on_progress is not None and done % _REPORT_EVERY == 0:
                on_progress(Progress(done=done, failed=failed, usd=0.0))
        if on_progress is not None:
            on_progress(Progress(done=done, failed=failed, usd=0.0))

    def __enter__(self) -> AttributesEngine:
        return self

    def __exit__(self, *_: object) -> None:
        return None
