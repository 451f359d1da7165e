"""Whether a reply comes from the model that was asked.

What is done about it, everywhere: the reply is kept, for it is paid for and may be as good. The name the server gave is
written into the attempt, the stored reply and the profile row (its `system_fingerprint` into the stored reply too), the
run says so at the first such reply, counts them, and names every model of a snapshot that mixes several. Nothing is
refused: an alias, a deployment's name or the name of a model file differ from what was asked without any harm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# a date, a month and day, a build, or "latest": the same model on another day
_VERSION = re.compile(r"(?:[-@:](?:latest|20\d\d-?\d\d-?\d\d|\d{3,4}))$")


def family(name: str) -> str:
    """The model's name without owner, folder, file ending, date and `latest`, in small letters."""
    last = re.split(r"[/\\]", name.strip().casefold())[-1].removesuffix(".gguf")
    return _VERSION.sub("", last)


def other_models(asked: str, answered: Mapping[str, int]) -> dict[str, int]:
    """{name: replies} of those whose family is not that of the model asked for.

    Args:
        answered: {name as the server gave it: replies}.
    """
    return {name: n for name, n in sorted(answered.items()) if family(name) != family(asked)}
