"""Methods that need the network, in the engine: gradients of two ranks."""

import pytest
import torch
from torch import nn

from randomix import mixers
from randomix.engine import distributed
from randomix.engine.distributed import World
from randomix.engine.stopper import Stopper
from randomix.mixers.base_network import HiddenMixer, SaliencyMixer
from tests.support import make_trainer, on_ranks, tiny_config

HIDDEN = [n for n in mixers.available() if issubclass(mixers.get(n), HiddenMixer)]
SALIENCY = [n for n in mixers.available() if issubclass(mixers.get(n), SaliencyMixer)]
CASES = [{"name": n, "prob": 1.0} for n in HIDDEN] + [{"name": n} for n in SALIENCY]
CASES += [{"name": n, "clean_weight": 1.0} for n in SALIENCY]


class TappedGroupNet(nn.Module):
    """Convolutions with group normalisation and a tap before each and after the last."""

    def __init__(self, channels, num_classes, depth=3):
        super().__init__()
        self.num_taps = depth + 1
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU())
            for i in [channels, *[8] * (depth - 1)]
        )
        self.head = nn.Linear(8, num_classes)

    def forward(self, inputs, tap=None):
        features = inputs if tap is None else tap(0, inputs)
        for index, layer in enumerate(self.layers):
            features = layer(features)
            features = features if tap is None else tap(1 + index, features)
        return self.head(features.mean((2, 3)))


def tapped_group_net(config, *, sample_shape, num_classes):
    return TappedGroupNet(sample_shape[0], num_classes, config.get("layers", 3))


def quiet():
    """A stopper that hears no signal."""
    stopper = Stopper()
    stopper.close()
    return stopper


# -- two ranks ----------------------------------------------------------------------------------------------------


def gradients(config, world, steps):
    """Gradients of each of ``steps``, all at the initial weights."""
    running = make_trainer(config, world, tapped_group_net)
    found = []
    running.optimizer.step = lambda *_, **__: None
    running.optimizer.zero_grad = lambda **_: None  # keep them to look at
    for step in steps:
        for p in running.model.parameters():
            p.grad = None
        (batch,) = running.loader.batches(step, step + 1)
        running.step(step, batch, quiet())
        found.append([p.grad.clone() for p in running.model.parameters()])
    return found


@pytest.mark.parametrize("config", CASES, ids=lambda c: "-".join(map(str, c.values())))
def test_two_ranks_train_on_the_mean_of_their_mixed_halves(tmp_path, monkeypatch, config):
    """Each rank draws for itself: the reference runs both, one after the other, and averages."""
    steps, whole = range(6), tiny_config(tmp_path, dataset={"height": 16, "width": 16})
    whole["mixer"] = config

    def work(world: World) -> None:
        torch.save(gradients(whole, world, steps), tmp_path / f"rank-{world.rank}.pt")

    on_ranks(2, work, tmp_path)
    found = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
    monkeypatch.setattr(distributed, "ddp", lambda module, world: module)
    halves = [gradients(whole, World(rank, 2), steps) for rank in (0, 1)]
    largest = 0.0
    for step in steps:
        for ours, theirs, a, b in zip(found[0][step], found[1][step], halves[0][step], halves[1][step], strict=True):
            assert torch.equal(ours, theirs)
            torch.testing.assert_close(ours, (a + b) / 2, rtol=1e-5, atol=1e-6)
            largest = max(largest, float((a - b).abs().max()))
    assert largest > 1e-3  # the halves are not alike
