"""Everything rec_models refuses, as sentences: what failed, where, got, expected, cure."""

from collections.abc import Sequence


class RecModelsError(Exception):
    """Root of the package's errors. `exit_code` is what a command that dies of it returns."""

    exit_code = 1


class UnknownModelError(RecModelsError, ValueError):
    """A model name that is not in the catalogue."""

    exit_code = 2

    def __init__(self, name: object, known: Sequence[str]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        return f"unknown model {self.name!r}; known: {', '.join(self.known)}. Set `model.name` to one of them"


class ModelSettingsError(RecModelsError, ValueError):
    """Model or training settings that do not validate."""

    exit_code = 2

    def __init__(self, branch: str, problems: Sequence[str]) -> None:
        super().__init__(branch, problems)
        self.branch, self.problems = branch, problems

    def __str__(self) -> str:
        return f"[{self.branch}] is not valid: {'; '.join(self.problems)}. `semalign models` lists every option"


class BundleError(RecModelsError, ValueError):
    """A bundle directory that is incomplete or inconsistent."""

    exit_code = 2

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"bundle {self.path}: {self.problem}. Build it again with `semalign train`"


class UntrustedBytesError(RecModelsError, ValueError):
    """A file whose bytes are not the ones that were recorded."""

    exit_code = 6

    def __init__(self, path: str, got: str, expected: str) -> None:
        super().__init__(path, got, expected)
        self.path, self.got, self.expected = path, got, expected

    def __str__(self) -> str:
        return f"{self.path}: sha256 is {self.got}, expected {self.expected}; the bytes changed since they were written"


class ForeignCheckpointError(RecModelsError, ValueError):
    """A checkpoint that belongs to other data or other settings."""

    exit_code = 2

    def __init__(self, path: str, what: str, got: object, expected: object) -> None:
        super().__init__(path, what, got, expected)
        self.path, self.what, self.got, self.expected = path, what, got, expected

    def __str__(self) -> str:
        return (
            f"checkpoint {self.path} was made with another {self.what}: got {self.got}, expected {self.expected}. "
            "Train again, or give it the bundle it came from"
        )


class MissingSemanticMatrixError(RecModelsError, LookupError):
    """A language-aligned model was given no vectors for what it reads."""

    exit_code = 2

    def __init__(self, model: str, name: str, known: Sequence[str]) -> None:
        super().__init__(model, name, known)
        self.model, self.name, self.known = model, name, known

    def __str__(self) -> str:
        known = ", ".join(self.known) or "none"
        return f"{self.model} reads the semantic matrix {self.name!r}; the bundle holds: {known}. Run `semalign embed`"


class TextFeaturesError(RecModelsError, ValueError):
    """Words of items that cannot be weights of a vocabulary."""

    exit_code = 2

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"words of items: {self.problem}; expected one column a word, with weights >= 0. Count the words again"


class MissingTextError(RecModelsError, LookupError):
    """A model that counts words was given none."""

    exit_code = 2

    def __init__(self, model: str, option: str, without: str) -> None:
        super().__init__(model, option, without)
        self.model, self.option, self.without = model, option, without

    def __str__(self) -> str:
        return (
            f"{self.model} with `{self.option}` reads words of items; the bundle holds none. "
            f"Make the bundle from items that have texts, or {self.without}"
        )


class HeldOutUsersError(RecModelsError, ValueError):
    """A model that keeps a vector for each user, on a split whose tested users it never meets in training."""

    exit_code = 2

    def __init__(self, model: str, protocol: str) -> None:
        super().__init__(model, protocol)
        self.model, self.protocol = model, protocol

    def __str__(self) -> str:
        return (
            f"{self.model} learns each user by heart and cannot score the users whom protocol {self.protocol!r} holds "
            'out of training. Leave it out, or compare under `split.kind = "random"`, "last" or "time"'
        )


class ProtocolError(RecModelsError, ValueError):
    """A protocol on a split that was not made for it."""

    exit_code = 2

    def __init__(self, protocol: str, held_out: bool, fitting: Sequence[str]) -> None:
        super().__init__(protocol, held_out, fitting)
        self.protocol, self.held_out, self.fitting = protocol, held_out, fitting

    def __str__(self) -> str:
        split = "holds users out of training" if self.held_out else "trains on the users that are tested"
        return (
            f"protocol {self.protocol!r} was not made for a split that {split}. Set `evaluation.protocol` to "
            f"{' or '.join(map(repr, self.fitting))}, or choose another `split.kind`"
        )


class ItemClustersError(RecModelsError, LookupError):
    """A model wants items in clusters that the bundle does not have."""

    exit_code = 2

    def __init__(self, model: str, expected: int, found: int | None) -> None:
        super().__init__(model, expected, found)
        self.model, self.expected, self.found = model, expected, found

    def __str__(self) -> str:
        held = "no item clusters" if self.found is None else f"{self.found} item clusters"
        return (
            f"{self.model} with `clusters` {self.expected} reads that many item clusters; the bundle holds {held}. "
            "Set `clusters` to 1, or make the clusters from item vectors of the same training split"
        )


class LackingModelError(RecModelsError, TypeError):
    """A model that does not have what was asked of it."""

    exit_code = 2

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model


class NoVectorsError(LackingModelError):
    """A model without one final vector an item."""

    def __str__(self) -> str:
        return f"{self.model} has no vectors of items; a model on the graph has, such as lightgcn"


class NotFiniteError(RecModelsError, ArithmeticError):
    """Training met NaN or infinity and stopped."""

    exit_code = 4

    def __init__(self, model: str, epoch: int, step: int, what: str) -> None:
        super().__init__(model, epoch, step, what)
        self.model, self.epoch, self.step, self.what = model, epoch, step, what

    def __str__(self) -> str:
        return (
            f"{self.model}: {self.what} is not finite at epoch {self.epoch}, step {self.step}; what came after the "
            "last good validation is lost. Lower `training.learning_rate` or set `model.clamp_log_variance`"
        )


class DivergedError(RecModelsError, ArithmeticError):
    """An adversarial game whose two sides have parted."""

    exit_code = 4

    def __init__(self, model: str, what: str, got: float, limit: float) -> None:
        super().__init__(model, what, got, limit)
        self.model, self.what, self.got, self.limit = model, what, got, limit

    def __str__(self) -> str:
        return (
            f"{self.model}: {self.what} is {self.got:.4g} at a validation pass, above `model.divergence_limit` "
            f"{self.limit:.4g}: the critic has run away from the generator. Lower `model.critic_learning_rate`, raise "
            "`model.penalty_weight`, or set `model.lipschitz` to 'gradient_penalty'"
        )


class UnknownDeviceError(RecModelsError, ValueError):
    """A device that torch does not know, or that this machine does not have."""

    exit_code = 2

    def __init__(self, got: str, reason: str) -> None:
        super().__init__(got, reason)
        self.got, self.reason = got, reason

    def __str__(self) -> str:
        return f"device {self.got!r} cannot be used: {self.reason}. Set `training.device` to auto, cpu or cuda"


class PartsError(RecModelsError, ValueError):
    """Batches are cut in a way that the processes, or the model, cannot learn from."""

    exit_code = 2

    def __init__(self, processes: int, parts: int, model: str | None = None) -> None:
        super().__init__(processes, parts, model)
        self.processes, self.parts, self.model = processes, parts, model

    def __str__(self) -> str:
        if self.model is not None:
            return (
                f"{self.model} remembers the losses of its last batches and learns from whole ones, "
                f"`training.batch_parts` is {self.parts}; set it to 1 for this model"
            )
        return (
            f"{self.processes} processes cannot share a batch of {self.parts} parts; set `training.batch_parts` to a "
            f"multiple of {self.processes}, or train in fewer processes"
        )


class RowsNotSharedError(RecModelsError, ValueError):
    """Several processes would have to share tables that are learned row by row."""

    exit_code = 2

    def __init__(self, model: str, processes: int) -> None:
        super().__init__(model, processes)
        self.model, self.processes = model, processes

    def __str__(self) -> str:
        return (
            f"{self.model} learns its tables row by row (`sampled_items`), and {self.processes} processes cannot share "
            "that; train it in one, or set `sampled_items` to null"
        )


class NothingToEvaluateError(RecModelsError, ValueError):
    """No user has an item to be found."""

    exit_code = 2

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self.part = part

    def __str__(self) -> str:
        return f"no user has an item in the {self.part!r} part, so nothing can be ranked. Check `split.shares`"


class NotComparableError(RecModelsError, ValueError):
    """Two lists of per-user values that cannot be paired."""

    exit_code = 2

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the two models cannot be compared: {self.reason}"


class NoLatentError(LackingModelError):
    """The latent of a model that has none was asked for."""

    def __str__(self) -> str:
        return f"{self.model} has no latent: only variational models and what wraps them do. Name one, such as mult_vae"


class UnknownIdsError(RecModelsError, KeyError):
    """Users or items a model was not trained on."""

    exit_code = 2

    def __init__(self, kind: str, ids: Sequence[str], n_known: int, directory: str) -> None:
        super().__init__(kind, ids, n_known, directory)
        self.kind, self.ids, self.n_known, self.directory = kind, ids, n_known, directory

    def __str__(self) -> str:
        shown = ", ".join(map(repr, self.ids[:5]))
        return (
            f"the model in {self.directory} knows {self.n_known:,} {self.kind}s, and not {shown}. Ids are texts, as in "
            f"{self.kind}_ids.json beside it. Train again on rows that hold them; from Python, `recommend` takes items "
            "as `history` in place of a user"
        )


class HistoryError(LackingModelError):
    """A history without a user, for a model that keeps something for each user."""

    def __str__(self) -> str:
        return (
            f"{self.model} reads a vector or a text of each user and cannot score a history alone. Name a user_id, or "
            "train a model that reads rows, such as mult_vae or ease"
        )


class NoFactorsError(LackingModelError):
    """The interest factors of a model that has none were asked for."""

    def __str__(self) -> str:
        return (
            f"{self.model} has no interest factors that could stand behind a list; bandvae, addvae, macrid_vae "
            "and sem_macrid_vae have. Name a trained one with --model, or set `model.name` and run again"
        )
