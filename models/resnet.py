"""ResNet-50: torchvision's, with taps.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016. Weights and their names are
torchvision's: state dictionaries of its ``resnet50`` load as they are. As there, a block halves the size in its 3-wide
convolution, not in the 1-wide one before it as in the paper ("v1.5").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from models.checkpointing import run_stage
from models.options import COUNT, FLAG, STAGES, Check, check_dims, is_counts, parse_options, stages_below
from randomix.types import Tap


class ResNet(TorchvisionResNet):
    """Torchvision's ResNet of bottlenecks. Taps: 0 the input, 1 after the stem with its pool, 2 to 5 after stages."""

    num_taps = 6
    checkpoint_stages: frozenset[int] = frozenset()  # those whose inner features are computed again

    def forward(self, inputs: Tensor, tap: Tap | None = None) -> Tensor:
        """Logits (N, K) of inputs (N, C, H, W); ``tap(index, features)`` may replace the features at each tap."""
        if tap is not None:
            inputs = tap(0, inputs)
        features = self.maxpool(self.relu(self.bn1(self.conv1(inputs))))
        if tap is not None:
            features = tap(1, features)
        for index, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4)):
            features = run_stage(stage, features, recompute=index in self.checkpoint_stages)
            if tap is not None:
                features = tap(2 + index, features)
        return self.fc(self.avgpool(features).flatten(1))


def build(config: Mapping[str, Any], *, sample_shape: Sequence[int], num_classes: int) -> ResNet:
    """A ResNet with the options of CHECKS; raises ConfigError, naming every wrong key."""
    check_dims(config, sample_shape, (2,))
    options = {"blocks": (3, 4, 6, 3)} | parse_options(config, CHECKS)
    recomputed = options.pop("checkpoint_stages", ())
    stages_below(4, recomputed)
    network = ResNet(Bottleneck, list(options.pop("blocks")), num_classes=num_classes, **options)
    network.checkpoint_stages = frozenset(recomputed)
    if sample_shape[0] != 3:  # torchvision's takes three channels only; its initialisation
        network.conv1 = nn.Conv2d(sample_shape[0], 64, 7, 2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network


CHECKS: dict[str, Check] = {
    "blocks": (lambda value: is_counts(value) and len(value) == 4, "four block counts >= 1, such as [3, 4, 6, 3]"),
    "width_per_group": COUNT,
    "zero_init_residual": FLAG,
    "checkpoint_stages": STAGES,
}
