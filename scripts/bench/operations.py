"""The mixing operations alone, at every size, against other libraries and against the form that the authors use.

Integer labels and a batch go in, the mixed batch and what its loss needs come out, all draws included.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import authors, rivals
from bench.measure import Sample, timed
from randomix import StepRng, functional, mixers
from randomix.devices import to_device
from randomix.mixers.base import BatchMixer
from randomix.mixers.base_network import HiddenMixer, SaliencyMixer

SIZES = (32, 64, 224, 16_000)  # pixels of a side; from LEAST_SAMPLES on, samples of a recording
LEAST_SAMPLES = 1024
BATCHES = (128, 256)
LAYOUTS = ("channels_last", "NCHW")  # what our trainer feeds; what most loaders do
CLASSES = {32: 100, 64: 200, 224: 1000, 16_000: 35}  # of the data sets that have these sizes
NETWORK_SIZE = 32  # where the methods that need the network are timed
SAMPLE_SECONDS = 0.03  # of work in one sample
CASE_SECONDS = 1.5  # a case that takes longer has fewer rounds, but at least LEAST_ROUNDS
LEAST_ROUNDS = 3
FEATURES = 64  # channels of the hidden features: those of the network's first stage at full width
TURNS = 16  # different steps of each candidate of a composite
OURS = "ours"
OURS_IN_PLACE = "ours, in place"  # as in the trainer, whose loaders make each batch for one step
COPY = "copy of the batch"
CLOCKS = {"cpu": "cpu", "cuda": "wall"}  # whose ratios count


@dataclass(frozen=True)
class Point:
    """Batches of one shape: (batch, 3, size, size), or (batch, 1, size) for recordings."""

    size: int
    batch: int
    layout: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (C, *S) of a sample."""
        return (1, self.size) if self.size >= LEAST_SAMPLES else (3, self.size, self.size)

    @property
    def classes(self) -> int:
        """K of the targets."""
        return CLASSES.get(self.size, 10)


@dataclass(frozen=True)
class Case:
    """``run()`` is one operation; ``prepare`` comes before each sample and is not timed.

    The operations of one sample come in multiples of ``cycle``, so that each sample has the same mixture of work.
    """

    run: Callable[[], object]
    prepare: Callable[[], object] | None = None
    cycle: int = 1


Cases = dict[tuple[str, str], Case]  # by method and whose it is


@dataclass(frozen=True)
class Measured:
    """Samples of every case of a point, by method and whose it is; each has ``repeats`` operations."""

    point: Point
    samples: dict[tuple[str, str], list[Sample]]
    repeats: dict[tuple[str, str], int] = field(default_factory=dict)


def points(sizes: Sequence[int], batches: Sequence[int]) -> list[Point]:
    """All of them; one channel has one layout."""
    return [
        Point(size, batch, layout)
        for size in sizes
        for batch in batches
        for layout in (LAYOUTS if size < LEAST_SAMPLES else LAYOUTS[1:])
    ]


def measure(
    point: Point, rounds: int, device: torch.device, networks: bool, progress: Callable[[str], None]
) -> Measured:
    """``rounds`` samples of every case side by side, each round in another order; fewer of those that take long."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)  # timm's rectangles
    found = cases(point, device)
    if networks and point.size == NETWORK_SIZE:
        found |= network_cases(point, device)
    seconds = {}
    for number, name in enumerate(found):
        progress(f"{point.shape} x {point.batch}, {point.layout}: warming up {number + 1} of {len(found)}    ")
        seconds[name] = _seconds(found[name])
    repeats = {name: _multiple(SAMPLE_SECONDS / s, found[name].cycle) for name, s in seconds.items()}
    last = {n: max(LEAST_ROUNDS, int(CASE_SECONDS / (s * repeats[n]))) for n, s in seconds.items()}
    samples: dict[tuple[str, str], list[Sample]] = {name: [] for name in found}
    for number in range(rounds):
        for name in _shuffled(found, number):
            if number < last[name]:
                samples[name].append(_sample(found[name], repeats[name]))
        progress(f"{point.shape} x {point.batch}, {point.layout}: round {number + 1} of {rounds}    ")
    return Measured(point, samples, repeats)


def _shuffled(found: Cases, seed: int) -> list[tuple[str, str]]:
    """The methods in random order, each with its cases in random order: what is compared lies close together."""
    shuffle = random.Random(seed)
    of_methods: dict[str, list[tuple[str, str]]] = {}
    for method, who in found:
        of_methods.setdefault(method, []).append((method, who))
    order = [shuffle.sample(cases, len(cases)) for cases in of_methods.values()]
    shuffle.shuffle(order)
    return [name for cases in order for name in cases]


def _seconds(case: Case) -> float:
    """About how long one operation takes, by the clock; runs it until that is known, which warms it up."""
    repeats, first = case.cycle, _sample(case, case.cycle).wall
    if first > 10 * SAMPLE_SECONDS:
        return first / repeats
    while True:
        wall = _sample(case, repeats).wall
        if wall > SAMPLE_SECONDS / 4 or repeats > 1000:
            return wall / repeats
        repeats *= 4


def _multiple(wanted: float, cycle: int) -> int:
    return max(1, round(wanted / cycle)) * cycle


def _sample(case: Case, repeats: int) -> Sample:
    def run() -> None:
        for _ in range(repeats):
            case.run()

    if case.prepare is not None:
        case.prepare()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return timed(run)


def cases(point: Point, device: torch.device) -> Cases:
    """A copy of the batch, then every method that needs no network, ours and its rivals'."""
    inputs = torch.rand((point.batch, *point.shape), device=device)  # no sum or product of these is ever denormal
    if point.layout == "channels_last":
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(point.classes, (point.batch,), device=device)
    found: Cases = {(COPY, OURS): Case(inputs.clone)}
    for name in mixers.available():
        mixer = mixers.build({"name": name, **_settings(name, point)}, num_classes=point.classes)
        if not isinstance(mixer, BatchMixer) or name == "baseline" or len(point.shape) - 1 not in mixer.spatial_dims:
            continue
        steps, turns = _steps(mixer)
        found[name, OURS] = Case(lambda m=mixer, s=steps: m(inputs, labels, StepRng(0, next(s))), cycle=turns)
        others = rivals.of(name, point.shape, point.classes, device)
        if any(rival.in_place for rival in others.values()):
            others[OURS_IN_PLACE] = _in_place(mixer, steps)
        for who, rival in others.items():
            found[name, who] = _case(rival, inputs, labels, turns)
    return found


def _in_place(mixer: BatchMixer, steps: Iterator[int]) -> rivals.Rival:
    allowed = copy.deepcopy(mixer).allow_inplace()
    return rivals.Rival(lambda inputs, labels: allowed(inputs, labels, StepRng(0, next(steps))), in_place=True)


def _case(rival: rivals.Rival, inputs: Tensor, labels: Tensor, cycle: int) -> Case:
    """On a batch of its own, put right before each sample, where it overwrites that."""
    if not rival.in_place:
        return Case(lambda: rival.run(inputs, labels), cycle=cycle)
    own = inputs.clone()
    return Case(lambda: rival.run(own, labels), lambda: own.copy_(inputs), cycle)


def _settings(name: str, point: Point) -> dict[str, Any]:
    """What makes every step of a method about as long as its average, and Cutout's square half a side long."""
    settings: dict[str, dict[str, Any]] = {
        "cutout": {"length": point.size // 2},
        "cutmix": {"alpha": authors.NEAR_HALF},
        "saliencymix": {"alpha": authors.NEAR_HALF},
        "resizemix": {"scale": (authors.SCALE, authors.SCALE)},
    }
    candidates = ["mixup", "cutmix", "resizemix", "fmix"]
    settings["randomix"] = {"candidates": [{"name": c, **settings.get(c, {})} for c in candidates]}
    return settings.get(name, {})


def _steps(mixer: BatchMixer) -> tuple[Iterator[int], int]:
    """Steps to take one after another, and how many of them draw each candidate of a composite once."""
    candidates = getattr(mixer, "candidates", None)
    if candidates is None:
        return itertools.count(), 1
    batch, labels = torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    drawing: dict[str, list[int]] = {candidate.name: [] for candidate in candidates}
    for step in itertools.count():
        drawing[mixer(batch, labels, StepRng(0, step)).name].append(step)
        if min(map(len, drawing.values())) == TURNS:
            break
    turns = zip(*(steps[:TURNS] for steps in drawing.values()), strict=True)
    return itertools.cycle([step for turn in turns for step in turn]), len(candidates)


def network_cases(point: Point, device: torch.device) -> Cases:
    """The methods that need the network, without its passes: given the features, or the gradient at the input."""
    found: Cases = {}
    targets = torch.eye(point.classes, device=device)[torch.randint(point.classes, (point.batch,), device=device)]
    for name in mixers.available():
        mixer = mixers.build(name, num_classes=point.classes)
        if (
            isinstance(mixer, SaliencyMixer) and point.layout == LAYOUTS[0]
        ):  # their time lies in solving, not in layouts
            found |= _salient(mixer, point, targets)
        elif isinstance(mixer, HiddenMixer):
            found |= _hidden(mixer, point, targets)
    return found


def _laid_out(tensor: Tensor, point: Point) -> Tensor:
    channels_last = point.layout == "channels_last" and tensor.ndim == 4
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor


def _hidden(mixer: HiddenMixer, point: Point, targets: Tensor) -> Cases:
    """On features (N, 64, H, W) of the first stage, everything but the network included."""
    size = (FEATURES, *point.shape[1:])
    hidden = _laid_out(torch.randn((point.batch, *size), device=targets.device), point)
    steps = itertools.count()

    def run() -> Tensor:
        draws = StepRng(0, next(steps)).generator(mixer.name)
        perm = to_device(draws.permutation(point.batch), hidden.device)
        mix = mixer.mix_hidden([size, size, size, size], 1, targets, perm, draws)
        return mix.change(hidden, *mix.arguments)

    what, form = f"{mixer.name} of {FEATURES} channels", authors.HIDDEN[mixer.name]
    return {(what, OURS): Case(run), (what, rivals.AUTHORS): Case(lambda: form(hidden))}


def _salient(mixer: SaliencyMixer, point: Point, targets: Tensor) -> Cases:
    """Given a gradient that is concentrated as those of networks are."""
    inputs, gradient = (_laid_out(t.to(targets.device), point) for t in _inputs_and_gradient(point))
    steps, found = itertools.count(), {}
    for what, sized in _block_sizes(mixer, point):
        found[what, OURS] = Case(lambda m=sized: m.mix(inputs, targets, gradient, StepRng(0, next(steps))))
        form = authors.SALIENT.get(mixer.name)
        if form is not None and inputs.device.type == "cpu" and "gco" not in rivals.absent():
            saliency, (n,) = functional.gradient_norm(gradient), sized.block_nums
            found[what, rivals.AUTHORS] = Case(lambda f=form, s=saliency, n=n: f(inputs, s, n))
    return found


def _block_sizes(mixer: SaliencyMixer, point: Point) -> list[tuple[str, Any]]:
    """The mixer at every number of blocks that it draws from by default, with the name of each."""
    if not hasattr(mixer, "block_nums"):
        return [(mixer.name, mixer)]
    drawn = mixer.block_nums or [n for n in (2, 4, 8, 16) if point.size % n == 0]
    return [
        (
            f"{mixer.name}, {n} x {n} blocks",
            mixers.build({"name": mixer.name, "block_nums": [n]}, num_classes=point.classes),
        )
        for n in drawn
    ]


def _inputs_and_gradient(point: Point) -> tuple[Tensor, Tensor]:
    rng, shape = np.random.default_rng(0), (point.batch, *point.shape)
    _, height, width = point.shape
    centers = rng.uniform(0.2, 0.8, (point.batch, 2)) * (height, width)
    rows, columns = np.ogrid[:height, :width]
    distance = (rows - centers[:, :1, None]) ** 2 + (columns - centers[:, 1:, None]) ** 2
    blobs = np.exp(-distance / (2 * (height / 6) ** 2)) + 0.05
    noise = rng.standard_normal(shape) * blobs[:, None]
    return torch.rand(shape), torch.from_numpy(noise.astype(np.float32))
