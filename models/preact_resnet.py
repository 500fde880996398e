"""Pre-activation ResNet for 1-D and 2-D inputs.

K. He, X. Zhang, S. Ren, J. Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016. The code bases of the mixing
methods use two variants, both without a BatchNorm before the pooling: mixup and FMix normalise after the first
convolution and send the activated input through identity shortcuts (shortcut "preact"); Puzzle Mix, Co-Mixup, Manifold
Mixup and PatchUp do neither (stem_norm false, shortcut "raw"). Weights start from PyTorch's defaults, as theirs do.
For sound the stem is long and strided: kernel 79 and stride 16 take 4.1 GFLOP for a second at 16 kHz, forward and
backward, kernel 3 and stride 1 take 65. The paper says "a customized input layer" only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpointing import run_stage
from models.options import FLAG, STAGES, Check, check_dims, is_count, is_counts, one_of, parse_options, stages_below
from models.projection import project
from randomix.types import Tap

CONV = {1: nn.Conv1d, 2: nn.Conv2d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
STEM_KERNEL, STEM_STRIDE = {1: 79, 2: 3}, {1: 16, 2: 1}
SHORTCUTS = ("preact", "raw")
BLOCKS = {"preact_resnet18": (2, 2, 2, 2), "preact_resnet18_1d": (2, 2, 2, 2), "preact_resnet34": (3, 4, 6, 3)}


class PreActBlock(nn.Module):
    """norm-relu-conv3 twice plus a shortcut: a 1-wide convolution of the activated input where the shape changes.

    raw_shortcut: elsewhere the shortcut carries the block's input itself, not the activated one.
    """

    def __init__(self, dims: int, channels: int, width: int, stride: int, raw_shortcut: bool) -> None:
        super().__init__()
        conv, norm = CONV[dims], NORM[dims]
        self.raw_shortcut = raw_shortcut
        self.norm1 = norm(channels)
        self.conv1 = conv(channels, width, 3, stride, padding=1, bias=False)
        self.norm2 = norm(width)
        self.conv2 = conv(width, width, 3, padding=1, bias=False)
        changes = stride != 1 or channels != width
        self.project = conv(channels, width, 1, stride, bias=False) if changes else None

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, channels, *S) to (N, width, *S / stride)."""
        active = F.relu(self.norm1(inputs), inplace=True)
        identity = inputs if self.raw_shortcut else active
        shortcut = project(self.project, active) if self.project is not None else identity
        return self.conv2(F.relu(self.norm2(self.conv1(active)), inplace=True)) + shortcut


class PreActResNet(nn.Module):
    """Stem, stages of PreActBlocks (width doubles, size halves from the second on), average pooling, linear layer.

    sample_shape: (C, *S) with one or two spatial dimensions; blocks: blocks of each stage. Taps: 0 the input,
    1 after the stem, 2 + i after stage i; ``num_taps`` counts them.
    """

    def __init__(
        self,
        sample_shape: Sequence[int],
        num_classes: int,
        *,
        width: int = 64,
        blocks: Sequence[int] = (2, 2, 2, 2),
        stem_kernel: int | None = None,
        stem_stride: int | None = None,
        stem_norm: bool = True,
        final_norm: bool = False,
        shortcut: str = "preact",
        checkpoint_stages: Sequence[int] = (),
    ) -> None:
        super().__init__()
        channels, dims = sample_shape[0], len(sample_shape) - 1
        kernel, stride = stem_kernel or STEM_KERNEL[dims], stem_stride or STEM_STRIDE[dims]
        self.num_taps, self.checkpoint_stages = 2 + len(blocks), frozenset(checkpoint_stages)
        self.stem = CONV[dims](channels, width, kernel, stride, padding=kernel // 2, bias=False)
        self.stem_norm = NORM[dims](width) if stem_norm else None
        stages, channels = [], width
        for stage, depth in enumerate(blocks):
            stage_width = width * 2**stage
            stages.append(nn.Sequential())
            for block in range(depth):
                step = 2 if stage > 0 and block == 0 else 1
                stages[-1].append(PreActBlock(dims, channels, stage_width, step, shortcut == "raw"))
                channels = stage_width
        self.stages = nn.ModuleList(stages)
        self.final_norm = NORM[dims](channels) if final_norm else None
        self.head = nn.Linear(channels, num_classes)

    def forward(self, inputs: Tensor, tap: Tap | None = None) -> Tensor:
        """Logits (N, K) of inputs (N, C, *S); ``tap(index, features)`` may replace the features at each tap."""
        if tap is not None:
            inputs = tap(0, inputs)
        features = self.stem(inputs)
        if self.stem_norm is not None:
            features = F.relu(self.stem_norm(features), inplace=True)
        if tap is not None:
            features = tap(1, features)
        for index, stage in enumerate(self.stages):
            features = run_stage(stage, features, recompute=index in self.checkpoint_stages)
            if tap is not None:
                features = tap(2 + index, features)
        if self.final_norm is not None:
            features = F.relu(self.final_norm(features), inplace=True)
        return self.head(features.mean(dim=tuple(range(2, features.ndim))))


def build(config: Mapping[str, Any], *, sample_shape: tuple[int, ...], num_classes: int) -> PreActResNet:
    """A PreActResNet with the options of CHECKS.

    The name gives the default of ``blocks``. Raises ConfigError, naming every wrong key.
    """
    check_dims(config, sample_shape, (1,) if config["name"].endswith("_1d") else tuple(CONV))
    options = {"blocks": BLOCKS[config["name"]]} | parse_options(config, CHECKS)
    stages_below(len(options["blocks"]), options.get("checkpoint_stages", ()))
    return PreActResNet(sample_shape, num_classes, **options)


def _is_odd(value: object) -> bool:
    return value is None or (is_count(value) and value % 2 == 1)


CHECKS: dict[str, Check] = {
    "width": (is_count, "a number of channels >= 1"),
    "blocks": (is_counts, "a list of block counts >= 1, such as [2, 2, 2, 2]"),
    "stem_kernel": (_is_odd, "null or an odd number >= 1"),
    "stem_stride": (lambda value: value is None or is_count(value), "null or a number >= 1"),
    "stem_norm": FLAG,
    "final_norm": FLAG,
    "shortcut": one_of(*SHORTCUTS),
    "checkpoint_stages": STAGES,
}
