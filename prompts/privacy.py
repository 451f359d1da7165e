"""Personal details taken out of what people wrote, the same way every time."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

Pii: TypeAlias = Literal["off", "strict"]

_DOT, _AT = r"(?:\.|\(dot\)|\[dot\])", r"(?:@|\(at\)|\[at\])"
_TOP_LEVELS = r"(?:com|org|net|io|co|de|fr|uk|example|info|biz|app|dev|me|tv)"
_DETAILS = tuple(
    (stand_in, re.compile(pattern, re.IGNORECASE))
    for stand_in, pattern in (
        ("[link]", r"(?:https?://|ftp://|www\.)[^\s<>\"]+"),
        ("[email]", rf"[\w.+%-]+\s?{_AT}\s?[\w-]+(?:\s?{_DOT}\s?[\w-]+)+"),
        ("[link]", rf"\b(?:[a-z0-9-]+\.)+{_TOP_LEVELS}\b(?:/[^\s<>\"]*)?"),
        ("[handle]", r"(?<![\w@])@[a-z0-9_][\w.]{1,40}"),
        # seven digits or more with the usual separators; years, prices and counts have fewer
        ("[phone]", r"(?<![\w.])(?:\+|00)?\(?\d(?:[\s().\u2010-\u2013/-]{0,2}\d){6,14}(?!\w)"),
    )
)


def redact(text: str) -> str:
    """The text with links, e-mail addresses, @handles and telephone numbers replaced by what they were."""
    for stand_in, pattern in _DETAILS:
        text = pattern.sub(stand_in, text)
    return text
