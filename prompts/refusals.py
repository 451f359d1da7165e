"""Refusals in many languages, and models that talk about themselves."""

from __future__ import annotations

from prompts.patterns import OPENS, Pattern

_CANNOT = r"(?:can ?not|can[’']?t|could ?n[’']?o?t|am (?:not able|unable)|[’']m (?:not able|unable)|won[’']t|will not)"
_DO = (
    r"(?:help|assist|provide|write|create|generate|describe|comply|fulfil|answer|complete|do (?:that|this)|produce|"
    r"continue|share|discuss|make|give|offer|summari[sz]e|process|engage|respond)"
)
_MACHINE = (
    r"(?:ai|a\.i\.|artificial intelligence|(?:large )?language model|llm|chatbot|(?:ai|virtual|digital) assistant)"
)

REFUSAL = Pattern(
    # an apology and what cannot be done, first thing
    rf"{OPENS}(?:(?:i[’']?m|i am|we are|we[’']re)\s+(?:\w+\s+)?(?:sorry|afraid)|sorry|my apologies|i apologi[sz]e|"
    rf"unfortunately|regrettably)\b[^.!?]{{0,90}}?\b(?:(?:{_CANNOT}|can[’']?t|not able|unable)\b[^.!?]{{0,30}}?\b"
    rf"{_DO}\b|"
    r"against|not (?:allowed|permitted|possible)|no (?:information|data))",
    rf"{OPENS}(?:i[’']?m|i am)\s+(?:\w+\s+)?sorry\b\s*[.!;]",
    rf"{OPENS}(?:no,?\s+)?(?:i|we)\s*{_CANNOT}\s+(?:\w+\s+){{0,3}}{_DO}\b",
    rf"{OPENS}(?:i|we)\s+(?:must|have to|need to|respectfully)\s+(?:\w+\s+)?(?:decline|refuse)",
    rf"{OPENS}(?:i[’']d|i would)\s+rather\s+not\b",
    rf"{OPENS}(?:this|the|your)\s+(?:request|content|task|prompt)\b[^.!?]{{0,60}}\b(?:violat|cannot be|can[’']?t be|"
    r"against|not permitted|not allowed)",
    r"\b(?:i|we) (?:can ?not|can[’']?t|am (?:unable|not able) to)\s+(?:help|assist|comply|continue|fulfil|proceed)\b",
    r"\bit (?:would not|wouldn[’']t|is not|isn[’']t) (?:be )?(?:appropriate|possible|ethical|right) for me to\b",
    rf"{OPENS}(?:while|although|though) i (?:understand|appreciate|can see|see)\b",
    r"\bthis (?:request|content|task) violates\b|\bagainst (?:my|our|the) (?:content |usage )?(?:guidelines|polic)",
    # German, French, Spanish, Portuguese, Italian, Dutch
    rf"{OPENS}(?:(?:es )?tut mir (?:sehr |wirklich )?leid|leider|entschuldigung|ich bedaure)\b[^.!?]{{0,90}}\b"
    r"(?:kann|darf|nicht|möglich)",
    rf"{OPENS}ich (?:kann|darf|werde)\b[^.!?]{{0,60}}\bnicht\b[^.!?]{{0,40}}\b(?:helfen|erstellen|schreiben|"
    r"beantworten|erfüllen|beschreiben|unterstützen|nachkommen|liefern|verfassen)",
    rf"{OPENS}(?:je suis (?:vraiment )?désolée?|désolée?|malheureusement|je regrette)\b[^.!?]{{0,90}}\b(?:ne|peux|"
    rf"pas)",
    rf"{OPENS}je ne (?:peux|puis|suis)\b[^.!?]{{0,20}}\b(?:pas|en mesure)?",
    rf"{OPENS}(?:lo siento|lo lamento|perdón|disculpa|lamentablemente|desafortunadamente)\b[^.!?]{{0,90}}\bno\b",
    rf"{OPENS}no puedo\b[^.!?]{{0,30}}\b(?:ayudar|crear|escribir|proporcionar|cumplir|describir|generar|responder)",
    rf"{OPENS}(?:(?:sinto|lamento)(?: muito)?|desculpe|desculpa|infelizmente)\b[^.!?]{{0,90}}\bnão\b",
    rf"{OPENS}não posso\b",
    rf"{OPENS}(?:mi dispiace|mi spiace|spiacente|purtroppo)\b[^.!?]{{0,90}}\bnon\b",
    rf"{OPENS}non posso\b[^.!?]{{0,30}}\b(?:aiutar|creare|scrivere|fornire|descrivere|soddisfare|rispondere)",
    rf"{OPENS}(?:het spijt me|sorry|helaas)\b[^.!?]{{0,90}}\b(?:niet|geen)\b",
    rf"{OPENS}ik kan\b[^.!?]{{0,40}}\b(?:niet|geen)\b",
    # Polish, Czech, Swedish, Danish, Norwegian, Finnish, Turkish, Romanian, Hungarian, Indonesian, Vietnamese
    rf"{OPENS}(?:przykro mi|przepraszam|niestety)\b[^.!?]{{0,90}}\bnie\b",
    rf"{OPENS}(?:omlouvám se|je mi líto|bohužel)\b[^.!?]{{0,90}}\b(?:ne\w+)",
    rf"{OPENS}(?:jag är ledsen|tyvärr|förlåt|beklager|jeg beklager|desværre|dessverre|undskyld)\b[^.!?]{{0,90}}\b"
    r"(?:inte|ikke)\b",
    rf"{OPENS}(?:valitettavasti|pahoittelen|olen pahoillani)\b[^.!?]{{0,90}}\b(?:en|ei)\b",
    rf"{OPENS}(?:üzgünüm|özür dilerim|maalesef|ne yazık ki)\b",
    rf"{OPENS}(?:îmi pare rău|din păcate)\b[^.!?]{{0,90}}\bnu\b",
    rf"{OPENS}(?:sajnálom|sajnos|elnézést)\b[^.!?]{{0,90}}\bnem\b",
    rf"{OPENS}(?:maaf|mohon maaf)\b[^.!?]{{0,90}}\btidak\b",
    rf"{OPENS}(?:xin lỗi|rất tiếc|tôi rất tiếc)\b[^.!?]{{0,90}}\bkhông\b",
    # Russian, Ukrainian, Greek, Arabic, Hebrew, Hindi, Chinese, Japanese, Korean, Thai
    rf"{OPENS}(?:извините|простите|к сожалению|прошу прощения|мне жаль)[^.!?]{{0,90}}\bне\b",
    rf"{OPENS}я не (?:могу|в состоянии|буду)\b",
    rf"{OPENS}(?:вибачте|на жаль|перепрошую)[^.!?]{{0,90}}\bне\b",
    rf"{OPENS}(?:λυπάμαι|συγγνώμη|δυστυχώς)[^.!?]{{0,90}}\bδεν\b",
    rf"{OPENS}(?:عذر|آسف|أعتذر|للأسف|لا يمكنني|لا أستطيع)",
    rf"{OPENS}(?:מצטער|סליחה|לצערי|אני לא יכול|איני יכול|אינני יכול)",
    rf"{OPENS}(?:क्षमा करें|माफ़ करें|माफ करें|मुझे खेद है|मैं क्षमा)",
    rf"{OPENS}(?:非常)?(?:抱歉|对不起|對不起|很抱歉|很遗憾|不好意思)",
    rf"{OPENS}我(?:无法|無法|不能|不可以)",
    rf"{OPENS}(?:大変|誠に)?(?:申し訳|恐れ入りますが|すみません|ごめんなさい)",
    r"(?:お手伝い|お答え|対応|提供)(?:する)?(?:こと)?(?:は|が)?(?:でき(?:ません|かねます)|いたしかねます)",
    rf"{OPENS}(?:대단히 )?(?:죄송|미안|유감)",
    rf"{OPENS}(?:ขออภัย|ขอโทษ|เสียใจ)",
    # what is missing, told to whoever asked
    rf"{OPENS}(?:i|we) (?:do not|don[’']t) have (?:\w+ ){{0,2}}(?:enough |sufficient |any )?(?:information|access|"
    rf"data|"
    r"details|context)",
    rf"{OPENS}(?:(?:there is|there[’']s) )?(?:not enough|insufficient|no) (?:\w+ )?(?:information|data|details?|"
    rf"context)\s*"
    r"(?:[.!,;:]|\Z|(?:is |was |were )?(?:provided|given|available|supplied|in the (?:data|block|prompt))|about "
    r"(?:this|the) "
    r"(?:item|user|person|product)|(?:for me )?to (?:\w+ )?(?:write|create|describe|provide|say|generate|determine|"
    r"infer))",
    rf"{OPENS}(?:please|could you(?: please)?|can you(?: please)?) (?:provide|supply|share|give|clarify|tell)\b",
    rf"{OPENS}i (?:would )?need more (?:information|details|context)",
)

AS_AN_AI = Pattern(
    rf"\bas an? (?:[\w-]+ ){{0,3}}{_MACHINE}\b(?:\s*(?:,|\Z)|[^.!?]{{0,40}}?\b(?:i|my)\b)",
    rf"\b(?:i[’']?m|i am) (?:just |only |merely |simply )?an? (?:[\w-]+ ){{0,3}}(?:{_MACHINE}|helpful assistant)\b",
    r"\b(?:als|als eine?) (?:ki|künstliche intelligenz|(?:ki-)?sprachmodell|(?:großes )?sprachmodell)\b"
    r"[^.!?]{0,30}\bich\b"
    r"|\bals (?:ki|sprachmodell|ki-sprachmodell|künstliche intelligenz)\b[^.!?]{0,20}\b(?:kann|habe|bin|darf)\b",
    r"\ben tant qu[’'](?:ia|intelligence artificielle|assistant|modèle)|\ben tant que modèle",
    r"\bcomo (?:una? )?(?:ia\b|inteligencia artificial|modelo de lengua(?:je)?|intelig[eê]ncia artificial|modelo de "
    r"linguagem)",
    r"\b(?:come|in quanto) (?:un[’']?\s?|una )?(?:ia\b|intelligenza artificiale|modello linguistico)",
    r"\bals (?:een )?(?:ai|taalmodel|ai-taalmodel)\b[^.!?]{0,20}\b(?:ik|kan|heb|ben)\b",
    r"\bjako (?:model językowy|sztuczna inteligencja|ai\b)",
    r"\b(?:как|являясь) (?:искусственный интеллект|языковая модель|ии\b|языковой моделью)|\bя (?:всего лишь "
    r")?языковая модель",
    r"作为(?:一个|一名)?(?:ai|人工智能|大?语言模型)|作為(?:一個)?(?:ai|人工智慧|語言模型)|我(?:只)?是(?:一个|一個)?(?:ai|人工智能|大?语言模型)",
    r"(?:ai|人工知能|言語モデル)(?:アシスタント|モデル|言語モデル)?(?:として|なので|ですので|であるため)",
    r"(?:ai|인공지능|언어 모델)(?:로서|이기 때문에|으로서)",
    r"\bbir (?:yapay zek[aâ]|dil modeli)\w*\b",
    r"\b(?:my|mein) (?:training data|knowledge cut-?off|programming)\b|\bi was trained (?:by|on)\b",
)
