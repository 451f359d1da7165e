"""What comparisons, tuning and analyses refuse, as sentences."""

from collections.abc import Sequence

from flows.errors import FlowError


class NothingTrainedError(FlowError, LookupError):
    """A table of trained models was asked for where none of them is."""

    exit_code = 2

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.labels = labels

    def __str__(self) -> str:
        return (
            f"none of {', '.join(self.labels)} is trained here, so there is no table of them. Leave out --only-trained"
        )


class GridTooLargeError(FlowError, ValueError):
    """A grid that cannot be walked through within its budget."""

    exit_code = 2

    def __init__(self, size: int | None, budget: str) -> None:
        super().__init__(size, budget)
        self.size, self.budget = size, budget

    def __str__(self) -> str:
        got = "a range, which has no end of values" if self.size is None else f"{self.size} combinations"
        return f"--method grid: the space has {got}, the budget is {self.budget}. Raise --budget, or --method random"


class MissingOptunaError(FlowError, ImportError):
    """The search method that an optional package does."""

    exit_code = 2

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        return "--method tpe needs optuna, which is not installed. pip install 'semalign[hpo]', or --method random"


class AllTrialsFailedError(FlowError, RuntimeError):
    """A search that has nothing to choose from."""

    exit_code = 4

    def __init__(self, label: str, n_trials: int) -> None:
        super().__init__(label, n_trials)
        self.label, self.n_trials = label, n_trials

    def __str__(self) -> str:
        return (
            f"none of the {self.n_trials} trials of {self.label} could be trained; each log is in the warehouse under "
            "models/. Narrow the space, for example to a lower training.learning_rate"
        )


class UnknownModalityError(FlowError, LookupError):
    """A model that reads vectors under a name that no set has."""

    exit_code = 2

    def __init__(self, model: str, name: str, known: Sequence[str]) -> None:
        super().__init__(model, name, known)
        self.model, self.name, self.known = model, name, known

    def __str__(self) -> str:
        return (
            f"{self.model} reads the modality `{self.name}`, and no set of vectors has that name (known: "
            f"{', '.join(self.known)}). Declare it as [encoders.{self.name}], bring vectors with `semalign import FILE "
            f"--as {self.name} --kind item`, or change `modalities` of the model"
        )


class UntrainedModelError(FlowError, LookupError):
    """A model by a label or id that no trained one has; None where nothing says which one is meant."""

    exit_code = 2

    def __init__(self, model: str | None, known: Sequence[str]) -> None:
        super().__init__(model, known)
        self.model, self.known = model, known

    def __str__(self) -> str:
        problem = (
            "no lists are published here, so say which model" if self.model is None else f"no model {self.model!r}"
        )
        return (
            f"{problem}: --model takes a label or id of a trained one ({', '.join(self.known) or 'there is none'}). "
            "`semalign compare --models …` trains some"
        )
