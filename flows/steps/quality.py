"""The gate before training: rows that break a check, and drift beyond the limits of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.errors import BadDataError
from flows.settings import QualitySettings
from flows.workspace import Workspace

if TYPE_CHECKING:
    from warehouse import Drift, Finding, Snapshot

# What a check is of, by the first word of its name, and the stage that makes it. Until that stage has been, a version
# carries on the rows of the one before, which know nothing of its sources; a run without it reads none of them.
_MADE_BY = {"profile": "profile", "vector": "embed", "recommended": "recommend"}


def refuse_bad_data(workspace: Workspace, snapshot_id: str, settings: QualitySettings) -> None:
    """Nothing, when the snapshot's rows may be trained on; what is only strange is noted.

    Raises:
        BadDataError: rows break a check that is an error, or something drifted further than a limit allows.
    """
    from warehouse import drift, findings

    snapshot = workspace.warehouse.snapshot(snapshot_id).doubting()
    with workspace.warehouse.catalogue(snapshot) as catalogue:
        found = [one for one in judged(findings(catalogue), snapshot) if one.check.name not in settings.tolerate]
        moved = drift(catalogue)
    for finding in found:
        if finding.check.level == "warning":
            workspace.progress.note(f"quality: {finding_words(finding)}")
    errors = [finding for finding in found if finding.check.level == "error"]
    if errors:
        first = errors[0].check
        cure = f"See them: semalign sql 'FROM {first.macro}()'. To let them pass: quality.tolerate = [\"{first.name}\"]"
        raise BadDataError([finding_words(finding) for finding in errors], cure)
    beyond = [drift_words(one) for one in moved if _beyond(one, settings)]
    if beyond:
        cure = "See: semalign sql 'FROM drift()' and 'FROM changed_profiles(…)'; the limits are under [quality]"
        raise BadDataError(beyond, cure)
    if moved:
        workspace.progress.note(f"quality: {'; '.join(map(drift_words, moved))}")


def judged(found: list[Finding], snapshot: Snapshot) -> list[Finding]:
    """What the rows of this version are to blame for: those of an older one may speak of items that have gone since."""
    carried_on = {of for of, stage in _MADE_BY.items() if "ingest" in snapshot.stages and stage not in snapshot.stages}
    return [one for one in found if one.check.name.partition("_")[0] not in carried_on]


def finding_words(finding: Finding) -> str:
    """What is wrong, with how many rows, and the first of them."""
    kind, entity_id, detail = finding.examples[0]
    return f"{finding.n_rows:,} rows: {finding.check.says} (such as {kind} {entity_id}: {detail})"


def drift_words(drift: Drift) -> str:
    """A measure before and now."""
    recipe = "" if drift.same_recipe else ", by another recipe"
    return f"{drift.measure} {drift.now:.4g}, {drift.before:.4g} before ({drift.change:+.1%}{recipe})"


def _beyond(drift: Drift, settings: QualitySettings) -> bool:
    # another model, prompt or encoder is meant to change what it makes
    if not drift.same_recipe:
        return False
    if drift.measure == "neighbours kept":
        return settings.min_neighbours_kept is not None and drift.now < settings.min_neighbours_kept
    limit = settings.max_length_change if drift.measure == "profile length" else settings.max_norm_change
    return limit is not None and abs(drift.change) > limit
