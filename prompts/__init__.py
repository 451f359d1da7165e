"""What we say to a language model, what we show it, and how strictly we read what it answers."""

from prompts.aspects import ASPECTS, load_aspect
from prompts.contents import CONTENT_CODES, Asked
from prompts.corrections import FAULTS, corrected, fault_of
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
    with_candidates,
)
from prompts.loader import AttributeField, Limits, Prompt, known_prompts, load_prompt
from prompts.privacy import Pii, redact
from prompts.rendering import Message, Rendered, render, rendered_data
from prompts.replies import RULES, Reply, parse_reply
from prompts.salvage import best_choice, best_text

__all__ = [
    "ASPECTS",
    "CONTENT_CODES",
    "FAULTS",
    "RULES",
    "Asked",
    "AttributeField",
    "Evidence",
    "HistoryEntry",
    "Limits",
    "Message",
    "MissingAttributeError",
    "Pii",
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
    "best_choice",
    "best_text",
    "check_attributes",
    "corrected",
    "fault_of",
    "item_evidence",
    "known_prompts",
    "load_aspect",
    "load_prompt",
    "parse_reply",
    "redact",
    "render",
    "rendered_data",
    "user_evidence",
    "with_candidates",
]
