"""What every setting may be: its type, its range, in words. One table for all sections; importing it needs no torch."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

_CANDIDATE = re.compile(r"\.candidates\[\d+\]")  # has the settings of a mixer


def _anything(value: Any) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    """``hint`` is a type; ``test`` is asked once the type is right; ``text`` completes "must be a number"."""

    hint: Any
    text: str = ""
    test: Callable[[Any], bool] = _anything
    choices: tuple[str, ...] = ()

    def accepts(self, value: Any) -> bool:
        """Whether a value has the type and passes the test. None passes where the annotation allows it."""
        if not matches(value, self.hint):
            return False
        if value is None:
            return True
        return value in self.choices if self.choices else self.test(value)

    def allowed(self) -> str:
        """The values in words: ``a whole number of at least 1 or null``."""
        words = "one of " + ", ".join(self.choices) if self.choices else f"{_words(self.hint)} {self.text}".strip()
        return f"null or {words}" if matches(None, self.hint) else words


def matches(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type. Booleans are no numbers, 1.0 is no whole number, 1 is a number."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(matches(value, a) for a in arguments)
    if origin is list:
        return isinstance(value, list) and all(matches(v, arguments[0]) for v in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint in (None, type(None)):
        return value is None
    return type(value) is hint


def is_real(hint: Any) -> bool:
    """Whether an annotation means numbers with fractions, so that 1 and 1.0 are the same setting."""
    several = typing.get_args(hint)
    return hint is float or (int not in several and any(is_real(h) for h in several))


def _words(hint: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    several = {int: "a list of whole numbers", float: "a list of numbers", str: "a list of names"}
    for h in typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,):
        if typing.get_origin(h) is list:
            return several[typing.get_args(h)[0]]
        if h in names:
            return names[h]
    raise TypeError(f"no words for {hint}")


def optional(rule: Rule) -> Rule:
    """The rule, with null as a further value."""
    return replace(rule, hint=rule.hint | None)


def choice(*names: str) -> Rule:
    """One of some names."""
    return Rule(str, choices=names)


def at_least(minimum: int) -> Rule:
    """A whole number from ``minimum`` on."""
    return Rule(int, f"of at least {minimum}", lambda v: v >= minimum)


SEED = Rule(int, "of at least 0 and below 2^63", lambda v: 0 <= v < 2**63)
FLAG = Rule(bool)
TEXT = Rule(str, "that is not empty", lambda v: bool(v.strip()))
POSITIVE = Rule(float, "above 0", lambda v: v > 0)
NOT_NEGATIVE = Rule(float, "of at least 0", lambda v: v >= 0)
UNIT = Rule(float, "from 0 to 1", lambda v: 0 <= v <= 1)
BELOW_ONE = Rule(float, "from 0 to below 1", lambda v: 0 <= v < 1)
LEVELS = Rule(float, "from 0 to 255", lambda v: 0 <= v <= 255)
FILL = Rule(
    float | list[float],
    "from 0 to 1, or a list of one a channel",
    lambda v: all(0 <= c <= 1 for c in (v if isinstance(v, list) else [v])),
)
BLOCK = Rule(int | float | None, "of at least 1, or a share of the side below 1", lambda v: 0 < v < 1 or v >= 1)
UP_TO_1000 = Rule(float, "from 0 to 1000", lambda v: 0 <= v <= 1000)
WEIGHTS = Rule(list[float], "of at least 0, not all 0", lambda v: min(v, default=-1) >= 0 and sum(v) > 0)
RANGE = Rule(list[float], "[low, high] with 0 < low <= high <= 1", lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1)
FRACTIONS = Rule(
    list[float], "between 0 and 1, increasing", lambda v: all(a < b for a, b in zip([0, *v], [*v, 1], strict=True))
)

# By section and key: the same key may mean another thing elsewhere.
RULES: dict[str, dict[str, Rule]] = {
    "": {
        "seed": SEED,
        "output_root": TEXT,
        "checkpoint": TEXT,
        "evaluators": Rule(list[str]),
    },
    "recipe": {
        "name": TEXT,
        "epochs": at_least(1),
        "batch_size": at_least(1),
        "lr": POSITIVE,
        "momentum": BELOW_ONE,
        "nesterov": FLAG,
        "weight_decay": NOT_NEGATIVE,
        "decay_norms": FLAG,
        "schedule": choice("cosine", "multistep", "constant"),
        "milestones": FRACTIONS,
        "gamma": POSITIVE,
        "min_lr": NOT_NEGATIVE,
        "warmup_epochs": NOT_NEGATIVE,
        "loss": choice("cross_entropy", "softmax_bce"),
        "ema_decay": optional(Rule(float, "between 0 and 1", lambda v: 0 < v < 1)),
        "accumulate": at_least(1),
    },
    "trainer": {
        "device": choice("auto", "cpu", "cuda"),
        "precision": choice("auto", "fp32", "tf32", "bf16", "fp16"),
        "micro_batch_size": Rule(
            int | str | None, "of at least 2, or auto", lambda v: v == "auto" or (type(v) is int and v >= 2)
        ),
        "compile": FLAG,
        "cuda_graph": FLAG,
        "nproc": at_least(1),
        "threads": optional(at_least(1)),
        "deterministic": FLAG,
        "resume": choice("auto", "never"),
        "eval_every_epochs": at_least(1),
        "checkpoint_every_epochs": at_least(1),
        "keep_last": Rule(int, "of at least 1, or -1", lambda v: v >= 1 or v == -1),
        "eval_batch_size": at_least(1),
        "timeout_minutes": POSITIVE,
    },
    "dataset": {
        "name": TEXT,
        "root": optional(TEXT),
        "corrupted_root": optional(TEXT),
        "cache": optional(TEXT),
        "workers": optional(Rule(int, "of at least 0", lambda v: v >= 0)),
        "on_bad_sample": choice("error", "skip"),
        "max_bad_share": UNIT,
        "labels": choice("fine", "coarse"),
        "image_size": at_least(1),
        "resize": optional(at_least(1)),
        "scale": RANGE,
        "ratio": Rule(list[float], "[low, high] with 0 < low <= high", lambda v: len(v) == 2 and 0 < v[0] <= v[1]),
        "shards": optional(TEXT),
        "shuffle_buffer": at_least(1),
        "storage": choice("resident", "stream"),
        "train_folder": TEXT,
        "test_folder": TEXT,
        "mean": optional(Rule(list[float], "from 0 to 1", lambda v: all(0 <= c <= 1 for c in v))),
        "std": optional(Rule(list[float], "above 0", lambda v: all(c > 0 for c in v))),
        "version": choice("v0.01", "v0.02"),
        "classes": Rule(int, "that is 12 or 35", lambda v: v in (12, 35)),
        "silence": choice("background", "zeros"),
        "silence_share": BELOW_ONE,
        "unknown_share": UNIT,
        "features": choice("waveform", "log_mel"),
        "time_shift_ms": NOT_NEGATIVE,
        "background_prob": UNIT,
        "background_volume": UNIT,
        "sample_rate": at_least(1000),
        "seconds": POSITIVE,
        "train_size": optional(at_least(1)),
        "test_size": optional(at_least(1)),
        "num_classes": at_least(2),
        "channels": at_least(1),
        "height": at_least(1),
        "width": at_least(1),
        "crop_padding": at_least(0),
        "flip": FLAG,
        "verify": FLAG,
    },
    "model": {
        "name": TEXT,
        "width": at_least(1),
        "blocks": Rule(list[int], "of at least 1", lambda v: min(v, default=0) >= 1),
        "stem_kernel": optional(Rule(int, "that is odd", lambda v: v % 2 == 1)),
        "stem_stride": optional(at_least(1)),
        "stem_norm": FLAG,
        "final_norm": FLAG,
        "shortcut": choice("preact", "raw"),
        "depth": at_least(10),
        "widen_factor": at_least(1),
        "dropout": BELOW_ONE,
        "conv_bias": FLAG,
        "init": choice("he", "torch"),
        "stride_conv": Rule(int, "that is 1 or 2", lambda v: v in (1, 2)),
        "final_norm_momentum": BELOW_ONE,
        "width_per_group": at_least(1),
        "zero_init_residual": FLAG,
        "checkpoint_stages": Rule(
            list[int], "from 0 on, each once", lambda v: min(v, default=0) >= 0 and len({*v}) == len(v)
        ),
    },
    "mixer": {
        "name": TEXT,
        "label": optional(TEXT),
        "alpha": POSITIVE,
        "dirichlet_alpha": POSITIVE,
        "prob": UNIT,
        "weights": optional(WEIGHTS),
        "granularity": choice("batch", "sample"),
        "scale": RANGE,
        "decay_power": POSITIVE,
        "max_soft": Rule(float, "from 0 to 0.5", lambda v: 0 <= v <= 0.5),
        "spectrum": choice("code", "paper"),
        "label_lam": choice("drawn", "mask"),
        "taps": Rule(list[int], "of at least 0", lambda v: min(v, default=-1) >= 0),
        "hard": FLAG,
        "gamma_per": choice("layer", "first_layer"),
        "block_size": Rule(int, "that is odd and at least 1", lambda v: v >= 1 and v % 2 == 1),
        "length": at_least(1),
        "saliency": choice("as_published", "uint8"),
        "part_size": at_least(1),
        "block_num": optional(Rule(int, "from 2 to 16, or -1", lambda v: v == -1 or 2 <= v <= 16)),
        "beta": UP_TO_1000,
        "eta": UP_TO_1000,
        "tau": UP_TO_1000,
        "omega": UNIT,
        "n_iter": at_least(1),
        "set_resolve": FLAG,
        "penalty": choice("hard", "soft"),
        "precedence": choice("code", "paper"),
        "repair": FLAG,
        "clean_weight": Rule(float, "from 0 to 1000000", lambda v: 0 <= v <= 1e6),
        "block_nums": optional(Rule(list[int], "of at least 1", lambda v: min(v, default=0) >= 1)),
        "n_labels": at_least(2),
        "neigh_size": at_least(1),
        "transport": FLAG,
        "t_eps": POSITIVE,
        "t_size": optional(Rule(int, "of at least 1, or -1", lambda v: v >= 1 or v == -1)),
        "adv_prob": UNIT,
        "adv_eps": LEVELS,
    },
    "mixer.comixup": {"gamma": UP_TO_1000},
    "mixer.patchup": {"gamma": optional(UNIT), "prob": optional(UNIT)},
    "mixer.puzzlemix": {"gamma": UNIT},
    "evaluator.autoattack": {
        "eps_255": LEVELS,
        "version": choice("standard", "plus"),
        "seed": SEED,
    },
    "evaluator.corruptions": {
        "source": choice("official", "generated"),
        "names": Rule(
            str | list[str],
            "that is all or standard, or a list such as [fog,snow]",
            lambda v: bool(v) and (isinstance(v, list) or v in ("all", "standard")),
        ),
        "severities": Rule(list[int], "from 1 to 5, each once", lambda v: 0 < len(v) == len({*v} & {1, 2, 3, 4, 5})),
        "seed": SEED,
        "allow_missing": FLAG,
    },
    "evaluator.fgsm": {
        "eps_255": LEVELS,
        "quantize": FLAG,
    },
    "evaluator.fgsm_sound": {
        "eps": Rule(list[float], "from 0 to 1, at least one", lambda v: bool(v) and all(0 <= e <= 1 for e in v)),
    },
    "evaluator.noise": {
        "sigma": NOT_NEGATIVE,
        "seed": SEED,
        "repeats": at_least(1),
    },
    "evaluator.occlusion": {
        "kind": choice("random_blocks", "center", "boundary", "grid"),
        "n_blocks": at_least(0),
        "block": BLOCK,
        "placement": choice("clipped", "inside"),
        "fill": FILL,
        "seed": SEED,
        "repeats": at_least(1),
    },
    "evaluator.occlusion_sweep": {
        "blocks": Rule(list[float], "above 0, at least one", lambda v: min(v, default=0) > 0),
        "placements": Rule(
            list[str], "clipped, inside or both", lambda v: 0 < len(v) == len({*v} & {"clipped", "inside"})
        ),
        "n_blocks": at_least(0),
        "fill": FILL,
        "seed": SEED,
        "repeats": at_least(1),
    },
    "evaluator.pgd": {
        "eps_255": LEVELS,
        "step_255": LEVELS,
        "steps": at_least(1),
        "random_start": FLAG,
        "seed": SEED,
        "quantize": FLAG,
    },
    "evaluator.snr_noise": {
        "snr_db": Rule(
            list[float], "from -100 to 100, at least one", lambda v: 0 <= max(map(abs, v), default=-1) <= 100
        ),
        "seed": SEED,
        "repeats": at_least(1),
    },
    "logger": {
        "name": TEXT,
        "project": optional(TEXT),
        "entity": optional(TEXT),
        "group": optional(TEXT),
        "mode": choice("offline", "online", "disabled"),
    },
}


def is_mixer_path(path: str) -> bool:
    """Whether a section such as ``mixer`` or ``mixer.candidates[1]`` has the settings of a mixer."""
    return _CANDIDATE.sub("", path) == "mixer"


def rule_for(path: str, name: object = None) -> Rule | None:
    """The rule of a key such as ``recipe.lr`` or ``mixer.candidates[1].alpha``, for methods of this name if any."""
    section, _, key = _CANDIDATE.sub("", path).rpartition(".")
    return RULES.get(f"{section}.{name}", {}).get(key) or RULES.get(section, {}).get(key)


def micro_batch_sizes(share: int) -> list[int]:
    """What ``trainer.micro_batch_size`` may be for a rank's share of a batch, from small to large.

    Equal parts, of at least 2 samples as batch normalisation needs them.
    """
    return [size for size in range(2, share + 1) if share % size == 0]
