"""What splits and word counts refuse, as sentences."""

from __future__ import annotations

from flows.errors import FlowError


class MissingTimestampsError(FlowError, ValueError):
    """A split in time of interactions that do not all say when they were."""

    exit_code = 2

    def __init__(self, kind: str, n_missing: int, n_rows: int) -> None:
        super().__init__(kind, n_missing, n_rows)
        self.kind, self.n_missing, self.n_rows = kind, n_missing, n_rows

    def __str__(self) -> str:
        return (
            f'split.kind = "{self.kind}" needs the timestamp of every interaction; {self.n_missing} of {self.n_rows} '
            "have none. Map the column in `source.columns.interactions`, leave those rows out, or set "
            '`split.kind = "random"`'
        )


class MissingRatingsError(FlowError, ValueError):
    """A model or a protocol of ratings, over interactions that do not all have one."""

    exit_code = 2

    def __init__(self, n_missing: int, n_rows: int) -> None:
        super().__init__(n_missing, n_rows)
        self.n_missing, self.n_rows = n_missing, n_rows

    def __str__(self) -> str:
        return (
            f"ratings are asked for, and {self.n_missing} of {self.n_rows} interactions have none. Map the column in "
            "`source.columns.interactions`, leave those rows out with `source.min_rating`, or choose a model and an "
            "`evaluation.protocol` that read no ratings"
        )


class EmptyPartError(FlowError, ValueError):
    """A split that leaves a part without rows."""

    exit_code = 2

    def __init__(self, kind: str, part: str, problem: str) -> None:
        super().__init__(kind, part, problem)
        self.kind, self.part, self.problem = kind, part, problem

    def __str__(self) -> str:
        return f'split.kind = "{self.kind}" leaves the {self.part} part without a row: {self.problem}'


class EmptyVocabularyError(FlowError, ValueError):
    """Texts of items in which the limits of [words] leave no word."""

    exit_code = 2

    def __init__(self, n_texts: int, n_words: int) -> None:
        super().__init__(n_texts, n_words)
        self.n_texts, self.n_words = n_texts, n_words

    def __str__(self) -> str:
        return (
            f"none of the {self.n_words} words of {self.n_texts} items is within the limits of [words]. Lower "
            "`words.min_count`, raise `words.max_share`, or name columns with more text in `words.texts`"
        )
