"""What the methods do to samples: python scripts/show_mixes.py --dataset digits --mixers mixup cutmix --out sheet.png.

One row a pair of samples: the two samples, then the mix of every method with the share of each label. Methods that mix
by what a network looks at need one: --network RUN_FOLDER (a finished run, or a folder above some). Methods that mix
inside the network have no picture. The same arguments give the same one. Exit codes: 0 done, 2 wrong argument.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from torch import nn

    from randomix.engine.protocols import Batch, Data
    from randomix.mixers.base import Mixer
    from randomix.types import MixedBatch

DEFAULT_MIXERS = ("mixup", "cutmix", "fmix", "resizemix")
SHARES = (0.25, 0.75)  # of the first sample, for the picture: extreme draws show nothing
TRIES = {False: 500, True: 40}  # draws for a picture, without and with a network
ENDINGS = (".png", ".svg", ".pdf")
COMPANY = 20  # samples in a batch for methods that mix more than two, where a pair alone gives no picture


@dataclass(frozen=True)
class Panel:
    """One picture of the sheet: pixels (C, *S) in [0, 1] or a signal (C, L), a heading and a line below.

    own: the first sample; where a mixed signal is equal to it, it is drawn in another colour.
    """

    pixels: torch.Tensor
    heading: str
    below: str
    own: torch.Tensor | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    from randomix.errors import RunError
    from randomix.files import probe_writable

    try:
        if options.out.suffix not in ENDINGS:
            raise ValueError(f"--out {options.out}: the name must end in one of {', '.join(ENDINGS)}")
        probe_writable(options.out.parent)
        data = load_data(options.dataset, options.root, options.set)
        network = load_network(options.network, data) if options.network is not None else None
        rows = sheet(data, options.mixers, samples=options.samples, seed=options.seed, network=network)
        draw(rows, options.out)
    except (RunError, ValueError, ImportError) as error:
        print(f"show_mixes.py: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="show_mixes.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="digits", help="a file of configs/dataset (default: digits)")
    parser.add_argument("--root", help="folder of the data, if not the configured one")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other settings of the data set")
    names = _options("mixer")
    parser.add_argument(
        "--mixers",
        nargs="+",
        default=list(DEFAULT_MIXERS),
        choices=names,
        metavar="NAME",
        help=f"of configs/mixer (default: {' '.join(DEFAULT_MIXERS)}): {', '.join(names)}",
    )
    parser.add_argument("--network", type=Path, help="a run folder, or one above: the methods that look at gradients")
    parser.add_argument("--out", type=Path, default=Path("mixes.png"), help="png, svg or pdf (default: mixes.png)")
    parser.add_argument("--samples", type=int, default=6, help="rows, each a pair of samples (default: 6)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CHECKOUT / "configs" / group).glob("*.yaml"))


def _settings(group: str, name: str) -> dict[str, Any]:
    """configs/GROUP/NAME.yaml as a plain mapping."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.load(CHECKOUT / "configs" / group / f"{name}.yaml"), resolve=True)


def load_data(name: str, root: str | None = None, changes: Sequence[str] = ()) -> Data:
    """The data set of configs/dataset/NAME.yaml with changes KEY=VALUE; ValueError names the choices."""
    import yaml

    import datasets

    if name not in _options("dataset"):
        raise ValueError(f"--dataset {name}: choose from {', '.join(_options('dataset'))}")
    config = _settings("dataset", name)
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or key not in config:
            raise ValueError(f"--set {text}: expected KEY=VALUE with a key of {name}: {', '.join(config)}")
        config[key] = yaml.safe_load(value)
    return datasets.build(config if root is None else config | {"root": root})


def load_network(folder: Path, data: Data) -> nn.Module:
    """The network of a run in ``folder`` or below it, in evaluation mode; the Baseline's where there is one."""
    import yaml

    import models
    from randomix.engine import checkpoint

    if folder.is_file():
        folder = folder.parent.parent  # a checkpoint of the run
    found = sorted(folder.rglob("checkpoints/last.pt"), key=lambda p: ("baseline" not in str(p), str(p)))
    if not found:
        raise ValueError(f"--network {folder}: no finished run there; train one first: python train.py mixer=baseline")
    state = checkpoint.read(found[0], map_location="cpu")
    run = yaml.safe_load(state["config"])
    if run["dataset"]["name"] != data.name:
        raise ValueError(f"--network {folder}: trained on {run['dataset']['name']}, but --dataset is {data.name}")
    model = models.build(run["model"], sample_shape=data.sample_shape, num_classes=data.num_classes)
    model.load_state_dict(state["average"] or state["model"])
    return model.eval()


def sheet(
    data: Data, names: Sequence[str], *, samples: int, seed: int, network: nn.Module | None = None
) -> list[list[Panel]]:
    """Rows of panels: a pair of samples of different classes, then each method's mix of the two."""
    from randomix import mixers

    if samples < 1:
        raise ValueError(f"--samples is {samples}, expected at least 1")
    if seed < 0:
        raise ValueError(f"--seed is {seed}, expected at least 0")
    shared = {"num_classes": data.num_classes, "mean": data.mean, "std": data.std}
    built = [mixers.build(_settings("mixer", name), **shared) for name in names]
    for mixer in built:
        _require_picture(mixer, network)
        mixer.check_shape(data.sample_shape)
    rows = []
    for row, (inputs, labels) in enumerate(pairs(data, samples, seed)):
        own = [
            Panel(visible(data, x), head, data.class_names[c])
            for x, head, c in zip(inputs, ("a", "b"), labels, strict=True)
        ]
        rows.append(own + [mix_pair(m, data, inputs, labels, network=network, seed=seed + row) for m in built])
    return rows


def _require_picture(mixer: Mixer, network: nn.Module | None) -> None:
    if hasattr(mixer, "mix_with"):
        if network is None:
            raise ValueError(
                f"--mixers {mixer.name}: mixes by a network's gradient; give one with --network RUN_FOLDER"
            )
    elif not hasattr(mixer, "mix"):
        raise ValueError(f"--mixers {mixer.name}: mixes inside the network, there is no picture of it")


def pairs(data: Data, count: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """``count`` pairs (samples (2, C, *S) as methods get them, labels (2,)) of different classes from the test set."""
    import numpy as np

    batch = _held_out(data, max(64, 8 * count))
    order = np.random.default_rng(seed).permutation(len(batch.labels)).tolist()
    found = []
    while order and len(found) < count:
        first = order.pop(0)
        second = next((i for i in order if batch.labels[i] != batch.labels[first]), None)
        if second is None:
            break
        order.remove(second)
        found.append((batch.inputs[[first, second]], batch.labels[[first, second]]))
    if len(found) < count:
        raise ValueError(f"--samples {count}: found only {len(found)} pairs of different classes")
    return found


def _held_out(data: Data, count: int) -> Batch:
    """``count`` test samples as methods get them: normalised, and features where the data are made into them.

    The first ones, or from all over the set where those are of few classes: it may come in the order of its classes.
    """
    import torch

    eval_set = data.eval_set(torch.device("cpu"))
    batch = next(iter(eval_set.batches(count)))
    if len(batch.labels.unique()) < min(data.num_classes, count) / 2 and eval_set.num_samples > count:
        batch = next(iter(eval_set.batches(count, 0, eval_set.num_samples // count)))
    return replace(batch, inputs=eval_set.normalise(batch.inputs).contiguous())


def mix_pair(
    mixer: Mixer, data: Data, inputs: torch.Tensor, labels: torch.Tensor, *, network: nn.Module | None, seed: int
) -> Panel:
    """The first draw of ``mixer`` that mixes the pair with a share in SHARES; else one among more samples, if any."""
    import torch

    more = _held_out(data, COMPANY)
    batches = [(inputs, labels)]
    if hasattr(mixer, "mix_with"):
        batches.append((torch.cat([inputs, more.inputs[2:]]), torch.cat([labels, more.labels[2:]])))
    for samples, classes in batches:
        mixed, found = _first_good(mixer, samples, classes, network, seed)
        if found:
            break
    kinds = list(dict.fromkeys([*labels.tolist(), *mixed.targets[0].argsort(descending=True)[:3].tolist()]))
    shares = [(data.class_names[c], float(mixed.targets[0, c])) for c in kinds]
    shares = [(name, share) for i, (name, share) in enumerate(shares) if share > 0 or i < 2]
    used = f"{mixed.name}\n" if mixed.name not in ("", mixer.name) else ""
    below = "\n".join(f"{_short(n)}: {s:.0%}" for n, s in shares)  # a line each: names can be long
    text = f"{used}λ {float(mixed.lam[0]):.2f}\n{below}"
    return Panel(visible(data, mixed.inputs[0]), type(mixer).__name__, text, visible(data, inputs[0]))


def visible(data: Data, sample: torch.Tensor) -> torch.Tensor:
    """A normalised sample (C, *S) as it was before: pixels in [0, 1], sound in [-1, 1]; features moved to [0, 1]."""
    import torch

    shape = (-1, *[1] * (sample.ndim - 1))
    mean, std = (torch.tensor(values).view(shape) for values in (data.mean, data.std))
    shown = sample * std + mean
    if data.input_shape != data.sample_shape:
        shown = (shown - shown.min()) / (shown.max() - shown.min()).clamp(min=1e-6)
    return shown


def _first_good(
    mixer: Mixer, inputs: torch.Tensor, labels: torch.Tensor, network: nn.Module | None, seed: int
) -> tuple[MixedBatch, bool]:
    touched = False
    for step in range(TRIES[hasattr(mixer, "mix_with")]):
        mixed = _mix(mixer, inputs, labels, network, seed, step)
        share = float(mixed.targets[0, labels[0]])
        touched |= share < 1
        if SHARES[0] <= share <= SHARES[1]:
            return mixed, True
        if step > 20 and not touched:  # a method that leaves labels alone
            break
    return mixed, False


def _mix(
    mixer: Mixer, inputs: torch.Tensor, labels: torch.Tensor, network: nn.Module | None, seed: int, step: int
) -> MixedBatch:
    from randomix.rng import StepRng

    rng = StepRng(seed=seed, step=step)
    if network is not None and hasattr(mixer, "mix_with"):
        return mixer.mix_with(network, inputs, labels, rng)[0]
    return mixer(inputs, labels, rng)


def draw(rows: Sequence[Sequence[Panel]], out: Path) -> None:
    """Write the sheet; the format follows the ending of ``out``."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("drawing needs matplotlib: pip install 'randomix[report]'") from None
    from randomix.files import write_atomic

    with matplotlib.rc_context({"svg.hashsalt": "randomix", "font.size": 11}):
        columns = len(rows[0])
        height = 1.6 if rows[0][0].pixels.ndim == 2 else 2.1
        figure = Figure(figsize=(1.45 * columns, height * len(rows) + 0.3), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for i, row in enumerate(rows):
            for axes, panel in zip(grid[i], row, strict=True):
                _draw_panel(axes, panel)
                if i == 0:
                    axes.set_title(panel.heading, fontsize=12)
        metadata = {"Software": None} if out.suffix == ".png" else {"Date": None} if out.suffix == ".svg" else {}
        drawn = io.BytesIO()  # whole before the old picture goes
        figure.savefig(drawn, format=out.suffix[1:], dpi=110, metadata=metadata, bbox_inches="tight", pad_inches=0.1)
        write_atomic(out, drawn.getvalue(), parents=True)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    import numpy as np

    pixels = panel.pixels.float().cpu().numpy()
    if pixels.ndim == 2:  # a signal (C, L)
        first = pixels if panel.own is None else panel.own.float().cpu().numpy()
        same = abs(pixels - first) < 1e-6
        for part, colour in ((same, "C0"), (~same, "C1")):
            axes.plot(np.where(part, pixels, np.nan).T, linewidth=0.5, color=colour)
        axes.set_ylim(-1.05 * abs(pixels).max(), 1.05 * abs(pixels).max())
        axes.set_box_aspect(0.6)
    elif pixels.shape[0] == 1:
        axes.imshow(pixels[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(pixels[:3].transpose(1, 2, 0).clip(0, 1), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(panel.below if "\n" in panel.below else _short(panel.below), fontsize=9.5)


def _short(name: str, length: int = 14) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


if __name__ == "__main__":
    sys.exit(main())
