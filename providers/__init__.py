"""Who answers and who embeds: language-model engines and text encoders, behind one protocol each."""

from providers.attributes import AttributesConfig
from providers.catalogue import EncoderConfig, EngineConfig, parse_encoder, parse_engine
from providers.completion import (
    NO_TEXT,
    Answer,
    Completion,
    Engine,
    FieldText,
    Journal,
    Message,
    Outcome,
    Progress,
    Request,
    request_key,
)
from providers.encoding import Encoder, EncoderIdentity
from providers.errors import (
    BadSettingError,
    BadVectorError,
    BudgetReachedError,
    CircuitOpenError,
    EmptyTextError,
    EngineStoppedError,
    MissingCapError,
    MissingKeyError,
    ModelFileError,
    ModelNotFoundError,
    ProviderError,
    StoppedEarlyError,
    UnknownNameError,
    UnknownPriceError,
    UnsafeModelError,
    UnusableKeyError,
)
from providers.openai_chat import OpenAIConfig
from providers.pacing import Limits
from providers.prices import Price, PriceOverride, price_of
from providers.sentence_encoder import SentenceEncoderConfig
from providers.spending import Cap, DayCap

__all__ = [
    "NO_TEXT",
    "Answer",
    "AttributesConfig",
    "BadSettingError",
    "BadVectorError",
    "BudgetReachedError",
    "Cap",
    "CircuitOpenError",
    "Completion",
    "DayCap",
    "EmptyTextError",
    "Encoder",
    "EncoderConfig",
    "EncoderIdentity",
    "Engine",
    "EngineConfig",
    "EngineStoppedError",
    "FieldText",
    "Journal",
    "Limits",
    "Message",
    "MissingCapError",
    "MissingKeyError",
    "ModelFileError",
    "ModelNotFoundError",
    "OpenAIConfig",
    "Outcome",
    "Price",
    "PriceOverride",
    "Progress",
    "ProviderError",
    "Request",
    "SentenceEncoderConfig",
    "StoppedEarlyError",
    "UnknownNameError",
    "UnknownPriceError",
    "UnsafeModelError",
    "UnusableKeyError",
    "parse_encoder",
    "parse_engine",
    "price_of",
    "request_key",
]
