"""Which language a text is in, as far as scripts and the commonest little words tell."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from prompts.errors import ReplyError

_WORD = re.compile(r"[^\W\d_]+", re.UNICODE)
_MIN_WORDS = 8

# Little words that make up a quarter of any text and are hardly shared between these languages.
_LITTLE_WORDS = {
    "en": "the and of to who with for is are that this from their they it as by or but not about which into at be has",
    "de": "der die das und ist nicht ein eine einen für mit sich auf dem den des wer zu von im oder auch wird sind aus",
    "fr": "le les des est et une dans pour qui que pas sur avec du au aux ce cette ou ses leur sont aiment ceux",
    "es": "el los las una que por con para del como más pero sus esta este al quienes se lo y es son gusta",
    "it": "il gli che una per con del della dei delle non sono chi anche nel alla più ama come suo è e le",
    "pt": "o os uma que por com para do da dos das não são quem mais seu sua em ao como gosta é um",
    "nl": "het een van en met voor niet die dat zijn wie op te aan ook uit naar maar bij om houdt",
    "pl": "i w na z się nie jest dla do że który która oraz jak ale lub to przez od po",
    "sv": "och att det som en för med är på inte av den till eller men om sig från",
    "tr": "ve bir bu için ile çok olan gibi daha ama ya da en her seven",
}
_LANGUAGES_OF = {
    word: tuple(language for language, little in _LITTLE_WORDS.items() if word in little.split())
    for words in _LITTLE_WORDS.values()
    for word in words.split()
}
_OF_SCRIPT = {
    "ru": "CYRILLIC", "uk": "CYRILLIC", "bg": "CYRILLIC", "el": "GREEK", "ar": "ARABIC", "fa": "ARABIC", "he": "HEBREW",
    "hi": "DEVANAGARI", "th": "THAI", "ko": "HANGUL", "zh": "CJK", "ja": "CJK HIRAGANA KATAKANA",
}  # fmt: skip


def refuse_language(text: str, language: str) -> None:
    """Returns unless the text is clearly in another language; short texts and unknown languages pass.

    Raises:
        ReplyError: wrong_language.
    """
    wanted = tuple(_OF_SCRIPT.get(language, "LATIN").split())
    letters = Counter(filter(str.isalpha, text))
    if letters.total() >= 12:
        at_home = sum(n for char, n in letters.items() if unicodedata.name(char, "").startswith(wanted))
        if at_home < 0.5 * letters.total():
            away = letters.total() - at_home
            raise ReplyError("wrong_language", f"{away} of {letters.total()} letters are not {language}")
    words = list(map(str.casefold, _WORD.findall(text)))
    if language not in _LITTLE_WORDS or len(words) < _MIN_WORDS:
        return
    votes = Counter(name for word in words for name in _LANGUAGES_OF.get(word, ()))
    other = max((name for name in _LITTLE_WORDS if name != language), key=votes.__getitem__)
    if votes[other] >= 3 and votes[other] > 2 * votes[language]:
        raise ReplyError("wrong_language", f"it reads like {other}, expected {language}")
