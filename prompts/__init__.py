"""What we say to a language model, what we show it, and how strictly we read what it answers."""

from prompts.errors import (
    MissingAttributeError,
    PromptError,
    PromptFileError,
    RenderError,
    ReplyError,
    UnknownAttributeError,
    UnknownPromptError,
)
from prompts.evidence import (
    Evidence,
    HistoryEntry,
    ReviewEntry,
    check_attributes,
    item_evidence,
    user_evidence,
)
from prompts.loader import AttributeField, Limits, Prompt, known_prompts, load_prompt
from prompts.rendering import Message, Rendered, render, rendered_data
from prompts.replies import Reply, parse_reply

__all__ = [
    "AttributeField",
    "Evidence",
    "HistoryEntry",
    "Limits",
    "Message",
    "MissingAttributeError",
    "Prompt",
    "PromptError",
    "PromptFileError",
    "RenderError",
    "Rendered",
    "Reply",
    "ReplyError",
    "ReviewEntry",
    "UnknownAttributeError",
    "UnknownPromptError",
    "check_attributes",
    "item_evidence",
    "known_prompts",
    "load_prompt",
    "parse_reply",
    "render",
    "rendered_data",
    "user_evidence",
]
