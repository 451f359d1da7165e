"""The named ways of measuring. Numbers of two protocols do not compare, so a table has one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """What belongs to a protocol's name; the cut-offs and metrics are defaults, whether users are held out is not.

    Attributes:
        held_out_users: tested users have no training row; models see, and are not asked for, their fold-in rows.
        ks: cut-offs.
        names: functions of `rec_models.metrics`.
        select_by: the validation metric that picks the weights to keep.
        among_rated: only the items that a user rated in the tested part are ranked, not the catalogue; a constant does
            well there.
    """

    name: str
    held_out_users: bool
    ks: tuple[int, ...]
    names: tuple[str, ...]
    select_by: str
    among_rated: bool = False


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("dmrec", False, (10, 20), ("recall", "ndcg"), "recall@20"),
        Protocol("strong", True, (20, 50, 100), ("recall", "truncated_recall", "ndcg"), "ndcg@100"),
        Protocol("dgrm-paper", False, (5,), ("recall", "ndcg"), "ndcg@5", among_rated=True),
        Protocol("dgrm-code", False, (5,), ("recall", "ndcg"), "ndcg@5", among_rated=True),
    )
}
