"""One self-contained HTML page per run: frozen values in, a string out, no scripts and no network."""

from flows.report.content import (
    CatalogueFacts,
    CostFacts,
    CostRow,
    Difference,
    Epoch,
    Interval,
    ModelResult,
    ProfileExample,
    ProfileFacts,
    QuarantineRow,
    RecommendationExample,
    RecommendedItem,
    ReportContent,
    RunFacts,
    StageFacts,
    TextCoverage,
)
from flows.report.page import render

__all__ = [
    "CatalogueFacts",
    "CostFacts",
    "CostRow",
    "Difference",
    "Epoch",
    "Interval",
    "ModelResult",
    "ProfileExample",
    "ProfileFacts",
    "QuarantineRow",
    "RecommendationExample",
    "RecommendedItem",
    "ReportContent",
    "RunFacts",
    "StageFacts",
    "TextCoverage",
    "render",
]
