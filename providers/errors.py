"""Everything `providers` can refuse, each with its facts and its cure."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path


class ProviderError(Exception):
    """Base of all errors of this package; `exit_code` is what the command line leaves with."""

    exit_code = 1


class UnknownNameError(ProviderError, LookupError):
    """A provider or encoder nobody wrote."""

    exit_code = 2

    def __init__(self, what: str, name: object, known: tuple[str, ...]) -> None:
        super().__init__(what, name, known)
        self.what, self.name, self.known = what, name, known

    def __str__(self) -> str:
        close = get_close_matches(str(self.name), self.known, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        return f"unknown {self.what} `{self.name}`; known: {', '.join(self.known)}.{hint}"


class BadSettingError(ProviderError, ValueError):
    """A setting of a known provider that is misspelt, missing or out of range."""

    exit_code = 2

    def __init__(self, what: str, path: str, problem: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(what, path, problem, known)
        self.what, self.path, self.problem, self.known = what, path, problem, known

    def __str__(self) -> str:
        close = get_close_matches(self.path.rsplit(".", 1)[-1], self.known, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        known = f"; known: {', '.join(self.known)}." if self.known else ""
        return f"{self.what}: setting `{self.path}`: {self.problem}{known}{hint}"


class MissingCapError(ProviderError, ValueError):
    """A paid engine that was given no limit."""

    exit_code = 2

    def __init__(self, model: str, base_url: str, section: str = "profiles.engine") -> None:
        super().__init__(model, base_url, section)
        self.model, self.base_url, self.section = model, base_url, section

    def __str__(self) -> str:
        return (
            f"{self.model} at {self.base_url} may cost money and has no cap; nothing was sent. Write under"
            f" [{self.section}.cap] one of: usd = 5.0 | tokens = 2_000_000 | calls = 5_000"
        )


class UnknownPriceError(ProviderError, LookupError):
    """A cap in USD for a model whose price nobody wrote down."""

    exit_code = 2

    def __init__(self, model: str, known: tuple[str, ...], section: str = "profiles.engine") -> None:
        super().__init__(model, known, section)
        self.model, self.known, self.section = model, known, section

    def __str__(self) -> str:
        return (
            f"a cap in USD needs a price, and none is known for `{self.model}` (known: {', '.join(self.known)})."
            f" Write {self.section}.price = {{ input_usd_per_million = …, output_usd_per_million = … }},"
            " or cap tokens or calls instead"
        )


class MissingKeyError(ProviderError, LookupError):
    """A server away from this machine, and no key for it in the environment."""

    exit_code = 2

    def __init__(self, variable: str, base_url: str, section: str = "profiles.engine") -> None:
        super().__init__(variable, base_url, section)
        self.variable, self.base_url, self.section = variable, base_url, section

    def __str__(self) -> str:
        return (
            f"no key for {self.base_url}: the environment variable {self.variable} is empty. Set it in the environment"
            f" (keys are never read from settings files), or name another variable in {self.section}.api_key_env"
        )


class UnusableKeyError(ProviderError, ValueError):
    """A key that cannot travel in an HTTP header; the key itself is never shown."""

    exit_code = 2

    def __init__(self, variable: str) -> None:
        super().__init__(variable)
        self.variable = variable

    def __str__(self) -> str:
        return (
            f"the key in the environment variable {self.variable} holds characters no HTTP header can carry"
            " (a line break, a space, or a letter outside ASCII); set it again without them"
        )


class StoppedEarlyError(ProviderError, RuntimeError):
    """What ends a pass before its last request; every reply received is kept and nothing answered is asked twice."""

    exit_code = 4


class BudgetReachedError(StoppedEarlyError):
    """The cap was reached: what was answered is kept, the rest was not asked.

    Args:
        limit: "usd", "tokens" or "calls", with "day." before it where the cap is one of the day.
    """

    def __init__(self, limit: str, cap: float, committed: float, asked: int, section: str = "profiles.engine") -> None:
        super().__init__(limit, cap, committed, asked, section)
        self.limit, self.cap, self.committed, self.asked, self.section = limit, cap, committed, asked, section

    def __str__(self) -> str:
        scope, _, unit = self.limit.rpartition(".")
        today = " today" if scope else ""
        wait = ", or wait for the next day of UTC," if scope else ""
        return (
            f"the cap of {self.cap:g} {unit}{' a day' if scope else ''} would be passed by the next call (committed so"
            f" far{today}: {self.committed:g} {unit}; {self.asked} calls in this run). Every reply received is kept;"
            f" raise {self.section}.cap.{self.limit}{wait} and run again: only what is missing will be asked"
        )


class EngineStoppedError(StoppedEarlyError):
    """The server refuses every further call: key, quota, model or address."""

    def __init__(self, model: str, status: int, detail: str, asked: int, section: str = "profiles.engine") -> None:
        super().__init__(model, status, detail, asked, section)
        self.model, self.status, self.detail, self.asked, self.section = model, status, detail, asked, section

    def __str__(self) -> str:
        return (
            f"the server refuses to answer for `{self.model}` (HTTP {self.status}: {self.detail}) after {self.asked}"
            f" calls. Check the key, the quota, {self.section}.model and base_url, then run again: nothing answered"
            " is asked twice"
        )


class CircuitOpenError(StoppedEarlyError):
    """Row after row was given up, so the next ones would be as well."""

    def __init__(self, model: str, n_rows: int, detail: str, asked: int, section: str = "profiles.engine") -> None:
        super().__init__(model, n_rows, detail, asked, section)
        self.model, self.n_rows, self.detail, self.asked, self.section = model, n_rows, detail, asked, section

    def __str__(self) -> str:
        return (
            f"{self.n_rows} requests in a row to `{self.model}` were given up after {self.asked} calls, the last for"
            f" {self.detail}. Check that the server is up and takes such requests ({self.section}), then run again:"
            " nothing answered is asked twice"
        )


class BatchRefusedError(StoppedEarlyError):
    """The server took the file and refused it as a batch; nothing of it was answered or charged."""

    def __init__(self, batch_id: str, n_requests: int, errors: tuple[tuple[str, str], ...]) -> None:
        super().__init__(batch_id, n_requests, errors)
        self.batch_id, self.n_requests, self.errors = batch_id, n_requests, errors

    def __str__(self) -> str:
        said = "; ".join(f"{code}: {message}" for code, message in self.errors[:3]) or "it does not say why"
        return (
            f"batch {self.batch_id} of {self.n_requests:,} requests was refused at validation ({said}). Nothing of it"
            " was charged; mend profiles.engine, then run again"
        )


class BatchCancelledError(StoppedEarlyError):
    """Somebody cancelled a batch while it was waited for; what it had answered is kept."""

    def __init__(self, batch_id: str, unanswered: int) -> None:
        super().__init__(batch_id, unanswered)
        self.batch_id, self.unanswered = batch_id, unanswered

    def __str__(self) -> str:
        return (
            f"batch {self.batch_id} was cancelled; {self.unanswered:,} of its requests have no answer and were not"
            " submitted again. The others are kept; run again to submit what is missing"
        )


class BatchesPendingError(StoppedEarlyError):
    """The time this run may wait is over; the batches go on without it."""

    def __init__(self, batches: int, requests: int, waited_s: float) -> None:
        super().__init__(batches, requests, waited_s)
        self.batches, self.requests, self.waited_s = batches, requests, waited_s

    def __str__(self) -> str:
        return (
            f"{self.batches:,} batches with {self.requests:,} requests of this run are still at the server after"
            f" {self.waited_s:,.0f} s (profiles.engine.wait_s); they go on there. Run again to collect them;"
            " `semalign batches list` shows them"
        )


class HeldByBatchError(StoppedEarlyError):
    """Requests that are in batches not collected yet: asking for them as well would pay for them twice."""

    def __init__(self, model: str, requests: int, batches: tuple[str, ...]) -> None:
        super().__init__(model, requests, batches)
        self.model, self.requests, self.batches = model, requests, batches

    def __str__(self) -> str:
        shown = ", ".join(sorted(self.batches)[:3]) + (" and others" if len(self.batches) > 3 else "")
        return (
            f"{self.requests:,} requests to `{self.model}` are in {shown}, not collected yet: to ask for them here as"
            " well would pay twice, so they were left. `semalign batches list` shows the batches, `semalign batches"
            ' cancel` ends them early; a run with profiles.engine.name = "openai-batch" and their base_url collects'
            " them (and submits nothing new with profiles.engine.cap.calls = 0), then this engine asks for the rest"
        )


class ResultsGoneError(StoppedEarlyError, LookupError):
    """Batches that were paid for and whose results the server no longer has."""

    def __init__(self, rows: int, batches: tuple[str, ...]) -> None:
        super().__init__(rows, batches)
        self.rows, self.batches = rows, batches

    def __str__(self) -> str:
        return (
            f"results gone: {self.rows:,} rows must be paid again; confirm with --repay. The server no longer has"
            f" what it answered in {', '.join(self.batches[:3])}{' and others' if len(self.batches) > 3 else ''}"
        )


class UnansweredRequestsError(StoppedEarlyError):
    """The request file is written and waits for somebody to answer it."""

    def __init__(self, model: str, requests: int, requests_path: Path, results_path: Path, failed: int) -> None:
        super().__init__(model, requests, requests_path, results_path, failed)
        self.model, self.requests, self.failed = model, requests, failed
        self.requests_path, self.results_path = requests_path, results_path

    def __str__(self) -> str:
        again = f" ({self.failed:,} of them failed before)" if self.failed else ""
        return (
            f"{self.requests:,} requests to `{self.model}`{again} wait in {self.requests_path}; answer it and run"
            f" again, for example: vllm run-batch -i {self.requests_path} -o {self.results_path} --model {self.model};"
            " or upload it as an OpenAI batch and save its output there"
        )


class BadModelFileError(ProviderError, ValueError):
    """The file named as a model is none that llama.cpp reads."""

    exit_code = 2

    def __init__(self, path: Path, got: str) -> None:
        super().__init__(path, got)
        self.path, self.got = path, got

    def __str__(self) -> str:
        return f"profiles.engine.gguf = {self.path}: {self.got}; expected a model in the GGUF format of llama.cpp"


class MissingExtraError(ProviderError, ImportError):
    """A package that only some engines need is not installed."""

    exit_code = 2

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)
        self.package, self.extra = package, extra

    def __str__(self) -> str:
        return f"the package {self.package} is not installed; install it with `pip install semalign[{self.extra}]`"


class ModelNotFoundError(ProviderError, FileNotFoundError):
    """An encoder model that is in no directory, package or hub within reach."""

    exit_code = 2

    def __init__(self, model: str, tried: tuple[str, ...]) -> None:
        super().__init__(model, tried)
        self.model, self.tried = model, tried

    def __str__(self) -> str:
        return (
            f"encoder model `{self.model}` was not found; tried {'; '.join(self.tried)}. Give a directory in"
            " embeddings.model, or install the default model with `pip install semalign[offline-model]`"
        )


class UnsafeModelError(ProviderError, ValueError):
    """A model directory that holds code, or files of a kind we do not read; nothing of it was imported."""

    exit_code = 2

    def __init__(self, directory: Path, file: str, reason: str) -> None:
        super().__init__(directory, file, reason)
        self.directory, self.file, self.reason = directory, file, reason

    def __str__(self) -> str:
        return (
            f"model directory {self.directory} is refused because of `{self.file}`: {self.reason}. Expected only"
            " safetensors weights and plain json, txt, model and md files; export the model as such a directory"
        )


class ModelFileError(ProviderError, ValueError):
    """A model file that is broken, or is not the one that was pinned."""

    exit_code = 6

    def __init__(self, path: Path, got: str, expected: str) -> None:
        super().__init__(path, got, expected)
        self.path, self.got, self.expected = path, got, expected

    def __str__(self) -> str:
        return f"model file {self.path} cannot be trusted: got {self.got}, expected {self.expected}. Install it again"


class EmptyTextError(ProviderError, ValueError):
    """A text without a single visible character was handed to an encoder."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index

    def __str__(self) -> str:
        return f"text {self.index} is empty; leave out rows without text (they are masked) instead of encoding them"


class BadVectorError(ProviderError, ArithmeticError):
    """The encoder made vectors that are not finite or have no length, even one text at a time."""

    exit_code = 6

    def __init__(self, encoder: str, indices: tuple[int, ...]) -> None:
        super().__init__(encoder, indices)
        self.encoder, self.indices = encoder, indices

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.indices[:5])) + (", …" if len(self.indices) > 5 else "")
        return (
            f"encoder {self.encoder} made {len(self.indices)} unusable vectors (not finite or zero) for texts {shown};"
            ' expected finite vectors of length 1. Try embeddings.dtype = "float32" or another model'
        )


class EncoderMemoryError(ProviderError, MemoryError):
    """One text alone is more than the device's memory takes."""

    exit_code = 4
    # Dask makes an error again by the class's own `__new__`, and that of MemoryError refuses classes that are more.
    __new__ = Exception.__new__

    def __init__(self, encoder: str, device: str, tokens: int) -> None:
        super().__init__(encoder, device, tokens)
        self.encoder, self.device, self.tokens = encoder, device, tokens

    def __str__(self) -> str:
        return (
            f"encoder {self.encoder} ran out of memory on {self.device} on one text alone (some {self.tokens} tokens);"
            " shards of texts before it are kept. Free memory and run again, or set embeddings.max_tokens lower,"
            ' embeddings.dtype = "bfloat16", embeddings.device = "cpu" or a smaller embeddings.model'
        )


class WrongWidthError(ProviderError, ValueError):
    """Vectors of another length than was asked for, or than the same encoder gave before."""

    exit_code = 2

    def __init__(self, model: str, dimensions: int | None, problem: str) -> None:
        super().__init__(model, dimensions, problem)
        self.model, self.dimensions, self.problem = model, dimensions, problem

    def __str__(self) -> str:
        asked = "the model's own" if self.dimensions is None else str(self.dimensions)
        return (
            f"{self.model}: {self.problem}; vectors of two lengths make no table. Set embeddings.dimensions"
            f" (now {asked}) to what the server gives, or choose a model that can be shortened; what was paid is kept"
        )
