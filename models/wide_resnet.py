"""Wide residual network WRN-depth-k for images.

S. Zagoruyko, N. Komodakis, "Wide Residual Networks", BMVC 2016. The code bases of the mixing methods use two variants:
Cutout, SaliencyMix and FMix have convolutions without bias, He's initialisation, and project the activated input where
the shape changes (shortcut "preact"); Manifold Mixup, PatchUp, Puzzle Mix and ResizeMix have biases, PyTorch's
initialisation, project the block's raw input (shortcut "raw") and halve the size in a block's second convolution
(stride_conv 2). Identity shortcuts carry the raw input in both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpointing import run_stage
from models.options import COUNT, FLAG, SHARE, STAGES, Check, check_dims, one_of, parse_options, stages_below
from models.projection import project
from randomix.errors import ConfigError
from randomix.types import Tap

SHORTCUTS = ("preact", "raw")
INITS = ("he", "torch")
NUM_STAGES = 3
DEPTHS = "6 n + 4 with n >= 1, such as 10, 16, 22, 28 or 40"


class WideBlock(nn.Module):
    """norm-relu-conv3 twice, dropout before the second convolution, plus a shortcut (see the module)."""

    def __init__(
        self, channels: int, width: int, stride: int, *, dropout: float, bias: bool, raw: bool, stride_conv: int
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_conv == 1 else (1, stride)
        self.raw_shortcut, self.dropout = raw, dropout
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, first, padding=1, bias=bias)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=1, bias=bias)
        changes = stride != 1 or channels != width
        self.project = nn.Conv2d(channels, width, 1, stride, bias=bias) if changes else None

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, width, H / stride, W / stride)."""
        active = F.relu(self.norm1(inputs), inplace=True)
        features = F.relu(self.norm2(self.conv1(active)), inplace=True)
        if self.dropout:
            features = F.dropout(features, self.dropout, self.training)
        shortcut = inputs if self.project is None else project(self.project, inputs if self.raw_shortcut else active)
        return self.conv2(features) + shortcut


class WideResNet(nn.Module):
    """Convolution, three stages of (depth - 4) / 6 WideBlocks, norm-relu, average pooling, linear layer.

    The stages have width * widen_factor * (1, 2, 4) channels; size halves from the second on. Taps: 0 the input,
    1 after the first convolution, 2 to 4 after the stages; ``num_taps`` counts them.
    """

    num_taps = 2 + NUM_STAGES

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        depth: int = 28,
        widen_factor: int = 10,
        width: int = 16,
        dropout: float = 0.0,
        conv_bias: bool = False,
        init: str = "he",
        shortcut: str = "preact",
        stride_conv: int = 1,
        final_norm_momentum: float = 0.1,
        checkpoint_stages: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.checkpoint_stages, self.dropout = frozenset(checkpoint_stages), dropout
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1, bias=conv_bias)
        options = {"dropout": dropout, "bias": conv_bias, "raw": shortcut == "raw", "stride_conv": stride_conv}
        stages, channels = [], width
        for stage in range(NUM_STAGES):
            stage_width = width * widen_factor * 2**stage
            stages.append(nn.Sequential())
            for block in range((depth - 4) // 6):
                stride = 2 if stage > 0 and block == 0 else 1
                stages[-1].append(WideBlock(channels, stage_width, stride, **options))
                channels = stage_width
        self.stages = nn.ModuleList(stages)
        self.final_norm = nn.BatchNorm2d(channels, momentum=final_norm_momentum)
        self.head = nn.Linear(channels, num_classes)
        if init == "he":
            self.apply(_he)

    def forward(self, inputs: Tensor, tap: Tap | None = None) -> Tensor:
        """Logits (N, K) of inputs (N, C, H, W); ``tap(index, features)`` may replace the features at each tap."""
        if tap is not None:
            inputs = tap(0, inputs)
        features = self.stem(inputs)
        if tap is not None:
            features = tap(1, features)
        for index, stage in enumerate(self.stages):
            recompute = index in self.checkpoint_stages
            features = run_stage(stage, features, recompute=recompute, draws=self.dropout > 0)
            if tap is not None:
                features = tap(2 + index, features)
        return self.head(F.relu(self.final_norm(features), inplace=True).mean(dim=(2, 3)))


def _he(module: nn.Module) -> None:
    """Normal weights of variance 2 / (kernel area * output channels), zero biases; linear weights stay."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / (math.prod(module.kernel_size) * module.out_channels)))
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def build(config: Mapping[str, Any], *, sample_shape: Sequence[int], num_classes: int) -> WideResNet:
    """A WideResNet with the options of CHECKS; raises ConfigError, naming every wrong key."""
    check_dims(config, sample_shape, (2,))
    options = parse_options(config, CHECKS)
    if (options.get("depth", 28) - 4) % 6 or options.get("depth", 28) < 10:
        raise ConfigError(f"model.depth is {options['depth']}, expected {DEPTHS}")
    stages_below(NUM_STAGES, options.get("checkpoint_stages", ()))
    return WideResNet(sample_shape[0], num_classes, **options)


CHECKS: dict[str, Check] = {
    "depth": COUNT,
    "widen_factor": COUNT,
    "width": COUNT,
    "dropout": SHARE,
    "conv_bias": FLAG,
    "init": one_of(*INITS),
    "shortcut": one_of(*SHORTCUTS),
    "stride_conv": (lambda value: value in (1, 2) and not isinstance(value, bool), "1 or 2"),
    "final_norm_momentum": SHARE,
    "checkpoint_stages": STAGES,
}
