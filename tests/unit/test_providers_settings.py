"""Settings of engines and encoders: what is accepted, and how plainly the rest is refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import providers
from providers import (
    AttributesConfig,
    BadSettingError,
    MissingCapError,
    MissingKeyError,
    OpenAIConfig,
    ProviderError,
    SentenceEncoderConfig,
    UnknownNameError,
    UnknownPriceError,
    UnusableKeyError,
    parse_encoder,
    parse_engine,
    price_of,
)

OPENAI = {"name": "openai", "model": "gpt-4o-mini"}


def test_without_a_name_profiles_come_from_attributes_and_vectors_from_sentence_transformers():
    assert parse_engine({}) == AttributesConfig()
    assert parse_encoder({}) == SentenceEncoderConfig()


def test_an_unknown_engine_is_refused_with_the_known_names_and_the_closest():
    with pytest.raises(UnknownNameError) as refused:
        parse_engine({"name": "opnai"})
    assert str(refused.value) == (
        "unknown engine `opnai`; known: attributes, openai, openai-batch, local, file. Did you mean `openai`?"
    )
    assert refused.value.exit_code == 2 and isinstance(refused.value, LookupError)


@pytest.mark.parametrize("name", [None, 3, ["openai"], {}])
def test_a_name_that_is_no_text_is_refused_the_same_way(name):
    with pytest.raises(UnknownNameError, match="known: sentence-transformers"):
        parse_encoder({"name": name})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({**OPENAI, "modle": 1}, "engine `openai`: setting `modle`: unknown; known: name, .*Did you mean `model`"),
        ({"name": "openai"}, "setting `model`: missing"),
        ({**OPENAI, "cap": {"dollars": 3}}, "setting `cap.dollars`: unknown; known: usd, tokens, calls"),
        ({**OPENAI, "price": {"input": 3}}, r"setting `price\.\w+`: missing"),
        ({**OPENAI, "concurrency": 0}, r"setting `concurrency`: .*greater than 0 \(got 0\)"),
        ({**OPENAI, "api_key": "sk-x"}, "`api_key` is never read from settings"),
        ({**OPENAI, "base_url": "http://example.org/v1"}, "expected https, or http on this machine only"),
        ({**OPENAI, "base_url": "https://user:pw@example.org/v1"}, "without user, password"),
        ({**OPENAI, "base_url": "file:///etc/passwd"}, "expected an address such as https"),
        ({"name": "attributes", "model": "x"}, "engine `attributes`: setting `model`: unknown; known: name"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_path_and_its_cure(settings, sentence):
    with pytest.raises(BadSettingError, match=sentence) as refused:
        parse_engine(settings)
    assert "sk-x" not in str(refused.value) and "pw@" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:11434", "[::1]:9"])
def test_a_server_on_this_machine_costs_nothing_and_needs_no_cap_and_no_key(host, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    config = parse_engine({**OPENAI, "base_url": f"http://{host}/v1/"})
    assert not config.paid
    with config.open():
        assert (config.source, config.paid) == ("gpt-4o-mini", False)


@pytest.mark.parametrize("host", ["127.0.0.1.example.org", "localhost.example.org", "10.0.0.1", "0.0.0.0"])
def test_other_machines_are_not_taken_for_this_one(host):
    with pytest.raises(BadSettingError, match="http on this machine only"):
        parse_engine({**OPENAI, "base_url": f"http://{host}/v1"})
    assert parse_engine({**OPENAI, "base_url": f"https://{host}/v1"}).paid


def test_a_paid_engine_without_a_cap_refuses_to_start_and_says_what_to_write():
    with pytest.raises(MissingCapError, match=r"\[profiles.engine.cap\].*usd = "):
        parse_engine(OPENAI).open()


def test_a_cap_in_usd_needs_a_price():
    with pytest.raises(UnknownPriceError, match=r"price = \{ input_usd_per_million"):
        parse_engine({**OPENAI, "model": "some-model", "cap": {"usd": 1}}).open()


def test_a_paid_engine_needs_a_key_in_the_variable_it_names(monkeypatch):
    monkeypatch.delenv("OTHER_KEY", raising=False)
    config = parse_engine({**OPENAI, "cap": {"calls": 1}, "api_key_env": "OTHER_KEY"})
    with pytest.raises(MissingKeyError, match="OTHER_KEY"):
        config.open()
    monkeypatch.setenv("OTHER_KEY", "sk-one\nsk-two")
    with pytest.raises(UnusableKeyError) as refused:
        config.open()
    assert "sk-" not in str(refused.value) + repr(refused.value)


def test_speed_caps_and_addresses_are_no_part_of_an_engines_identity():
    slow = parse_engine(OPENAI)
    fast = parse_engine({**OPENAI, "concurrency": 99, "deadline_s": 5, "cap": {"calls": 1}, "base_url": "https://b/v1"})
    assert slow.identity() == fast.identity()
    assert slow.identity() != parse_engine({**OPENAI, "temperature": 0.9}).identity()


def test_an_unknown_price_is_unknown_and_never_zero():
    assert price_of("a-model-of-tomorrow") is None
    assert price_of("gpt-4o-2025-typo") is None
    listed, dated = price_of("gpt-4o"), price_of("gpt-4o-2024-11-20")
    assert listed is not None and dated == listed and listed.cost(1_000_000, 0) == listed.input_usd_per_million
    assert OpenAIConfig(model="gpt-4o", base_url="http://localhost/v1").known_price() is None


def test_the_users_price_wins():
    config = parse_engine({**OPENAI, "price": {"input_usd_per_million": 7, "output_usd_per_million": 9}})
    assert isinstance(config, OpenAIConfig)
    price = config.known_price()
    assert price is not None and price.cost(1_000_000, 1_000_000) == 16 and price.as_of == "settings"


def test_every_error_survives_pickling_and_speaks_a_sentence():
    facts = {
        UnknownNameError: ("engine", "x", ("a", "b")),
        BadSettingError: ("engine `x`", "a.b", "wrong", ("c",)),
        MissingCapError: ("m", "https://h/v1"),
        UnknownPriceError: ("m", ("a",)),
        MissingKeyError: ("V", "https://h/v1"),
        UnusableKeyError: ("V",),
        providers.BudgetReachedError: ("usd", 5.0, 4.9, 10),
        providers.EngineStoppedError: ("m", 401, "no", 3),
        providers.CircuitOpenError: ("m", 20, "http_400: no", 25),
        providers.ModelNotFoundError: ("m", ("here", "there")),
        providers.UnsafeModelError: ("/d", "x.py", "code"),
        providers.ModelFileError: ("/d/f", "sha256 a", "sha256 b"),
        providers.EmptyTextError: (3,),
        providers.BatchRefusedError: ("batch_1", 10, (("code", "why"),)),
        providers.BatchCancelledError: ("batch_1", 3),
        providers.BatchesPendingError: (2, 100, 60.0),
        providers.HeldByBatchError: ("m", 10, ("batch_1", "batch_2", "batch_3", "batch_4")),
        providers.ResultsGoneError: (10, ("a",)),
        providers.UnansweredRequestsError: ("m", 3, Path("requests.jsonl"), Path("results.jsonl"), 1),
        providers.BadModelFileError: (Path("m.gguf"), "no such file"),
        providers.MissingExtraError: ("xllamacpp", "local-llm"),
        providers.BadVectorError: ("e", (1, 2)),
        providers.EncoderMemoryError: ("e", "cuda", 512),
        providers.WrongWidthError: ("m", 8, "got 9"),
    }
    exported = {value for value in vars(providers).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert exported - {ProviderError, providers.StoppedEarlyError} == set(facts)
    for error_class, arguments in facts.items():
        error = error_class(*arguments)
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert str(again) == str(error) and len(str(error)) > 30
        assert vars(again) == vars(error)
        assert isinstance(error_class.__new__(error_class), error_class), "so Dask makes an error again"
        assert error.exit_code in {1, 2, 4, 6}


def test_importing_providers_loads_nothing_heavy():
    heavy = "{'torch', 'numpy', 'openai', 'httpx2', 'sentence_transformers', 'transformers', 'huggingface_hub'}"
    code = f"import sys, providers; providers.parse_encoder({{}}); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
