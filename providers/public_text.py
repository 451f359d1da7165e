"""What a server said, fit to be shown and kept: one short line, without keys, whatever was echoed."""

from __future__ import annotations

import logging
import re

_DETAIL_CHARS = 200
_KEY_SHAPES = re.compile(r"(?i)\bbearer\s+\S+|\bsk-[\w*-]{4,}")


def public_line(text: str, secret: str = "") -> str:
    """At most 200 printable characters, with `secret` and whatever has the shape of a key replaced."""
    hidden = _KEY_SHAPES.sub("[key]", text.replace(secret, "[key]") if secret else text)
    line = "".join(char if char.isprintable() else " " for char in hidden)
    return " ".join(line.split())[:_DETAIL_CHARS]


def quieten(*loggers: str) -> None:
    """These print requests and headers below WARNING, so nothing below it is let through."""
    for name in loggers:
        logger = logging.getLogger(name)
        logger.setLevel(max(logging.WARNING, logger.level))
