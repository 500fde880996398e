"""Training meters against sums in Python, over ranks and across a checkpoint."""

import math

import pytest
import torch

from randomix.engine.meters import TrainMeter


def make_batches(count=5, classes=4):
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        size = 3 + number
        targets = torch.rand(size, classes, generator=generator)
        yield (
            torch.rand((), generator=generator),
            torch.randn(size, classes, generator=generator),
            targets / targets.sum(1, True),
        )


def slow(batches):
    loss = credit = count = 0.0
    for mean, logits, targets in batches:
        loss += float(mean) * len(logits)
        credit += sum(float(targets[i, int(logits[i].argmax())]) for i in range(len(logits)))
        count += len(logits)
    return loss / count, 100 * credit / count, count


def test_means_over_samples():
    meter, batches = TrainMeter("cpu"), list(make_batches())
    for batch in batches:
        meter.update(*batch)
    loss, soft, count = slow(batches)
    assert meter.read() == {
        "loss": pytest.approx(loss),
        "soft_top1": pytest.approx(soft),
        "samples": count == 25 and 25,
    }
    assert meter.read() == {"loss": 0, "soft_top1": 0, "samples": 0}
    meter.update(*batches[1])
    assert meter.read()["loss"] == pytest.approx(float(batches[1][0]))


def test_soft_accuracy_is_plain_accuracy_for_hard_targets():
    meter = TrainMeter(torch.device("cpu"))
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    meter.update(torch.tensor(1.0), logits, torch.eye(2)[[0, 1, 1, 1]])
    assert meter.read()["soft_top1"] == 75
    meter.update(torch.tensor(1.0), logits[:1], torch.tensor([[0.3, 0.7]]))
    assert meter.read()["soft_top1"] == pytest.approx(30)


def test_half_precision_sums_do_not_saturate():
    meter = TrainMeter("cpu")
    for _ in range(300):
        meter.update(
            torch.tensor(1.0, dtype=torch.bfloat16), torch.zeros(64, 2, dtype=torch.bfloat16), torch.eye(2)[[0] * 64]
        )
    assert meter.read() == {"loss": 1, "soft_top1": 100, "samples": 300 * 64}


def test_nan_is_kept():
    meter = TrainMeter("cpu")
    meter.update(torch.tensor(math.nan), torch.zeros(2, 2), torch.eye(2))
    assert math.isnan(meter.read()["loss"])


def test_ranks_and_a_checkpoint_keep_the_sums():
    batches = list(make_batches())
    ranks = [TrainMeter("cpu"), TrainMeter("cpu")]
    for number, batch in enumerate(batches[:4]):
        ranks[number % 2].update(*batch)
    other = torch.tensor(ranks[1].state(), dtype=torch.float64)
    saved = ranks[0].state(reduce=lambda sums: sums + other)
    assert ranks[0].state() != saved  # saving changes nothing
    continued = TrainMeter("cpu")
    continued.load_state(saved)
    continued.update(*batches[4])
    loss, soft, count = slow(batches)
    assert continued.read() == {"loss": pytest.approx(loss), "soft_top1": pytest.approx(soft), "samples": count}


def test_update_keeps_no_graph():
    meter = TrainMeter("cpu")
    loss = torch.rand(3, requires_grad=True).sum()
    meter.update(loss, torch.zeros(3, 2), torch.eye(2)[[0, 1, 0]])
    assert not meter._sums.requires_grad
