"""Model directories: booby traps are refused before anything of them is imported, plain ones are hashed whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from providers import ModelFileError, ModelNotFoundError, SentenceEncoderConfig, UnsafeModelError
from providers.model_directory import PACKAGED, check_model_directory, check_pinned, find_model, hash_model

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory with the files of a plain model, whose weights are never read here."""
    directory = tmp_path / "my-encoder_v2"
    (directory / "1_Pooling").mkdir(parents=True)
    write(directory, "modules.json", MODULES)
    write(directory, "config.json", {"model_type": "bert", "hidden_size": 12})
    write(directory, "1_Pooling/config.json", {"word_embedding_dimension": 12, "pooling_mode_mean_tokens": True})
    write(directory, "tokenizer.json", {"model": {"vocab": {"auto_map": 1, "trust_remote_code": 2}}})
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "README.md").write_text("about")
    (directory / ".gitattributes").write_text("*.bin lfs")
    return directory


def write(directory: Path, name: str, content: Any) -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_plain_model_passes_even_when_its_vocabulary_knows_dangerous_words(model):
    check_model_directory(model)


TRAPS: dict[str, tuple[str, Any, str]] = {
    "code beside the weights": ("modeling_evil.py", "raise SystemExit", "modeling_evil.py"),
    "code in a folder": ("1_Pooling/pooling.py", "raise SystemExit", "1_Pooling/pooling.py"),
    "compiled code": ("fast.so", "x", "fast.so"),
    "a pickle of weights": ("pytorch_model.bin", "x", "pytorch_model.bin"),
    "a file of no kind": ("run", "x", "run"),
    "a hook into code": ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
    "a hook deep inside": ("tokenizer_config.json", {"a": [{"auto_map": {}}]}, "auto_map"),
    "a hook in a folder": ("1_Pooling/config.json", {"x": {"trust_remote_code": True}}, "trust_remote_code"),
    "a module from elsewhere": ("modules.json", [{"path": "", "type": "evil.Model"}], "evil.Model"),
    "a module by a trick": ("modules.json", [{"path": "", "type": "sentence_transformers.x;evil"}], "outside"),
    "a module that looks alike": ("modules.json", [{"path": "", "type": "sentence_transformers_evil.M"}], "outside"),
    "a path out of the directory": ("modules.json", [{**MODULES[0], "path": "../other"}], "leaves the directory"),
    "an absolute path": ("modules.json", [{**MODULES[0], "path": "/etc"}], "leaves the directory"),
    "no modules": ("modules.json", [], "not declared"),
    "modules that are no list": ("modules.json", {"type": "x"}, "not declared"),
    "an attention from the hub": ("config.json", {"attn_implementation": "some-one/kernel"}, "download a kernel"),
    "an attention by its inner name": ("config.json", {"_attn_implementation_internal": "x"}, "points to code"),
    "an activation from elsewhere": ("2_Dense/config.json", {"activation_function": "os.abort"}, "outside torch.nn"),
    "broken JSON": ("config.json", "{", "not JSON"),
    "JSON nested without end": ("config.json", "[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.replace(" ", "_"))
def test_a_booby_trap_is_refused_by_name_before_anything_is_imported(trap, model):
    name, content, named = TRAPS[trap]
    write(model, name, content)
    with pytest.raises(UnsafeModelError, match="is refused because of") as refused:
        SentenceEncoderConfig(model=str(model)).open()
    assert named in str(refused.value) and refused.value.exit_code == 2


def test_refusing_a_directory_imports_neither_its_code_nor_torch(model, tmp_path):
    touched = tmp_path / "touched"
    write(model, "modeling_evil.py", f"open({str(touched)!r}, 'w')")
    write(model, "config.json", {"auto_map": {"AutoModel": "modeling_evil.Model"}})
    code = (
        "import sys, providers\n"
        f"try: providers.parse_encoder({{'model': {str(model)!r}}}).open()\n"
        "except providers.UnsafeModelError: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False" and not touched.exists()


def test_a_pipe_or_a_dangling_link_is_no_model_file(model):
    os.mkfifo(model / "weights.safetensors")
    with pytest.raises(UnsafeModelError, match="not a regular file"):
        check_model_directory(model)
    (model / "weights.safetensors").unlink()
    (model / "extra.json").symlink_to("nowhere.json")
    with pytest.raises(UnsafeModelError, match="not a regular file"):
        check_model_directory(model)


def test_a_linked_folder_is_not_walked_past(model, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (model / "2_More").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeModelError, match="2_More"):
        check_model_directory(model)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "1_Pooling/config.json", "modules.json"])
def test_T_E3_touching_one_byte_of_a_model_file_changes_the_key(file, model):
    config = SentenceEncoderConfig(model=str(model))
    before = config.identity()
    (model / file).write_bytes((model / file).read_bytes() + b"\n")
    assert config.identity() != before


def test_documentation_and_place_are_no_part_of_the_key_and_dtype_and_limit_are(model, tmp_path):
    config = SentenceEncoderConfig(model=str(model))
    before = config.identity()
    (model / "README.md").write_text("more about")
    moved = model.rename(tmp_path / "elsewhere")
    key = SentenceEncoderConfig(model=str(moved)).identity()
    assert key == before
    assert SentenceEncoderConfig(model=str(moved), dtype="float32", batch_size=3, device="cpu").identity() == key
    changes: list[dict[str, Any]] = [{"dtype": "bfloat16"}, {"max_tokens": 64}]
    others = {SentenceEncoderConfig(model=str(moved), **change).identity() for change in changes}
    assert len(others | {key}) == 3


def test_the_directory_tells_the_width_and_the_name(model):
    identity = SentenceEncoderConfig(model=str(model)).describe()
    assert (identity.dim, identity.short_name, identity.dtype) == (12, "my_encoder_v2", "float32")


@pytest.mark.parametrize(
    ("model", "short"),
    [
        ("all-MiniLM-L6-v2", "all_minilm_l6_v2"),
        ("intfloat/e5-small", "e5_small"),
        ("/models/3d.model/", "m_3d_model"),
        ("ü" * 9, "model"),
        ("x" * 300, "x" * 48),
    ],
)
def test_short_names_are_identifiers(model, short):
    assert SentenceEncoderConfig(model=model).short_name == short


def test_a_pinned_model_that_differs_is_not_trusted(tmp_path):
    good = dict(PACKAGED["all-MiniLM-L6-v2"][2])
    check_pinned("all-MiniLM-L6-v2", tmp_path, good)
    check_pinned("some-other-model", tmp_path, {})
    with pytest.raises(ModelFileError, match=r"model\.safetensors cannot be trusted") as refused:
        check_pinned("all-MiniLM-L6-v2", tmp_path, good | {"model.safetensors": "0" * 64})
    assert refused.value.exit_code == 6


def test_a_model_that_is_nowhere_is_named_with_every_place_tried(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match=r"tried directory .*cache of the hub") as refused:
        find_model("semalign-tests/no-such-model", download=False)
    assert refused.value.exit_code == 2
    for name in ("../no/such/place", "~nobody-here/model", "x" * 5000, "a\0b"):
        with pytest.raises(ModelNotFoundError, match="tried directory"):
            find_model(name, download=False)


def test_hashes_name_every_file_that_can_change_a_vector(model):
    assert set(hash_model(model)) == {
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "modules.json",
        "tokenizer.json",
    }
