"""The evaluators by name: what they report, that they repeat, and that wrong settings are found before training."""

import statistics
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

import datasets
import models
from randomix.engine.distributed import World
from randomix.engine.evaluate import evaluate
from randomix.errors import ConfigError, DataError
from randomix.robustness.evaluators import EVALUATORS, check_evaluators, run_evaluators
from randomix.robustness.noise import add_gaussian_noise
from randomix.robustness.occlusion import occlude

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SETTINGS = {"clean": {}, "noise": {"sigma": 0.3, "repeats": 2}, "occlusion": {"block": 4, "repeats": 3, "seed": 5}}


@pytest.fixture(scope="module")
def trained():
    """A small network after a few passes over 200 digits: right more often than not."""
    torch.manual_seed(0)
    data = datasets.build({"name": "digits", "train_size": 200})
    model = models.build(
        {"name": "preact_resnet18", "width": 8, "blocks": [1, 1, 1]}, sample_shape=data.sample_shape, num_classes=10
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = data.train_loader(batch_size=50, seed=0, rank=0, world_size=1, device=CPU, dtype=torch.float32)
    for batch in loader.batches(0, 15 * loader.steps_per_epoch):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch.inputs), batch.labels).backward()
        optimizer.step()
    return model, data.eval_set(CPU)


def fitting(shape, splits=("test",), **more):
    """All that the checks look at in a data set."""
    return SimpleNamespace(name="toy", input_shape=shape, splits=splits, **more)


def run(trained, names=("clean", "noise", "occlusion"), settings=SETTINGS, batch_size=200):
    return run_evaluators(*trained, names=names, settings=settings, batch_size=batch_size)


def test_metrics_come_from_counts(trained):
    found = run(trained)
    metrics, counts = found["metrics"], found["counts"]
    assert set(metrics) == {
        "top1",
        "top1_error",
        "top5",
        "loss",
        "ece",
        "noise_error",
        "occlusion_error",
        "occlusion_error_std",
    }
    assert set(counts) == {"clean", "noise", "occlusion"} and all(c["total"] == 597 for c in counts.values())
    assert metrics["top1"] > 80 and metrics["top5"] > 95
    assert metrics["top1"] == pytest.approx(100 * counts["clean"]["correct1"] / 597)
    assert metrics["top1"] + metrics["top1_error"] == pytest.approx(100)
    errors = [100 * (597 - correct) / 597 for correct in counts["occlusion"]["correct1"]]
    assert len(set(errors)) > 1  # mask seeds differ
    assert metrics["occlusion_error"] == pytest.approx(statistics.fmean(errors))
    assert metrics["occlusion_error_std"] == pytest.approx(statistics.stdev(errors))
    assert len(counts["noise"]["correct1"]) == 2
    assert metrics["occlusion_error"] > metrics["top1_error"] and metrics["noise_error"] > metrics["top1_error"]


def test_each_repeat_has_the_next_seed(trained):
    model, eval_set = trained
    found = run(trained)["counts"]
    for repeat in range(3):
        result = evaluate(
            model, eval_set, lambda b, s=5 + repeat: occlude(b.inputs, b.indices, block=4, seed=s), batch_size=64
        )
        assert result.correct1 == found["occlusion"]["correct1"][repeat]
    for repeat in range(2):
        result = evaluate(
            model, eval_set, lambda b, s=repeat: add_gaussian_noise(b.inputs, b.indices, 0.3, s), batch_size=64
        )
        assert result.correct1 == found["noise"]["correct1"][repeat]


class Kept(dict):
    """Finished passes, in memory."""

    put = dict.__setitem__


def test_finished_passes_are_not_made_again(trained):
    model, eval_set = trained
    settings = {
        "occlusion": {"repeats": 2},
        "occlusion_sweep": {"blocks": [0.25, 4.0], "repeats": 2},
        "noise": {"repeats": 2},
        "pgd": {"steps": 2},
        "fgsm": {"quantize": True},
    }
    cells = Kept()
    options = {"names": list(settings), "settings": settings, "batch_size": 300, "cells": cells}
    whole = run_evaluators(model, eval_set, **options)
    assert len(cells) == 2 + 8 + 2 + 1 + 1
    nothing = SimpleNamespace(value_range=(0.0, 1.0), normalise=None)  # without samples
    assert run_evaluators(model, nothing, **options) == whole
    for name in list(cells)[::2]:
        del cells[name]
    assert run_evaluators(model, eval_set, **options) == whole and len(cells) == 14


def test_batch_size_changes_no_count(trained):
    assert run(trained, batch_size=7)["counts"] == run(trained, batch_size=597)["counts"]


def test_ranks_see_the_same_perturbed_images(trained):
    model, eval_set = trained
    whole = run(trained, names=["occlusion"])["counts"]["occlusion"]["correct1"]
    summed = [0, 0, 0]
    for rank in range(4):
        found = run_evaluators(
            model, eval_set, names=["occlusion"], settings=SETTINGS, batch_size=50, world=World(rank, 4)
        )
        summed = [a + b for a, b in zip(summed, found["counts"]["occlusion"]["correct1"], strict=True)]
    assert summed == whole


def test_a_sweep_is_the_single_occlusions(trained):
    settings = {"blocks": [0.25, 5.0], "placements": ["inside", "clipped"], "repeats": 2, "seed": 3, "fill": 0.5}
    found = run(trained, names=["occlusion_sweep"], settings={"occlusion_sweep": settings})
    metrics, counts = found["metrics"], found["counts"]["occlusion_sweep"]
    assert (counts["total"], counts["blocks"], list(counts["correct1"])) == (597, [0.25, 5.0], ["inside", "clipped"])
    errors = []
    for placement in ("inside", "clipped"):
        for block, pixels, correct in zip(("0.25", "5"), (2, 5), counts["correct1"][placement], strict=True):
            single = {"block": pixels, "placement": placement, "repeats": 2, "seed": 3, "fill": 0.5}
            alone = run(trained, names=["occlusion"], settings={"occlusion": single})
            assert alone["counts"]["occlusion"]["correct1"] == correct
            errors.append(alone["metrics"]["occlusion_error"])
            assert metrics[f"occlusion_sweep_error_{placement}_{block}"] == pytest.approx(errors[-1])
    assert metrics["occlusion_sweep_error"] == pytest.approx(statistics.fmean(errors))
    again = run(trained, names=["occlusion_sweep"], settings={"occlusion_sweep": settings}, batch_size=7)
    assert again["counts"]["occlusion_sweep"] == counts


def test_bins_of_confidence_give_the_calibration_error(trained):
    found = run(trained, names=["clean"])
    bins = found["counts"]["clean"]["bins"]
    assert len(bins) == 15 and sum(b[0] for b in bins) == 597
    assert sum(b[1] for b in bins) == found["counts"]["clean"]["correct1"]
    for number, (samples, correct, confidence) in enumerate(bins):
        assert 0 <= correct <= samples
        assert samples * number / 15 - 1e-3 <= confidence <= samples * (number + 1) / 15 + 1e-3
    ece = 100 * sum(abs(correct - confidence) for _, correct, confidence in bins) / 597
    assert ece == pytest.approx(found["metrics"]["ece"], abs=1e-3)
    model, eval_set = trained
    (batch,) = eval_set.batches(597)
    with torch.inference_mode():
        shares = model.eval()(eval_set.normalise(batch.inputs)).softmax(1).amax(1).double()
    assert sum(b[2] for b in bins) == pytest.approx(float(shares.sum()), abs=2e-3)


def test_limits(trained):
    clean = run(trained, names=["clean"])["metrics"]["top1_error"]
    none = {"occlusion": {"n_blocks": 0, "repeats": 1}, "noise": {"sigma": 0.0}}
    found = run(trained, names=["occlusion", "noise"], settings=none)
    assert found["metrics"] == {"occlusion_error": clean, "occlusion_error_std": 0.0, "noise_error": clean}
    assert isinstance(found["counts"]["occlusion"]["correct1"], int)
    everything = {"occlusion": {"block": 8, "placement": "inside", "repeats": 2}}
    found = run(trained, names=["occlusion"], settings=everything)["metrics"]
    assert found["occlusion_error"] > 85 and found["occlusion_error_std"] == 0  # one prediction for all


def test_defaults_and_order(trained):
    found = run(trained, names=["noise", "clean"], settings={})
    assert list(found["counts"]) == ["noise", "clean"]
    assert list(EVALUATORS) == sorted(p.stem for p in (ROOT / "configs" / "evaluator").glob("*.yaml"))


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["clear"], {}, rf"evaluators has 'clear', must be one of {', '.join(EVALUATORS)}; did you mean clean\?"),
        (["clean"], {"clean": {"x": 1}}, "evaluator.clean.x is not a setting; there are none"),
        (["noise"], {"noise": {"sgima": 1}}, r"noise.sgima is not a setting; did you mean evaluator.noise.sigma\?"),
        (["noise"], {"noise": {"x": 1}}, "evaluator.noise.x is not a setting; there are sigma, seed, repeats"),
        (["noise"], {"noise": {"repeats": 0}}, "evaluator.noise.repeats is 0"),
        (
            ["occlusion"],
            {"occlusion": {"block": 9}},
            "evaluator.occlusion: occlusion block is 9 pixels, expected 1 to 8",
        ),
        (["occlusion"], {"occlusion": {"kind": "x"}}, "evaluator.occlusion: occlusion kind is 'x'"),
        (["occlusion"], {"occlusion": {"fill": [0.1, 0.2]}}, "fill has 2 entries for inputs of 1 channels"),
        (["occlusion_sweep"], {"occlusion_sweep": {"blocks": [4, 9]}}, "evaluator.occlusion_sweep: .* is 9 pixels"),
        (["occlusion"], {"occlusion": {"fill": 2, "block": 9}}, "fill is 2, expected 0 to 1.*\n.*block is 9"),
        (["occlusion_sweep"], {"occlusion_sweep": {"blocks": [4, 2, 4.0]}}, "blocks has 4 twice; each may occur once"),
        (["occlusion_sweep"], {"occlusion_sweep": {"placements": ["inside"] * 2}}, "placements has inside twice"),
        (["occlusion_sweep"], {"occlusion_sweep": {"blocks": []}}, "blocks and placements need one entry or more"),
        (["snr_noise"], {}, r"evaluators has snr_noise, which is for sound .*; the samples of toy are \(1, 8, 8\)"),
        (["fgsm_sound"], {}, "evaluators has fgsm_sound, which is for sound"),
        (["a", "noise"], {"noise": {"b": 1}}, "evaluators has 'a'.*\n.*evaluator.noise.b"),
    ],
)
def test_wrong_settings(names, settings, message):
    with pytest.raises(ConfigError, match=message):
        check_evaluators(names, settings, fitting((1, 8, 8)))


def damaged(*_, **__):
    raise DataError("cifar10_c/fog.npy: cut short")


def test_the_problems_of_all_evaluators_are_told_at_once():
    """Also those found later than a wrong name, damaged files and a data set that cannot be corrupted."""
    names = ["claen", "corruptions", "occlusion", "noise", "validation"]
    settings = {"occlusion": {"block": 9}, "noise": {"repeats": 0}}
    data = fitting((1, 8, 8), check_corrupted=damaged)
    with pytest.raises(ConfigError) as caught:
        check_evaluators(names, settings, data)
    parts = ("claen", "block is 9", "noise.repeats is 0", "no validation split", "fog.npy: cut short")
    assert len(caught.value.problems) == 5
    assert all(part in line for part, line in zip(parts, caught.value.problems, strict=True))
    with pytest.raises(DataError, match=r"^cifar10_c/fog.npy: cut short$"):
        check_evaluators(["corruptions", "clean"], {}, data)
    refused = fitting((1, 8, 8), check_corrupted=lambda *_, **__: check_evaluators(["x"], {}))
    with pytest.raises(ConfigError, match=r"^evaluators has 'x'.*\nevaluators has validation"):
        check_evaluators(["corruptions", "validation"], {}, refused)


def test_validation_needs_a_validation_split(trained):
    with pytest.raises(ConfigError, match="evaluators has validation, but toy has no validation split; leave it out"):
        check_evaluators(["clean", "validation"], {}, fitting((1, 8, 8)))
    check_evaluators(["validation"], {}, fitting((1, 8, 8), ("test", "validation")))
    model, eval_set = trained
    asked = []
    found = run_evaluators(
        model,
        eval_set,
        names=["validation"],
        settings={},
        batch_size=50,
        split=lambda name: asked.append(name) or eval_set,
    )
    expected = evaluate(model, eval_set, batch_size=50)
    assert asked == ["validation"] and found["counts"] == {"validation": {"total": 597, "correct1": expected.correct1}}
    assert found["metrics"] == {
        "validation_top1": expected.top1,
        "validation_top1_error": expected.top1_error,
        "validation_loss": expected.loss,
    }


def test_perturbations_stay_in_the_range_of_what_is_perceived(trained):
    """Sound lies in [-1, 1]: an attack and noise may leave [0, 1] there, and not [-1, 1]."""
    model, pixels = trained

    class Sound:
        num_samples, value_range = 20, (-1.0, 1.0)
        seen: ClassVar[list[torch.Tensor]] = []

        def batches(self, batch_size, rank=0, world_size=1):
            for batch in pixels.batches(20):
                yield replace(batch, inputs=batch.inputs * 2 - 1)
                return

        def normalise(self, inputs):
            self.seen.append(inputs.detach())
            return pixels.normalise((inputs + 1) / 2)

    for name, settings in [("fgsm", {"eps_255": 51.0}), ("noise", {"sigma": 0.5})]:
        Sound.seen.clear()
        run_evaluators(model, Sound(), names=[name], settings={name: settings}, batch_size=20)
        last = Sound.seen[-1]
        assert last.min() == -1 and last.max() <= 1 and last.amin() < 0


def test_good_settings_pass():
    check_evaluators(["clean", "noise", "occlusion"], SETTINGS, fitting((1, 8, 8)))
    check_evaluators(
        ["occlusion"], {"occlusion": {"fill": [0.1, 0.2, 0.3], "kind": "grid", "block": 2}}, fitting((3, 8, 8))
    )
