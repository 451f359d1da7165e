"""A batch cut into parts that are learnt from apart, and the processes that share them.

Every part has a generator of its own, and the gradients of all parts are averaged by their size before a step. So what
is learnt follows from the number of parts, never from how many processes worked on them: the sums are the same up to
their order.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec_models.errors import PartsError, RowsNotSharedError
from rec_models.interactions import PairBatch, UserBatch

# The leader evaluates alone, and the others wait that long for it at most; a process that died is noticed at once.
_PATIENCE = timedelta(hours=12)


class Team:
    """The processes that train one model, each with its share of every batch's parts; alone unless said otherwise.

    Attributes:
        leads: whether this process evaluates, speaks and writes; one of them does.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.leads = rank == 0

    def share(self, parts: int) -> range:
        """Places of the parts that are this process's.

        Raises:
            PartsError: the parts cannot be dealt evenly.
        """
        if parts % self.size:
            raise PartsError(self.size, parts)
        each = parts // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """() the loss summed over all processes, which all have the summed gradients now.

        A parameter that no process has a gradient for stays without one: Adam passes over it.
        """
        if self.size == 1:
            return loss
        learning = [weight for weight in parameters if weight.requires_grad]
        has = torch.tensor([weight.grad is not None for weight in learning], dtype=torch.float32)
        grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in learning]
        flat = torch.cat([*(grad.detach().float().cpu().flatten() for grad in grads), has, loss.float().cpu()[None]])
        torch.distributed.all_reduce(flat)
        sizes = [weight.numel() for weight in learning]
        *summed, has, loss = flat.split([*sizes, len(learning), 1])
        for weight, grad, anyone in zip(learning, summed, has.tolist(), strict=True):
            weight.grad = grad.view_as(weight).to(weight) if anyone else None
        return loss[0]

    def said_by_all(self, value: Any) -> list[Any]:
        """What every process says here, by rank: plain JSON, so that nothing is unpickled."""
        if self.size == 1:
            return [value]
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(own)
        torch.distributed.all_reduce(lengths)
        padded = torch.zeros(int(lengths.max()), dtype=torch.uint8)
        padded[: len(own)] = own
        heard = [torch.empty_like(padded) for _ in range(self.size)]
        torch.distributed.all_gather(heard, padded)
        said = zip(heard, lengths.tolist(), strict=True)
        return [json.loads(one[:length].numpy().tobytes()) for one, length in said]

    def told(self, value: Any) -> Any:
        """What the leader says."""
        return self.said_by_all(value if self.leads else None)[0]

    def place(self, device: torch.device) -> torch.device:
        """The device of this process: GPUs are dealt in turn."""
        if self.size == 1 or device.type != "cuda" or device.index is not None:
            return device
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", self.rank)) % torch.cuda.device_count())


@contextmanager
def joined() -> Iterator[Team]:
    """The processes that torchrun started together with this one; alone where it started none.

    They talk through gloo, whatever they compute on.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    torch.distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Team(torch.distributed.get_rank(), size)
    finally:
        torch.distributed.destroy_process_group()


def generators(seed: int, parts: int, device: torch.device) -> list[torch.Generator]:
    """One source of chance a part; the first is that of an uncut batch."""
    seeds = [seed, *(int(np.random.SeedSequence([seed, place]).generate_state(1)[0]) for place in range(1, parts))]
    return [torch.Generator(device).manual_seed(own) for own in seeds]


def generator_name(place: int) -> str:
    """Under which a part's generator is saved; the first has the name it had before there were parts."""
    return f"rng.{place}" if place else "rng"


def mean_terms(said: Sequence[Sequence[tuple[str, float, int]]]) -> dict[str, float]:
    """term → mean over users of an epoch, of every process's (term, sum, users)."""
    totals: dict[str, float] = {}
    users: Counter[str] = Counter()
    for name, total, count in chain.from_iterable(said):
        totals[name] = totals.get(name, 0.0) + total
        users[name] += count
    return {name: total / users[name] for name, total in totals.items()}


def part_of(batch: UserBatch | PairBatch, place: int, parts: int) -> UserBatch | PairBatch | None:
    """The users, or interactions, of one of the parts, as many as of any other give or take one; None if none."""
    if parts == 1:
        return batch
    first, end = (len(batch) * edge // parts for edge in (place, place + 1))
    if first == end:
        return None
    if isinstance(batch, PairBatch):
        return replace(
            batch, users=batch.users[first:end], items=batch.items[first:end], entries=batch.entries[first:end]
        )
    begins = int(batch.offsets[first])
    ends = int(batch.offsets[end]) if end < len(batch) else len(batch.items)
    return replace(
        batch,
        users=batch.users[first:end],
        rows=batch.rows[begins:ends] - first,
        items=batch.items[begins:ends],
        values=batch.values[begins:ends],
        offsets=batch.offsets[first:end] - begins,
        lengths=batch.lengths[first:end],
    )


def refuse_what_cannot_be_shared(model: nn.Module, name: str, parts: int, team: Team) -> None:
    """Nothing, unless batches are cut or shared and the model learns in a way that does not allow it.

    Raises:
        PartsError: part of it remembers what it saw in the last batches; processes that see parts would remember
            different things.
        RowsNotSharedError: it has sparse gradients, and there are other processes.
    """
    if parts > 1 and any(getattr(part, "remembers_batches", False) for part in model.modules()):
        raise PartsError(1, parts, name)
    if team.size > 1 and any(getattr(part, "sparse", False) for part in model.modules()):
        raise RowsNotSharedError(name, team.size)
