"""Exact evaluation against a slow loop: ranks, batch sizes, ties, few classes, modes, bad numbers."""

import contextlib
import math

import pytest
import torch
from torch import nn

from datasets.resident import ArrayData
from randomix.engine.distributed import World
from randomix.engine.evaluate import evaluate
from randomix.errors import NonFiniteError

CPU = torch.device("cpu")


def make_eval_set(num_samples, num_classes=7):
    generator = torch.Generator().manual_seed(num_samples)
    images = torch.randint(0, 256, (num_samples, 4, 3, 2), generator=generator, dtype=torch.uint8).numpy()
    labels = torch.randint(0, num_classes, (num_samples,), generator=generator).numpy()
    names = tuple(map(str, range(num_classes)))
    return ArrayData("toy", names, images, labels, images, labels, (0.5, 0.4), (0.2, 0.3)).eval_set(CPU)


def make_model(num_classes=7):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(24, num_classes))


def slow(model, eval_set, transform=lambda batch: batch.inputs):
    """(correct1, correct5, loss sum, ece in percent), one sample at a time, with Python's own arithmetic."""
    correct1 = correct5 = 0
    loss, bins = 0.0, {}
    for batch in eval_set.batches(1):
        logits = model(eval_set.normalise(transform(batch)))[0].double().tolist()
        label = int(batch.labels)
        order = sorted(range(len(logits)), key=lambda k: (-logits[k], k))
        correct1 += order[0] == label
        correct5 += label in order[:5]
        total = sum(map(math.exp, logits))
        loss += math.log(total) - logits[label]
        confidence = math.exp(logits[order[0]]) / total
        bins.setdefault(math.ceil(confidence * 15), []).append((order[0] == label, confidence))
    ece = sum(abs(sum(c for c, _ in part) - sum(p for _, p in part)) for part in bins.values())
    return correct1, correct5, loss, 100 * ece / eval_set.num_samples


class Sent(Exception):
    """A rank has handed in its sums."""


def over_ranks(model, eval_set, batch_size, world_size, transform=None):
    """What each of ``world_size`` ranks gets: all hand in their sums, then the last one continues with the total."""
    sums = []

    def reduce(tensor):
        sums.append(tensor.clone())
        if len(sums) < world_size:
            raise Sent
        return torch.stack(sums).sum(0)

    for rank in range(world_size):
        with contextlib.suppress(Sent):
            world = World(rank, world_size)
            return evaluate(model, eval_set, transform, batch_size=batch_size, world=world, reduce=reduce)
    raise AssertionError("no rank reduced")


@pytest.mark.parametrize("num_samples", [1, 2, 7, 13, 101])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_same_integers_for_any_ranks_and_batches(num_samples, world_size, batch_size):
    model, eval_set = make_model(), make_eval_set(num_samples)
    correct1, correct5, loss, ece = slow(model, eval_set)
    result = over_ranks(model, eval_set, batch_size, world_size)
    assert (result.correct1, result.correct5, result.total) == (correct1, correct5, num_samples)
    assert abs(result.loss_sum - loss) < 1e-4 and abs(result.ece - ece) < 1e-3
    assert sum(b[0] for b in result.bins) == num_samples and sum(b[1] for b in result.bins) == correct1


def test_derived_numbers():
    model, eval_set = make_model(), make_eval_set(101)
    result = evaluate(model, eval_set, batch_size=10)
    correct1, correct5, loss, _ = slow(model, eval_set)
    assert result.top1 == 100 * correct1 / 101 and result.top5 == 100 * correct5 / 101
    assert result.top1_error == 100 * (101 - correct1) / 101
    assert abs(result.loss - loss / 101) < 1e-6


@pytest.mark.parametrize(
    ("logit", "place"), [(0.0, 7), (math.log(0.61 / 0.39), 9), (math.log(0.59 / 0.41), 8), (100.0, 14)]
)
def test_confidence_bins(logit, place):
    """Two classes: confidences 0.5, just above and below the edge at 9 / 15, and 1."""
    model, eval_set = make_model(2), make_eval_set(20, 2)
    nn.init.zeros_(model[1].weight)
    model[1].bias.data = torch.tensor([logit, 0.0])
    result = evaluate(model, eval_set, batch_size=6)
    occupied = [index for index, (count, _, _) in enumerate(result.bins) if count]
    assert len(result.bins) == 15 and occupied == [place]
    confidence = 1 / (1 + math.exp(-logit))
    assert result.ece == pytest.approx(100 * abs(result.correct1 / 20 - confidence), abs=1e-4)


@pytest.mark.parametrize("num_classes", [2, 5, 6])
def test_few_classes(num_classes):
    result = evaluate(make_model(num_classes), make_eval_set(50, num_classes), batch_size=8)
    assert (result.correct5 == 50) is (num_classes <= 5)


def test_ties_go_to_the_lowest_class():
    model = make_model()
    nn.init.zeros_(model[1].weight), nn.init.zeros_(model[1].bias)
    eval_set = make_eval_set(101)
    labels = torch.cat([b.labels for b in eval_set.batches(101)])
    result = evaluate(model, eval_set, batch_size=10)
    assert result.correct1 == int((labels == 0).sum()) and result.correct5 == int((labels < 5).sum())


def test_transform_sees_pixels_and_indices_and_may_differentiate():
    model, eval_set = make_model(), make_eval_set(23)
    seen = []

    def attack(batch):
        assert batch.inputs.min() >= 0 and batch.inputs.max() <= 1
        seen.extend(batch.indices.tolist())
        inputs = batch.inputs.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(eval_set.normalise(inputs)), batch.labels, reduction="sum")
        return (inputs + 0.05 * torch.autograd.grad(loss, inputs)[0].sign()).clamp(0, 1).detach()

    result = evaluate(model, eval_set, attack, batch_size=4)
    assert sorted(seen) == list(range(23))
    assert (result.correct1, result.correct5) == slow(model, eval_set, attack)[:2]
    assert result.loss > evaluate(model, eval_set, batch_size=4).loss


def test_modes_are_restored_part_by_part():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(24), nn.Dropout(0.5), nn.Linear(24, 7)).train()
    model[1].eval()  # frozen
    during = []
    model[3].register_forward_hook(lambda *_: during.append([m.training for m in model]))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    evaluate(model, make_eval_set(9), batch_size=4)
    assert not any(map(any, during))
    assert [m.training for m in model] == [True, False, True, True] and model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    def fail(batch):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        evaluate(model, make_eval_set(9), fail, batch_size=4)
    assert [m.training for m in model] == [True, False, True, True]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("world_size", [1, 3])
def test_bad_logits_are_an_error_not_a_miss(value, world_size):
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = 0
            self.inner = make_model()

        def forward(self, inputs):
            logits = self.inner(inputs).clone()
            self.seen += 1
            if self.seen == 1:
                logits[0, 2] = value
            return logits

    with pytest.raises(NonFiniteError, match="logits of 1 of 10 samples are NaN or infinite"):
        over_ranks(Sometimes(), make_eval_set(10), 3, world_size)


def test_empty_set():
    with pytest.raises(ValueError, match="no samples"):
        evaluate(make_model(), make_eval_set(0), batch_size=4)


def test_autocast_is_entered_for_forward_passes_only():
    model, eval_set = make_model(), make_eval_set(9)
    dtypes = []
    model[1].register_forward_hook(lambda _m, _i, out: dtypes.append(out.dtype))

    def transform(batch):
        assert not torch.is_autocast_enabled("cpu") and not torch.is_inference_mode_enabled()
        return batch.inputs

    evaluate(model, eval_set, transform, batch_size=4, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    assert dtypes == [torch.bfloat16] * 3


def test_gradients_work_after_an_evaluation_under_autocast():
    """Weights cast in inference mode must not linger in autocast's cache."""
    model, eval_set = make_model(), make_eval_set(9)
    with torch.autocast("cpu", torch.bfloat16):
        evaluate(model, eval_set, batch_size=4, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.rand(2, 2, 4, 3)).float().sum().backward()
    assert model[1].weight.grad is not None


def test_inside_a_process_group(tmp_path):
    model, eval_set = make_model(), make_eval_set(9)
    alone = evaluate(model, eval_set, batch_size=4)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert evaluate(model, eval_set, batch_size=4) == alone
        wrapped = nn.parallel.DistributedDataParallel(model)
        assert evaluate(wrapped, eval_set, batch_size=4) == alone
    finally:
        torch.distributed.destroy_process_group()
