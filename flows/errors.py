"""Everything the flows refuse, as sentences: what failed, where, got, expected, cure."""

from collections.abc import Sequence


class FlowError(Exception):
    """Root of the package's errors. `exit_code` is what a command that dies of it returns."""

    exit_code = 1


class SettingsFileError(FlowError, ValueError):
    """A settings file that cannot be read as TOML."""

    exit_code = 2

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"settings file {self.path}: {self.problem}. `semalign init DIR` writes a commented one"


class UnknownSettingError(FlowError, KeyError):
    """A key that is not in the settings tree."""

    exit_code = 2

    def __init__(self, path: str, nearest: Sequence[str], known: Sequence[str]) -> None:
        super().__init__(path, nearest, known)
        self.path, self.nearest, self.known = path, nearest, known

    def __str__(self) -> str:
        meant = f"; did you mean `{'` or `'.join(self.nearest)}`?" if self.nearest else ""
        return f"unknown setting `{self.path}`{meant} Known there: {', '.join(self.known)}"


class SettingValueError(FlowError, ValueError):
    """A setting whose value does not fit."""

    exit_code = 2

    def __init__(self, path: str, got: object, problem: str) -> None:
        super().__init__(path, got, problem)
        self.path, self.got, self.problem = path, got, problem

    def __str__(self) -> str:
        return f"setting `{self.path}` = {self.got!r}: {self.problem}. Mend it in semalign.toml, SEMALIGN_… or --set"


class SecretInSettingsError(FlowError, ValueError):
    """A secret written where settings are stored and printed."""

    exit_code = 2

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"setting `{self.path}` looks like a secret; settings are stored with every run. "
            "Remove it and export it instead (OPENAI_API_KEY for the openai engine)"
        )


class UndefinedVariableError(FlowError, KeyError):
    """A ${NAME} in a settings file that the environment does not define."""

    exit_code = 2

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, path)
        self.name, self.path = name, path

    def __str__(self) -> str:
        use = f"${{{self.name}}}"
        return f"{self.path} uses {use}, which is not set. Export {self.name}, or write ${{{self.name}:-default}}"


class MissingSettingError(FlowError, ValueError):
    """A setting that this command cannot do without."""

    exit_code = 2

    def __init__(self, path: str, command: str) -> None:
        super().__init__(path, command)
        self.path, self.command = path, command

    def __str__(self) -> str:
        return (
            f"`semalign {self.command}` needs the setting `{self.path}`. Write it into semalign.toml "
            "(`semalign init DIR --items F --interactions F` does), pass --config, or try `semalign demo`"
        )


class SettingSyntaxError(FlowError, ValueError):
    """A --set, --grid or model specification that does not parse."""

    exit_code = 2

    def __init__(self, text: str, expected: str) -> None:
        super().__init__(text, expected)
        self.text, self.expected = text, expected

    def __str__(self) -> str:
        return f"cannot read {self.text!r}; expected {self.expected}"


class UnknownStageError(FlowError, ValueError):
    """A stage name that is not one of ours."""

    exit_code = 2

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        return f"unknown stage {self.name!r}; known, in their order: {', '.join(self.known)}"


class NothingPublishedError(FlowError, LookupError):
    """A question about a warehouse that holds no snapshot yet."""

    exit_code = 2

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.root = root

    def __str__(self) -> str:
        return (
            f"nothing is published under {self.root} yet. Run `semalign run` first, "
            "or point --config or --root at another warehouse"
        )


class UnknownIdError(FlowError, LookupError):
    """An item or user the snapshot does not hold, or not what was asked of it."""

    exit_code = 2

    def __init__(self, kind: str, entity_id: str, snapshot: str, lacks: str = "no vector") -> None:
        super().__init__(kind, entity_id, snapshot, lacks)
        self.kind, self.entity_id, self.snapshot, self.lacks = kind, entity_id, snapshot, lacks

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.entity_id!r} has {self.lacks} in {self.snapshot}. "
            f'`semalign sql "SELECT * FROM {self.kind}s LIMIT 10"` shows what there is'
        )


class SplitColumnError(FlowError, ValueError):
    """A given split whose column holds something else than parts, or lacks one of them."""

    exit_code = 2

    def __init__(self, column: str, got: Sequence[str], problem: str) -> None:
        super().__init__(column, got, problem)
        self.column, self.got, self.problem = column, got, problem

    def __str__(self) -> str:
        return (
            f"split column {self.column!r} holds {', '.join(map(repr, self.got)) or 'nothing'}: {self.problem}. "
            'Expected train, valid (or validation) and test; or set `split.kind = "random"`'
        )


class NothingLeftError(FlowError, ValueError):
    """Filters that leave no interaction to learn from."""

    exit_code = 2

    def __init__(self, n_before: int, filters: str) -> None:
        super().__init__(n_before, filters)
        self.n_before, self.filters = n_before, filters

    def __str__(self) -> str:
        return f"no interaction is left of {self.n_before} after {self.filters}. Check `source` and the column map"


class QuarantineLimitError(FlowError, ValueError):
    """More rows quarantined than the settings allow."""

    exit_code = 4

    def __init__(self, stage: str, n_bad: int, n_rows: int, limit: float, codes: str, setting: str) -> None:
        super().__init__(stage, n_bad, n_rows, limit, codes, setting)
        self.stage, self.n_bad, self.n_rows, self.limit = stage, n_bad, n_rows, limit
        self.codes, self.setting = codes, setting

    def __str__(self) -> str:
        return (
            f"{self.stage}: {self.n_bad} of {self.n_rows} rows were quarantined ({self.codes}), more than the allowed "
            f"{self.limit:.1%}; nothing was published. Mend the rows, or raise `{self.setting}`"
        )


class NothingToAcceptError(FlowError, LookupError):
    """A row in quarantine that holds no text which could be taken as a profile."""

    exit_code = 2

    def __init__(self, kind: str, entity_id: str, code: str, n_replies: int) -> None:
        super().__init__(kind, entity_id, code, n_replies)
        self.kind, self.entity_id, self.code, self.n_replies = kind, entity_id, code, n_replies

    def __str__(self) -> str:
        held = (
            f"its {self.n_replies} replies hold nothing to take" if self.n_replies else "no reply to it holds any text"
        )
        return (
            f"{self.kind} {self.entity_id!r} ({self.code}) cannot be accepted: {held}. Nothing was changed; ask again "
            f"with `semalign quarantine retry {self.entity_id}`"
        )


class NotInQuarantineError(FlowError, LookupError):
    """An id or code that no row in quarantine has."""

    exit_code = 2

    def __init__(self, wanted: str, snapshot: str, known: Sequence[str]) -> None:
        super().__init__(wanted, snapshot, known)
        self.wanted, self.snapshot, self.known = wanted, snapshot, known

    def __str__(self) -> str:
        held = ", ".join(self.known) or "nothing"
        return (
            f"{self.wanted} is not among the answers in quarantine of snapshot {self.snapshot}, which are: {held}. "
            "`semalign quarantine list` shows them"
        )


class CoverageError(FlowError, ValueError):
    """Too few items with text, or with a vector of a modality, for a model that reads it."""

    exit_code = 4

    def __init__(self, model: str, n_text: int, n_items: int, required: float, what: str = "text") -> None:
        super().__init__(model, n_text, n_items, required, what)
        self.model, self.n_text, self.n_items, self.required, self.what = model, n_text, n_items, required, what

    def __str__(self) -> str:
        return (
            f"{self.model} reads language, but only {self.n_text} of {self.n_items} items have {self.what} "
            f"({self.n_text / max(self.n_items, 1):.1%}; `profiles.min_coverage` asks for {self.required:.1%}). "
            f"Give the items {self.what}, lower the limit, or choose a model that reads none (`semalign models`)"
        )


class BadDataError(FlowError, ValueError):
    """Rows that no model may be trained on."""

    exit_code = 4

    def __init__(self, problems: Sequence[str], cure: str) -> None:
        super().__init__(problems, cure)
        self.problems, self.cure = problems, cure

    def __str__(self) -> str:
        return f"nothing was trained: {'; '.join(self.problems)}. {self.cure}"


class LeakedEvidenceError(FlowError, ValueError):
    """A profile that was built from validation or test interactions."""

    exit_code = 4

    def __init__(self, kind: str, entity_id: str, other: str, part: str, n_profiles: int) -> None:
        super().__init__(kind, entity_id, other, part, n_profiles)
        self.kind, self.entity_id, self.other, self.part, self.n_profiles = kind, entity_id, other, part, n_profiles

    def __str__(self) -> str:
        return (
            f"the profile of {self.kind} {self.entity_id!r} was built from its interaction with {self.other!r}, "
            f"which is in the {self.part} part ({self.n_profiles} such profiles). Nothing was trained. "
            "Build the profiles again: `semalign profile`"
        )


class StaleEvidenceError(FlowError, ValueError):
    """A profile whose evidence is not what the training rows give today."""

    exit_code = 4

    def __init__(self, kind: str, entity_id: str, got: str, expected: str, n_profiles: int) -> None:
        super().__init__(kind, entity_id, got, expected, n_profiles)
        self.kind, self.entity_id, self.got, self.expected, self.n_profiles = kind, entity_id, got, expected, n_profiles

    def __str__(self) -> str:
        return (
            f"the profile of {self.kind} {self.entity_id!r} carries evidence hash {self.got[:12]}, the training rows "
            f"give {self.expected[:12]} ({self.n_profiles} such profiles). Nothing was trained. "
            "Build the profiles again: `semalign profile`"
        )


class TrainingFailedError(FlowError, RuntimeError):
    """A process of rec_models that ended badly; carries its exit code."""

    def __init__(self, model: str, exit_code: int, message: str, log: str, work: str = "train") -> None:
        super().__init__(model, exit_code, message, log, work)
        self.model, self.message, self.log, self.work = model, message, log, work
        self.exit_code = exit_code if exit_code in {2, 4, 6} else 1

    def __str__(self) -> str:
        return f"`{self.work}` of model {self.model} stopped: {self.message.rstrip('.')}. Its log is {self.log}"


class CheckpointError(FlowError, ValueError):
    """A trained model whose files are not what they should be."""

    exit_code = 6

    def __init__(self, model_id: str, path: str, problem: str) -> None:
        super().__init__(model_id, path, problem)
        self.model_id, self.path, self.problem = model_id, path, problem

    def __str__(self) -> str:
        cure = "Delete the folder of that model and run `semalign train`"
        return f"model {self.model_id}: {self.path}: {self.problem}. {cure}"


class IncomparableModelsError(FlowError, ValueError):
    """Two models that were not scored on the same users, or not scored at all."""

    exit_code = 4

    def __init__(self, model: str, reference: str, problem: str) -> None:
        super().__init__(model, reference, problem)
        self.model, self.reference, self.problem = model, reference, problem

    def __str__(self) -> str:
        return f"{self.model} and {self.reference} cannot be compared: {self.problem}. Evaluate both on one split"


class UnknownBatchError(FlowError, LookupError):
    """A batch that is not open here."""

    exit_code = 2

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        return f"no open batch `{self.name}`; open: {', '.join(self.known[:10]) or 'none'}. See `semalign batches list`"


class FileExistsAlreadyError(FlowError, FileExistsError):
    """A file that a command would have overwritten."""

    exit_code = 2

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} exists; it was left alone. Choose another name, or pass --force"


class StoppedProfilesError(FlowError, RuntimeError):
    """An engine that stopped before its last request: budget, quota, a refused key, a server that is down."""

    exit_code = 4

    def __init__(self, kind: str, done: int, total: int, reason: str) -> None:
        super().__init__(kind, done, total, reason)
        self.kind, self.done, self.total, self.reason = kind, done, total, reason

    def __str__(self) -> str:
        pending = self.total - self.done
        return f"profiles of {self.kind}s: {self.done:,} done, {pending:,} pending. Stopped because {self.reason}"


class InterruptedRunError(FlowError, RuntimeError):
    """A run stopped from outside; what was finished is kept."""

    exit_code = 4

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name

    def __str__(self) -> str:
        return f"stopped by {self.signal_name}; finished stages and models are kept"
