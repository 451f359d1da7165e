"""A real llama.cpp server in process: random weights, real protocol, real grammar-constrained replies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WIDTH, HEADS, FEED_FORWARD, LAYERS, CONTEXT = 64, 4, 128, 2, 4096
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def write_random_gguf(path: Path, seed: int = 0) -> Path:
    """A llama of two layers with random weights and one token a byte."""
    import gguf
    import numpy as np

    tokens = _byte_tokens()
    specials = ["<s>", "</s>"]
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens) + len(specials))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens + specials)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.CONTROL] * len(specials))
    writer.add_token_merges(["t h", "h e"])
    writer.add_bos_token_id(len(tokens))
    writer.add_eos_token_id(len(tokens) + 1)
    writer.add_chat_template(CHAT)

    def random(name: str, *shape: int) -> None:
        writer.add_tensor(name, rng.normal(0, 0.05, shape).astype(np.float32))

    random("token_embd.weight", len(tokens) + len(specials), WIDTH)
    random("output.weight", len(tokens) + len(specials), WIDTH)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            random(f"blk.{layer}.{part}.weight", WIDTH, WIDTH)
        random(f"blk.{layer}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        random(f"blk.{layer}.ffn_up.weight", FEED_FORWARD, WIDTH)
        random(f"blk.{layer}.ffn_down.weight", WIDTH, FEED_FORWARD)
        for part in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{part}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@contextmanager
def llama_server(directory: Path, *, embedding: bool = False) -> Iterator[str]:
    """The base_url of a running llama.cpp server; it ends with the block. `embedding` makes vectors its only trade."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(write_random_gguf(directory / "random.gguf"))
    parameters.n_ctx = CONTEXT * 2
    parameters.n_parallel = 2
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    if embedding:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    server = xllamacpp.Server(parameters)
    yield f"{server.listening_address}/v1"
    del server


def _byte_tokens() -> list[str]:
    """The 256 printable stand-ins of a byte-level vocabulary, and the two merges' results."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_ins = {byte: chr(byte) for byte in printable}
    for number, byte in enumerate(byte for byte in range(256) if byte not in stand_ins):
        stand_ins[byte] = chr(256 + number)
    return [stand_ins[byte] for byte in range(256)] + ["th", "he"]
