"""The command line and the methods' classes accept the same values: what one refuses, the other refuses."""

from __future__ import annotations

import math

import pytest

from randomix import mixers
from randomix.engine import validation
from randomix.mixers import build

NUMBERS = [-1, 0, 0.25, 0.5, 0.51, 1, 1.5, 2, 3, 7, 16, 17, 255, 256, 1000, 1001, 1e6, 1e6 + 1, math.inf, math.nan]
ELSEWHERE = {"num_classes"}  # the data set gives it


def numeric_settings():
    for name in mixers.available():
        settings = dict.fromkeys(validation.mixer_arguments(name) or ())
        rules = validation.setting_rules("mixer", {"name": name} | settings)
        for key, rule in sorted(rules.items()):
            if key not in ELSEWHERE and rule.hint in (int, float, int | None, float | None):
                yield name, key, rule


@pytest.mark.parametrize(("name", "key", "rule"), [pytest.param(*s, id="-".join(s[:2])) for s in numeric_settings()])
def test_rules_and_classes_agree(name, key, rule):
    for value in NUMBERS:
        try:
            build({"name": name, key: value}, num_classes=10)
        except (ValueError, TypeError, OverflowError):
            built = False
        else:
            built = True
        assert built == rule.accepts(value), (key, value, rule.allowed())


def test_what_needs_the_network_is_known_from_its_source():
    from randomix.mixers.base import BatchMixer

    for name in mixers.available():
        assert validation.needs_network(name) == (not issubclass(mixers.get(name), BatchMixer)), name


def test_a_choice_for_each_sample_is_refused_before_the_run():
    from randomix.engine import schema

    mixer = {"name": "randomix", "candidates": ["mixup", {"name": "puzzlemix"}, "nothing"], "granularity": "sample"}
    problems = validation.check({"mixer": mixer}, schema.TrainConfig, {})
    line = "mixer.granularity=sample: not with puzzlemix, which need the network to mix; set mixer.granularity=batch"
    assert line in problems
    batch = validation.check({"mixer": mixer | {"granularity": "batch"}}, schema.TrainConfig, {})
    assert not [problem for problem in batch if "granularity" in problem]
