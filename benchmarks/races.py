"""Every race of `python -m benchmarks`: its command, what it needs, and what of its report is a row of the table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        what: what is raced, and against whom.
        ratio: ours against theirs; more than 1 is faster, or whatever `unit` counts is more.
        low, high: of all rounds or seeds.
        goal: the least ratio that will do; None where it is only reported.
        ours, theirs: in `unit`.
        note: quality of both sides, memory, or what else belongs beside the ratio.
    """

    what: str
    ratio: float
    low: float
    high: float
    goal: float | None
    ours: float
    theirs: float
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Race:
    """How a race is run.

    Attributes:
        commands: modules and arguments; `{name}` is a path that the caller gives, `{threads}` and `{rounds}` numbers.
        rows: of the JSON documents that one of them printed, one a line or one in all.
    """

    commands: tuple[str, ...]
    rows: Callable[[Sequence[Any]], Iterator[Row]]


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _dmrec_epoch(documents: Sequence[Any]) -> Iterator[Row]:
    (found,) = documents
    for part, goal in (("epoch", 3.0), ("validate", 6.0)):
        row = found[part]
        what = f"DMRec, {part}, {found['precision']}, against dense rows in float32"
        yield Row(what, row["ratio"], row["low"], row["high"], goal, row["ours_s"], row["reference_s"], "s")


def _dmrec_training(documents: Sequence[Any]) -> Iterator[Row]:
    (found,) = documents
    ratio, what = found["ratio"], f"DMRec, training to its early stop, {found['precision']}, against the authors' loop"
    note = f"theirs {found['measured']}; recall@20 {found['ours']['recall@20']:.4f}, {found['ours']['epochs']} epochs"
    yield Row(what, ratio, ratio, ratio, 4.0, found["ours"]["seconds"], found["theirs"]["seconds"], "s", note)


def _against_recbole(model: str, goal: float, seconds: str) -> Callable[[Sequence[Any]], Iterator[Row]]:
    def rows(documents: Sequence[Any]) -> Iterator[Row]:
        sides: dict[str, list[Mapping[str, Any]]] = {"ours": [], "theirs": []}
        for document in documents:
            sides[document["side"]].append(document)
        pairs = list(zip(sides["ours"], sides["theirs"], strict=True))
        ratios = _spread([theirs[seconds] / ours[seconds] for ours, theirs in pairs])
        mean = {side: statistics.mean(row["recall@20"] for row in found) for side, found in sides.items()}
        took = {side: statistics.median(row[seconds] for row in found) for side, found in sides.items()}
        epochs = {side: statistics.mean(row["epochs"] for row in found) for side, found in sides.items()}
        timed = "an epoch" if seconds == "epoch_s" else "a fit"
        what = "{}, {}, {:,} users × {:,} items, against RecBole".format(model, timed, *pairs[0][0]["size"])
        note = f"test recall@20 {mean['ours']:.4f} against {mean['theirs']:.4f}, {len(pairs)} seeds"
        if seconds == "epoch_s":
            note += f", {epochs['ours']:.0f} and {epochs['theirs']:.0f} epochs"
        yield Row(what, *ratios, goal, took["ours"], took["theirs"], "s", note)

    return rows


def _evaluation(documents: Sequence[Any]) -> Iterator[Row]:
    (found,) = documents
    sides = {"recbole": ("RecBole", 10.0), "rectools": ("RecTools", 1.0), "bare": ("bare products and top-k", 0.5)}
    for side, (name, goal) in sides.items():
        if side in found:
            row = found[side]
            what = f"ranking {found['users']:,} users × {found['items']:,} items, against {name}"
            yield Row(what, row["ratio"], row["low"], row["high"], goal, found["ours"]["seconds"], row["seconds"], "s")


def _topk(documents: Sequence[Any]) -> Iterator[Row]:
    (found,) = documents
    for side, name in (("implicit", "implicit"), ("bare", "bare products and top-k")):
        if side in found:
            row, ours = found[side], found["ours"]
            what = f"top-{found['k']} of {found['items']:,} items, seconds for 10⁶ users, against {name}"
            note = f"peak {ours['peak_memory_bytes'] / 1e9:.2f} GB, theirs {row['peak_memory_bytes'] / 1e9:.2f} GB"
            took = ours["seconds_for_a_million"], row["seconds_for_a_million"]
            yield Row(what, row["ratio"], row["low"], row["high"], None, *took, "s", note)


def _embedding(documents: Sequence[Any]) -> Iterator[Row]:
    (found,) = documents
    rates = found["texts_per_s"]
    for other, name, goal in (("best", "at its best batch", 0.97), ("default", "with its defaults", 1.6)):
        ratio = found[f"ratio_to_{other}"]
        rate = rates["ours"]["median"], rates[f"bare_{other}"]["median"]
        what = f"embedding {found['settings']['texts']:,} texts, against bare encode {name}"
        yield Row(what, ratio["median"], ratio["least"], ratio["most"], goal, *rate, "texts/s")


def _ledger(documents: Sequence[Any]) -> Iterator[Row]:
    (found,) = documents
    note = f"the ledger takes {found['ledger_cpu_share']:.1%} of the processor"
    rate = found["ours_calls_per_s"], found["bare_calls_per_s"]
    yield Row("calls kept, against the bare openai client", *_spread(found["ratios"]), 0.7, *rate, "calls/s", note)


def _pipeline(documents: Sequence[Any]) -> Iterator[Row]:
    (found,) = documents
    first = found["sizes"][0]
    ratio = first["entities_per_s"] / 1000
    rate, peak = first["entities_per_s"], max(row["peak_memory_bytes"] for row in found["sizes"])
    note = f"peak of all sizes {peak / 1e9:.2f} GB"
    yield Row("profiles stored, engine of 0 ms", ratio, ratio, ratio, 1.0, rate, 1000.0, "entities/s", note)
    for row in found["sizes"][1:]:
        slower = row["time_of_an_entity"]
        what = f"the same at {row['items']:,} items with {row['prefilled']:,} calls in the ledger, against the first"
        spread = 1 / slower["ratio"], 1 / slower["high"], 1 / slower["low"]
        yield Row(what, *spread, 1 / 1.15, row["entities_per_s"], rate, "entities/s")


def _matrix_open(documents: Sequence[Any]) -> Iterator[Row]:
    (found,) = documents
    build, bare = found["all_seconds"]["build"], found["all_seconds"]["bare"]
    ratios = _spread([theirs / ours for ours, theirs in zip(build, bare, strict=True)])
    note = (
        f"peak {found['build_peak_of_matrix']:.2f} of the matrix; opened in {found['median']['open']['seconds']:.4f} s"
    )
    what = "a semantic matrix hashed, built and synced, against pyarrow decoding it"
    yield Row(what, *ratios, 0.7, statistics.median(build), statistics.median(bare), "s", note)


_PEER = "--peer-python {recbole} --threads {threads} --seeds 1 --json"


def _peer(module: str, chosen: str = "") -> tuple[str, str]:
    """To the early stop on the caller's split, which is small and where `chosen` was found best, and three epochs of a
    large one."""
    return f"{module} {{split}} {chosen} {_PEER}", f"{module} {{amazon_book}} --epochs 3 --precision auto {_PEER}"


RACES = {
    "dmrec_epoch": Race(("dmrec_epoch {amazon_book} --rounds {rounds} --json",), _dmrec_epoch),
    "dmrec_training": Race(("dmrec_training {amazon_book} --threads {threads} --json",), _dmrec_training),
    "multvae": Race(_peer("autoencoder_peers mult_vae"), _against_recbole("Mult-VAE", 3.0, "epoch_s")),
    # on MovieLens 100K each side's better weight of the divergence, which is RecBole's default; else both defaults
    "recvae": Race(
        _peer("autoencoder_peers rec_vae", "--ours kl_weight_per_item=0.06"), _against_recbole("RecVAE", 3.0, "epoch_s")
    ),
    "lightgcn": Race(_peer("lightgcn_peer"), _against_recbole("LightGCN", 3.0, "epoch_s")),
    "ease": Race(_peer("autoencoder_peers ease"), _against_recbole("EASE", 3.0, "fit_s")),
    "evaluation": Race(
        (
            "ranking --recbole {recbole} --rectools {implicit} --rounds {rounds} --threads {threads}"
            " --users 20000 --peer-users 2000 --json",
        ),
        _evaluation,
    ),
    "topk": Race(("topk --implicit {implicit} --users 256 --rounds {rounds} --threads {threads} --json",), _topk),
    "embedding": Race(("embedding --texts 1000 --rounds {rounds} --config examples/steam --json",), _embedding),
    "ledger": Race(("executor --rounds {rounds} --json",), _ledger),
    "pipeline": Race(("pipeline --entities 10000,50000 --prefilled 1000000 --rounds 1 --json",), _pipeline),
    "matrix_open": Race(("matrix_open --rounds {rounds} --json",), _matrix_open),
}
