"""What is said when a reply could not be used: the fault in a sentence, never a word of the reply."""

from __future__ import annotations

from collections.abc import Iterable

from prompts.loader import Prompt
from prompts.rendering import Message

_FAULTS = {
    "form": "it was not exactly one JSON object with the string keys that were asked for",
    "length": "a text in it was too short or too long",
    "refusal": "it declined; describing what the block holds is harmless, and a careful short answer is enough",
    "copy": "it repeated the instructions, the block or itself instead of describing in words of its own",
    "content": "a text in it held something other than plain prose, such as a link, markup, a placeholder or a remark",
    "language": "it was not in the language that was asked for",
    "empty": "it was empty",
}
_CODES = {
    "length": "too_short too_long too_few too_many truncated",
    "refusal": "refusal",
    "copy": "echo_prompt echo_evidence schema_echo repeated",
    "content": "meta_talk obeyed leak placeholder error_text nested_json delimiter email url markdown phone html "
    "template escapes broken_text control bidi zero_width mixed_scripts no_words",
    "language": "wrong_language",
    "empty": "empty_content whitespace",
}
_FAULT_OF = {code: fault for fault, codes in _CODES.items() for code in codes.split()}
FAULTS = tuple(_FAULTS)
"""All kinds of fault: a few, so that a fault judged otherwise tomorrow was likely asked about in the same words."""


def fault_of(code: str) -> str:
    """The kind of fault behind a code of a reply; what has no other name is one of form."""
    return _FAULT_OF.get(code, "form")


def corrected(messages: Iterable[Message], fault: str, prompt: Prompt) -> tuple[Message, ...]:
    """The same messages, the last of them followed by what was wrong with an earlier answer.

    One message, not a new one: some chat templates refuse two messages of one role in a row.
    """
    *before, (role, content) = messages
    keys = ", ".join(f'"{name}"' for name in prompt.reply)
    said = (
        f"An earlier answer to this could not be used: {_FAULTS[fault]}. Answer again, with exactly one JSON object "
        f"with the keys {keys}, and nothing before or after it."
    )
    return (*before, (role, f"{content}\n\n{said}"))
