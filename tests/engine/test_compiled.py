"""Compiled training: how many graphs there are, and that what has been compiled once is never compiled again."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

import models
from randomix import mixers
from randomix.engine.distributed import World
from randomix.mixers.base_network import HiddenMixer
from tests.engine.test_network_mixers import quiet, tapped_group_net
from tests.support import make_trainer, tiny_config

HIDDEN = [n for n in mixers.available() if issubclass(mixers.get(n), HiddenMixer)]
PIXELS = [n for n in mixers.available() if n not in (*HIDDEN, "randomix")]
SLOW = ("puzzlemix", "comixup")
SAMPLES = [{"name": n, "granularity": "sample"} for n in ("mixup", "cutmix", "resizemix", "fmix", "saliencymix")]
PLACES = {"manifold_mixup": {"taps": [0, 2, 3]}, "patchup": {"taps": [0, 1, 2], "block_size": 3}}


@pytest.fixture
def counter(monkeypatch):
    """Counts the graphs of what is compiled inside; no code is generated for them."""
    counter, compiler = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: compiler(model, backend=counter, **options))
    limit = torch._dynamo.config.cache_size_limit
    counters.clear()
    yield counter
    torch._dynamo.config.cache_size_limit = limit
    torch._dynamo.reset()


def trainer_of(folder, mixer, factory=models.build, **sections):
    trainer = {"compile": True} | sections.pop("trainer", {})
    size = sections.pop("dataset", {"height": 16, "width": 16})
    config = tiny_config(folder, trainer=trainer, dataset=size, **sections)
    config["mixer"] = mixer
    running = make_trainer(config, World(), factory)
    running.model.train()
    return running


def steps(running, first, last):
    stopper = quiet()
    for batch in running.loader.batches(first, last):
        running.step(running.progress.step, batch, stopper)
        running.progress.step += 1


def composite(names, *more):
    candidates = [*[{"name": n, **PLACES.get(n, {})} for n in names], *more]
    weights = [0.3 if candidate["name"] in SLOW else 1 for candidate in candidates]
    return {"name": "randomix", "candidates": candidates, "weights": weights}


CASES = {"fp32": ("fp32", {}), "bf16-accumulated": ("bf16", {"accumulate": 2, "ema_decay": 0.9})}


@pytest.mark.parametrize(("precision", "recipe"), CASES.values(), ids=CASES)
def test_all_methods_that_mix_pixels_share_one_graph(tmp_path, counter, precision, recipe):
    mixer = composite(PIXELS, *SAMPLES)
    running = trainer_of(tmp_path, mixer, trainer={"precision": precision}, recipe={"epochs": 9} | recipe)
    steps(running, 0, 2)
    with torch._dynamo.config.patch(error_on_recompile=True):
        steps(running, 2, 20)
        running.evaluate()  # in evaluation mode, under inference mode
        steps(running, 20, 48)
    assert set(running.progress.candidates) == set(PIXELS)
    assert counter.frame_count == 1
    assert not counters["graph_break"]


def test_hidden_methods_have_one_graph_for_each_tap_and_share_that_of_the_pixels(tmp_path, counter):
    inside = {n: sum(tap > 0 for tap in PLACES[n]["taps"]) for n in HIDDEN}
    assert max(inside.values()) < 4
    running = trainer_of(tmp_path, composite([*HIDDEN, "mixup", "cutmix"]), recipe={"epochs": 9})
    steps(running, 0, 24)  # until each place has been drawn
    assert counter.frame_count == 1 + sum(inside.values())
    with torch._dynamo.config.patch(error_on_recompile=True):
        running.evaluate()
        steps(running, 24, 48)
    assert counter.frame_count == 1 + sum(inside.values())
    assert not counters["graph_break"]


def test_a_graph_for_each_tap_however_many(tmp_path, counter):
    """More graphs than dynamo makes by itself before it gives up, which it does with a warning only."""
    taps = [1, 2, 3, 4, 5]
    everywhere = [{"name": n, "taps": taps, **o} for n, o in (("manifold_mixup", {}), ("patchup", {"block_size": 1}))]
    mixer = {"name": "randomix", "candidates": [*everywhere, "mixup"], "weights": [5, 5, 1]}
    with torch._dynamo.config.patch(cache_size_limit=8):  # as it comes
        running = trainer_of(tmp_path, mixer, deep, recipe={"epochs": 12}, dataset={})
        steps(running, 0, running.total_steps)
    assert counter.frame_count == 11


def deep(config, *, sample_shape, num_classes):
    return tapped_group_net({"layers": 5}, sample_shape=sample_shape, num_classes=num_classes)


@pytest.mark.parametrize(("names", "ulps"), [(PIXELS, 0), (HIDDEN, 16)], ids=["pixels", "hidden"])
def test_compiled_steps_compute_what_eager_ones_do(tmp_path, counter, names, ulps):
    found = []
    for compiled in (False, True):
        running = trainer_of(tmp_path, composite(names), trainer={"compile": compiled}, recipe={"epochs": 9})
        steps(running, 0, 16)
        found.append(list(running.model.state_dict().values()))
    assert counter.frame_count >= 1
    for eager, graph in zip(*found, strict=True):  # hidden: lam is a float32 there
        torch.testing.assert_close(graph, eager, rtol=ulps * 2**-23, atol=ulps * 2**-23)
