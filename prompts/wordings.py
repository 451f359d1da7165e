"""Wordings that no profile has: placeholders, talk about the task, copies of the schema, markup, addresses."""

from __future__ import annotations

from typing import NamedTuple

from prompts.patterns import OPENS, Pattern
from prompts.refusals import AS_AN_AI, REFUSAL


class Wording(NamedTuple):
    """A code, what it means in a few words, and the pattern that shows it."""

    code: str
    meaning: str
    pattern: Pattern

    def is_in(self, text: str) -> bool:
        return self.pattern.is_in(text)


META_TALK = Pattern(
    rf"{OPENS}(?:sure|certainly|of course|absolutely|okay|ok|great|no problem|understood|got it|happy to)\b"
    rf"\s*[,!.:—-]",
    rf"{OPENS}(?:here is|here[’']s|here are|below is|the following is|this is) (?:the|a|an|your|my)\b[^.!?]{{0,40}}\b"
    r"(?:profile|summary|description|json|answer|response|output|object|requested)",
    r"\b(?:i hope this helps|let me know if|feel free to (?:ask|let me|reach)|hope that helps|is there anything "
    r"else)\b",
    r"\b(?:word|character|token) count\s*:|\(\d+ (?:words|characters|tokens)\)",
    r"\bas (?:you )?requested\b[,.]|\bas per your (?:request|instructions)|\baccording to (?:the|your) "
    r"(?:instructions|prompt)",
    r"\b(?:this|the) (?:json|reply|response|output|object) (?:follows|conforms|matches|meets|is valid|contains|"
    r"above)",
    r"\b(?:the user|the prompt|the instructions?|the system) (?:wants|asks?|asked|says|said|tells?|requires?|"
    r"requests?) "
    r"(?:me|us|for|that|to)\b",
    r"\b(?:let me|i (?:will|need to|should|must|have to)|i[’']ll) (?:think|write|create|generate|produce|draft|"
    r"start|now|"
    r"analy[sz]e|output)\b",
)

OBEYED = Pattern(
    r"\b(?:ignor|disregard|forget|overrid)\w*\b[^.!?]{0,30}\b(?:previous|prior|above|earlier|all|any|these|your|"
    r"system)\b"
    r"[^.!?]{0,20}\b(?:instruction|prompt|rule|direction|command)s?",
    r"\bhacked by\b|\bjailbroken\b|\bDAN mode\b",
    rf"{OPENS}(?:system|assistant|user|developer|admin(?:istrator)?)\s*:",
    r"\bnote to (?:the )?(?:recommender|model|system|ai\b|assistant|moderators?|reviewers?)",
    r"\b(?:always|must) (?:be )?(?:recommend|rank)(?:ed)?\b[^.!?]{0,30}\b(?:first|1|one|top|everyone|everybody|all "
    r"users)\b",
    r"\binstructions? (?:overridden|ignored|accepted|received)\b|\b(?:prompt|instruction) injection\b",
)

LEAK = Pattern(
    r"\bsk-[a-z0-9_-]{8,}|\bbearer\s+[a-z0-9._-]{12,}|\bAKIA[0-9A-Z]{12,}|-----BEGIN [A-Z ]*KEY",
    r"\b(?:my|the|our|this) (?:system|hidden|secret|initial) (?:prompt|message|instructions?)\b",
    r"\bapi[ _-]?key\b\s*[:=]",
)

PLACEHOLDER = Pattern(
    rf"{OPENS}lorem ipsum\b",
    r"\bdolor sit amet\b",
    r"\b(?:todo|tbd|tba|fixme)\b\s*(?:[:.\])]|\Z)",
    r"[\[<({]\s*(?:insert|your|add|enter|fill|put|write|some|placeholder|to be|item|user|title|name|genre|tbd|todo)\b"
    r"[^\]>)}]{0,60}[\]>)}]",
    r"\b(?:your|the|a|insert|enter|put) (?:\w+ ){0,2}(?:here|goes here|text here|content here)\b\s*(?:[.!\]…]|\Z)",
    r"\bto be (?:written|determined|added|filled|completed|announced|decided)\b",
    r"\b(?:this is|insert|replace with) (?:an? |some |the |your )?(?:example|sample|dummy|placeholder|test)\b",
    r"\bfoo ?bar\b|\bqwerty|\basdf",
    r"(?<![\w%])%[sd]\b",
    rf"{OPENS}see (?:the )?(?:\w+ ){{0,3}}above\b",
    r"\b(?:same as|given|described) above\b",
)

EMPTY_WORDS = Pattern(
    rf"{OPENS}(?:string|text|summary|profile|reasoning|audience|description|value|example|test|lorem|n/a|not "
    rf"available|"
    r"unknown|undefined|null|nil|none|nothing|empty|placeholder|list of str(?:ings)?|see above|x+|\.+|…+|-+|_+|"
    r"\?+)[\s.…\"'\])]*\Z",
    rf"{OPENS}(?:example|sample|dummy|placeholder|default|generic|some|test) (?:text|summary|profile|description|"
    rf"string|"
    r"value|content|output|audience|theme)(?: (?:here|goes here))?\W*\Z",
    rf"{OPENS}(?:theme|item|tag|value|string|text|keyword|example|entry|element)[ _-]?(?:\d+|[a-c])\W*\Z",
)
"""Words that stand for nothing when they are all there is; one of them among others may be a theme."""

ERROR_TEXT = Pattern(
    rf"{OPENS}(?:error|exception|traceback|fatal|http)\b\s*(?:\d{{3}}\s*(?:[:.(–-]|\Z)|[:(\[])",
    rf"{OPENS}(?:(?:internal server|gateway|request|timeout|rate limit) (?:error|timed? ?out|exceeded)|too many "
    rf"requests|"
    r"service unavailable|bad gateway|unauthori[sz]ed)\b",
)

NESTED = Pattern(r"\A\s*\{\s*[\"'][^\"']{1,60}[\"']\s*:", r"\A\s*\[\s*[\"'].*\]\s*\Z")

SCHEMA_WORDS = Pattern(
    r"\b(?:minLength|maxLength|minItems|maxItems|additionalProperties)\b",
    r"\b(?:of|with|in|between|from|at least|at most|up to|max(?:imum)?) \d+(?: ?(?:to|and|-|–) ?\d+)? characters",
    r"\d ?(?:to|-|–|\.\.) ?\d+ characters",
    r"[\"']?type[\"']?\s*:\s*[\"']?(?:string|array|object)\b",
    r"\blist of (?:\d+ (?:to \d+ )?)?strings\b",
    r"<(?:string|text|str)>",
)

DELIMITERS = Pattern(
    r"</?\s*data\b|data id=|<\|[\w ]{2,30}\|>|\[/?INST\]|<</?SYS>>|</?s>|\bim_(?:start|end)\b",
)

_TOP_LEVELS = (
    r"(?:com|org|net|io|example|info|biz|co|dev|app|shop|site|online|xyz|ru|cn|de|uk|tk|ly|gg|me|test|invalid)"
)
LINT = (
    Wording("email", "an e-mail address", Pattern(r"[\w.+-]+\s?@\s?[\w-]+(?:\.[\w-]+)+", r"\bmailto:")),
    Wording(
        "url",
        "an address of the web",
        Pattern(
            r"\b(?:https?|hxxps?|ftp|file|wss?)\s?:\s?/\s?/",
            r"\b(?:data|javascript|vbscript):\S",
            r"\bwww\.\w",
            rf"\b[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)*\.{_TOP_LEVELS}(?=[/?#:]\S)",
            rf"\b[a-z0-9-]+(?:\.[a-z0-9-]+)+\.{_TOP_LEVELS}\b",
            r"\b[a-z0-9-]+\.example\b",
            r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?/",
            r"(?<![:/\w])//[a-z0-9-]+\.[a-z]",
            r"\[dot\]|\(dot\)",
        ),
    ),
    Wording(
        "markdown",
        "markdown",
        Pattern(
            r"!\[|\]\(|\]\[",
            r"(?:^|\n)\s*```",
            r"\*\*[^*\s][^*]*\*\*",
            r"(?:^|\n)\s{0,3}#{1,6}\s+\S",
            r"(?:^|\n)\s{0,3}(?:[-*+]|\d+[.)])\s+\S[^\n]*\n\s{0,3}(?:[-*+]|\d+[.)])\s+\S",
            r"(?:^|\n)\|.*\|",
            r"(?:^|\n)\[[^\]]+\]:\s",
        ),
    ),
    Wording(
        "phone",
        "a telephone number",
        Pattern(r"(?<![\w.])\+\d[\d\s().-]{7,}\d", r"(?<!\d)\(?[0-9]\d\d\)?[ .-]\d{3}[ .-]\d{4}(?!\d)"),
    ),
    Wording(
        "html",
        "markup",
        Pattern(
            r"</?[a-z!][^<>]{0,400}>",
            r"<[a-z]+\s[^<>]{0,200}=",
            r"&(?:#\d+|#x[0-9a-f]+|lt|gt|quot|amp|nbsp);",
        ),
    ),
    Wording(
        "template",
        "braces of a template",
        Pattern(r"\{\{|\}\}|\{%|%\}|\$\{|<%|%>|\{#|#\{", r"\{[a-z_]{2,30}\}"),
    ),
)

ESCAPES = Pattern(r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\[nrt](?![a-z])|\\[nrt][^\\]*\\[nrt]|\\\"")
BROKEN = Pattern(
    "\ufffd|(?:Ã[\u0080-\u00bf©®¨¼¶¤§‰ª«°±´µ·¸º»½¾¿ ]|â€[™œ\u009d“”˜¦\u0093\u0094]?|Â[ \u00a0£©®°]){1,}",
)

CONTENT = (
    Wording("refusal", "a refusal", REFUSAL),
    Wording("refusal", "a model talking about itself", AS_AN_AI),
    Wording("meta_talk", "talk about the task", META_TALK),
    Wording("obeyed", "words of an instruction from the data", OBEYED),
    Wording("leak", "something that is none of its business", LEAK),
    Wording("placeholder", "a placeholder", PLACEHOLDER),
    Wording("error_text", "the message of an error", ERROR_TEXT),
    Wording("nested_json", "JSON", NESTED),
    Wording("schema_echo", "the description of the schema", SCHEMA_WORDS),
    Wording("delimiter", "a delimiter of the prompt", DELIMITERS),
    *LINT,
    Wording("escapes", "escapes that were escaped again", ESCAPES),
    Wording("broken_text", "text decoded wrongly", BROKEN),
)
