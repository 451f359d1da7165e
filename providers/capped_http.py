"""An HTTP transport that never follows, never inflates, never holds more than a cap and never hears its own key back.

Imported by `open()` only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

from providers.public_text import hide, spellings

_CONNECT_S = 10.0


class ReplyTooLargeError(httpx2.TransportError):
    """A body that passed the cap; reading stopped there."""


class CompressedReplyError(httpx2.TransportError):
    """A compressed body although none was asked for: it could inflate without end, so it is not read."""


class _CappedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int, secrets: tuple[bytes, ...]) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._secrets = secrets

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read, held = 0, b""
        kept_back = max(map(len, self._secrets), default=1) - 1  # a key may lie across two chunks
        async for chunk in self._stream:
            read += len(chunk)
            if read > self._max_bytes:
                raise ReplyTooLargeError(f"more than {self._max_bytes} bytes")
            held = hide(held + chunk, self._secrets)
            ready = max(0, len(held) - kept_back)
            if ready:
                yield held[:ready]
            held = held[ready:]
        if held:
            yield held

    async def aclose(self) -> None:
        await self._stream.aclose()


class CappedTransport(httpx2.AsyncBaseTransport):
    """Passes requests on and puts the cap around every reply, error replies included.

    Args:
        secret: blotted out of every reply's headers and body before anybody reads, logs or stores them.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, max_bytes: int, secret: str = "") -> None:
        self._inner = inner
        self._max_bytes = max_bytes
        self._secrets = spellings(secret)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        headers = httpx2.Headers([(name, hide(value, self._secrets)) for name, value in response.headers.raw])
        if headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise CompressedReplyError(f"content-encoding {headers['content-encoding'][:40]}")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        return httpx2.Response(
            response.status_code,
            headers=headers,
            stream=_CappedStream(response.stream, self._max_bytes, self._secrets),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


def capped_client(*, max_bytes: int, connections: int, timeout_s: float, secret: str = "") -> httpx2.AsyncClient:
    """A client of our own limits: no redirects, no proxies from the environment, no compression, a byte cap.

    A server that echoes `secret` is heard with `[key]` in its place.

    A connection that is not there within 10 s fails as such: nothing was sent over it, so nothing was paid.
    """
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx2.AsyncClient(
        transport=CappedTransport(httpx2.AsyncHTTPTransport(limits=limits), max_bytes, secret),
        headers={"Accept-Encoding": "identity"},
        follow_redirects=False,
        trust_env=False,
        timeout=httpx2.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
    )
