"""Who answers and who embeds: language-model engines and text encoders, behind one protocol each."""

from providers.attributes import AttributesConfig
from providers.batch_book import BatchBook, BatchJournal
from providers.catalogue import EncoderConfig, EngineConfig, parse_encoder, parse_engine
from providers.completion import (
    NO_TEXT,
    Answer,
    Completion,
    Engine,
    FieldText,
    Journal,
    Message,
    OnProgress,
    Outcome,
    Progress,
    Request,
    request_key,
)
from providers.embedding_calls import OpenAIEncoder
from providers.encoding import Encoder, EncoderIdentity
from providers.envelope import stored_completion
from providers.errors import (
    BadModelFileError,
    BadSettingError,
    BadVectorError,
    BatchCancelledError,
    BatchesPendingError,
    BatchRefusedError,
    BudgetReachedError,
    CircuitOpenError,
    EmptyTextError,
    EncoderMemoryError,
    EngineStoppedError,
    HeldByBatchError,
    MissingCapError,
    MissingExtraError,
    MissingKeyError,
    ModelFileError,
    ModelNotFoundError,
    ProviderError,
    ResultsGoneError,
    StoppedEarlyError,
    UnansweredRequestsError,
    UnknownNameError,
    UnknownPriceError,
    UnsafeModelError,
    UnusableKeyError,
    WrongWidthError,
)
from providers.local import LocalConfig
from providers.model_names import other_models
from providers.openai_batch import OpenAIBatchConfig
from providers.openai_chat import OpenAIConfig
from providers.openai_embeddings import OpenAIEmbeddingsConfig
from providers.pacing import Limits
from providers.prices import Price, PriceOverride, price_of
from providers.request_file import RequestFileConfig, read_requests
from providers.sentence_encoder import SentenceEncoderConfig
from providers.spending import Cap, DayCap

__all__ = [
    "NO_TEXT",
    "Answer",
    "AttributesConfig",
    "BadModelFileError",
    "BadSettingError",
    "BadVectorError",
    "BatchBook",
    "BatchCancelledError",
    "BatchJournal",
    "BatchRefusedError",
    "BatchesPendingError",
    "BudgetReachedError",
    "Cap",
    "CircuitOpenError",
    "Completion",
    "DayCap",
    "EmptyTextError",
    "Encoder",
    "EncoderConfig",
    "EncoderIdentity",
    "EncoderMemoryError",
    "Engine",
    "EngineConfig",
    "EngineStoppedError",
    "FieldText",
    "HeldByBatchError",
    "Journal",
    "Limits",
    "LocalConfig",
    "Message",
    "MissingCapError",
    "MissingExtraError",
    "MissingKeyError",
    "ModelFileError",
    "ModelNotFoundError",
    "OnProgress",
    "OpenAIBatchConfig",
    "OpenAIConfig",
    "OpenAIEmbeddingsConfig",
    "OpenAIEncoder",
    "Outcome",
    "Price",
    "PriceOverride",
    "Progress",
    "ProviderError",
    "Request",
    "RequestFileConfig",
    "ResultsGoneError",
    "SentenceEncoderConfig",
    "StoppedEarlyError",
    "UnansweredRequestsError",
    "UnknownNameError",
    "UnknownPriceError",
    "UnsafeModelError",
    "UnusableKeyError",
    "WrongWidthError",
    "other_models",
    "parse_encoder",
    "parse_engine",
    "price_of",
    "read_requests",
    "request_key",
    "stored_completion",
]
