"""A server that sends the key back is heard without it, however it cuts its reply into pieces."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence

import httpx2
from hypothesis import given
from hypothesis import strategies as st

from providers.capped_http import CappedTransport
from providers.public_text import quieten, spellings

KEY = 'ab/"ab-0123456789-ab/'


class Pieces(httpx2.AsyncByteStream):
    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class Echo(httpx2.AsyncBaseTransport):
    def __init__(self, pieces: Sequence[bytes], headers: list[tuple[bytes, bytes]]) -> None:
        self._pieces, self._headers = pieces, headers

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=self._headers, stream=Pieces(self._pieces))


def heard(pieces: Sequence[bytes], secret: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> httpx2.Response:
    async def ask() -> httpx2.Response:
        transport = CappedTransport(Echo(pieces, list(headers)), 1_000_000, secret)
        reply = await transport.handle_async_request(httpx2.Request("POST", "http://127.0.0.1/v1"))
        await reply.aread()
        return reply

    return asyncio.run(ask())


def cut(content: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(content)) for place in places} | {len(content)})
    return [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(
    words=st.lists(st.one_of(st.sampled_from([KEY, json.dumps(KEY), json.dumps(KEY).replace("/", "\\/")]), st.text())),
    places=st.lists(st.integers(0, 400), max_size=30),
)
def test_no_cut_lets_the_key_through_and_nothing_else_is_touched(words, places):
    said = "".join(words).encode("utf-8", "replace")
    body = heard(cut(said, places), KEY).content
    assert not [spelling for spelling in spellings(KEY) if spelling in body]
    if KEY not in words and not any(spelling in said for spelling in spellings(KEY)):
        assert body == said
    assert heard(cut(said, places), "").content == said


def test_headers_are_heard_without_it_and_a_placeholder_is_no_secret():
    reply = heard([b"EMPTY is what it says"], KEY, [(b"X-Echo", f"Bearer {KEY}".encode())])
    assert reply.headers["x-echo"] == "Bearer [key]"
    assert heard([b"EMPTY is what it says"], "EMPTY").content == b"EMPTY is what it says"


def test_a_logger_below_a_quiet_one_has_no_voice_of_its_own():
    names = ("loud", "loud.below", "loud.below.it", "louder")
    for name in names[:2] + names[3:]:
        logging.getLogger(name).setLevel(logging.DEBUG)
    logging.getLogger("loud.silent").setLevel(logging.ERROR)
    quieten("loud")
    levels = [logging.getLogger(name).getEffectiveLevel() for name in (*names, "loud.silent")]
    assert levels == [logging.WARNING, logging.WARNING, logging.WARNING, logging.DEBUG, logging.ERROR]
