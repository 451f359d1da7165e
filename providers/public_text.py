"""What a server said, fit to be shown and kept: one short line, without keys, whatever was echoed."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable

_DETAIL_CHARS = 200
_MARK = "[key]"
# shorter ones are placeholders for servers that ask for no key ("EMPTY", "ollama"), and may be words of a reply
_SECRET_CHARS = 12
_KEY_SHAPES = re.compile(r"(?i)\bbearer\s+\S+|\bsk-[\w*-]{4,}")


def public_line(text: str, secret: str = "") -> str:
    """At most 200 printable characters, with `secret` and whatever has the shape of a key replaced."""
    hidden = _KEY_SHAPES.sub(_MARK, text.replace(secret, _MARK) if secret else text)
    line = "".join(char if char.isprintable() else " " for char in hidden)
    return " ".join(line.split())[:_DETAIL_CHARS]


def spellings(secret: str) -> tuple[bytes, ...]:
    """How a key looks in bytes that echo it: as it is, and as a JSON string writes it; none where it is no secret."""
    if len(secret) < _SECRET_CHARS:
        return ()
    quoted = json.dumps(secret)[1:-1]
    return tuple(dict.fromkeys(text.encode() for text in (secret, quoted, quoted.replace("/", "\\/"))))


def hide(content: bytes, secrets: Iterable[bytes]) -> bytes:
    """The bytes with a mark in place of every secret."""
    for secret in secrets:
        content = content.replace(secret, _MARK.encode())
    return content


def quieten(*loggers: str) -> None:
    """These, and all below them, print requests and headers below WARNING: nothing below it is let through."""
    known = list(logging.root.manager.loggerDict)
    for name in loggers:
        for each in (name, *(below for below in known if below.startswith(f"{name}."))):
            logger = logging.getLogger(each)
            if each == name or logger.level:  # one without a level of its own follows the one above it
                logger.setLevel(max(logging.WARNING, logger.level))
