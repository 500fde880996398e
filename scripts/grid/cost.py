"""Estimates of what a run takes on an A100; those of other GPUs are in docs and in the headers of the experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Seconds of a training epoch of the Baseline, in all GPUs together. Estimated: FLOPs of the network times its images at
# 35 % (WRN-28-10: 45 %) of the 312 TFLOP/s of an A100; ResNet-50 from NVIDIA's published 2,500 images/s.
_EPOCH = {
    ("cifar", "preact_resnet18"): 1.5,
    ("cifar", "wrn_28_10"): 11.0,
    ("tiny_imagenet", "preact_resnet18"): 12.2,
    ("imagenet", "resnet50"): 512.0,
    ("speech_commands", "preact_resnet18_1d"): 3.5,
}
_METHOD = {
    "puzzlemix": 1.75,
    "comixup": 3.5,
}  # a second pass; two, and the labelling (Co-Mixup's users: twice Puzzle Mix)
_LATE_STRIDE = 1.13  # FLOPs of wrn_28_10_puzzlemix over those of wrn_28_10
_EVALUATION = {"corruptions": 0.08, "occlusion": 0.01, "fgsm": 0.01}  # hours of WRN-28-10 in float32


def gpu_hours(config: Mapping[str, Any]) -> float | None:
    """GPU-hours of one seed of a run of the paper's grid; None where there is no estimate."""
    dataset = "cifar" if config["dataset"]["name"].startswith("cifar") else config["dataset"]["name"]
    seconds = _EPOCH.get((dataset, config["model"]["name"]))
    if seconds is None:
        return None
    seconds *= _METHOD.get(config["mixer"]["name"], 1.0)
    seconds *= _LATE_STRIDE if config["model"].get("stride_conv") == 2 else 1.0
    share = (config["dataset"].get("train_size") or 50_000) / 50_000 if dataset == "cifar" else 1.0
    training = seconds * share * config["recipe"]["epochs"] / 3600
    return round(training + sum(_EVALUATION.get(name, 0.0) for name in config["evaluators"]), 3)
