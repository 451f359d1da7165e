"""What a person sees of a training that runs in a process of its own."""

from __future__ import annotations

from types import SimpleNamespace

from flows.steps.train import follow


class Told:
    """Keeps what was said."""

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)

    def advance(self, label, done, total, detail):
        self.lines.append(f"{label}: {done}, {detail}")


def told(*events):
    progress = Told()
    model = SimpleNamespace(
        label="ease", seed=1, model_id="ab12", evaluation={"select_by": "recall@20"}, training={"epochs": 90}
    )
    on_event = follow(SimpleNamespace(progress=progress), model, "reproduce")
    for event in events:
        on_event(event)
    return progress.lines


def test_a_training_that_goes_on_still_tells_its_best():
    resumed = {"event": "resume", "epoch": 7, "best_epoch": 4, "best_value": 0.25}
    assert told(resumed, {"event": "epoch", "epoch": 7, "seconds": 2.0}) == [
        "reproduce ease seed 1: starting (ab12)",
        "reproduce ease seed 1: goes on with epoch 7",
        "reproduce ease seed 1: 8, 2.0 s/epoch, best recall@20 0.2500 at epoch 4, at most 90 epochs",
    ]


def test_before_the_first_validation_nothing_is_best():
    lines = told({"event": "resume", "epoch": 1}, {"event": "epoch", "epoch": 1, "seconds": 2.0})
    assert lines[-1] == "reproduce ease seed 1: 2, 2.0 s/epoch, at most 90 epochs"


def test_a_state_that_cannot_be_gone_on_with_is_told():
    assert told({"event": "discarded", "message": "another device. Training begins anew"})[-1] == (
        "reproduce ease seed 1: another device. Training begins anew"
    )
