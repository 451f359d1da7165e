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
