from dataclasses import MISSING, fields
from pathlib import Path

from randomix.engine.schema import RecipeConfig, TrainerConfig
from randomix.records.identity import EXECUTION, NEUTRAL, config_hash, evaluation, run_name
from tests.support import tiny_config


def test_names_of_runs_never_change():
    """If this fails, every recorded run would get another name: give a new setting its neutral value instead."""
    config = tiny_config(Path("outputs"))
    assert config_hash(config) == "3c7067d8"
    assert run_name(config) == "fake_images/preact_resnet18/randomix-3c7067d8/seed-0"


def test_a_neutral_or_executing_setting_leaves_no_trace():
    config = tiny_config(Path("outputs"))
    known = config_hash(config)
    for section, changes in [
        ("trainer", {"nproc": 4, "device": "cuda", "keep_last": 9, "deterministic": False}),
        ("recipe", {"nesterov": False, "name": "other", "ema_decay": None}),
        ("dataset", {"root": "/elsewhere", "verify": True, "cache": "/tmp", "workers": 3, "on_bad_sample": "skip"}),
        ("mixer", {"label": "Mine", "added_later": None}),
    ]:
        assert config_hash(config | {section: config[section] | changes}) == known
    assert config_hash(config | {"seed": 5, "output_root": "x"}) == known


def test_shards_are_another_order_wherever_they_lie():
    config = tiny_config(Path("outputs"))
    here, there = (config_hash(config | {"dataset": config["dataset"] | {"shards": s}}) for s in ("/a", "https://b"))
    assert (
        here == there != config_hash(config) == config_hash(config | {"dataset": config["dataset"] | {"shards": None}})
    )


def test_what_changes_the_result_changes_the_name():
    config = tiny_config(Path("outputs"))
    seen = {config_hash(config)}
    for section, changes in [
        ("trainer", {"precision": "bf16"}),
        ("trainer", {"deterministic": True}),
        ("recipe", {"nesterov": True}),
        ("recipe", {"ema_decay": 0.9}),
        ("dataset", {"verify": False}),
        ("mixer", {"weights": [3, 1, 1, 1]}),
        ("model", {"width": 8}),
    ]:
        seen.add(config_hash(config | {section: config[section] | changes}))
    assert len(seen) == 8


def test_every_default_of_the_schema_is_neutral_or_of_execution():
    for section, schema in (("recipe", RecipeConfig), ("trainer", TrainerConfig)):
        for field in fields(schema):
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            if default is MISSING or default is None or field.name in EXECUTION[section]:
                continue
            assert NEUTRAL[section][field.name] == default, f"{section}.{field.name}"


def test_settings_of_evaluators_that_came_later_leave_no_trace_at_their_neutral_values():
    known = {"clean": {}, "noise": {"sigma": 0.2}, "fgsm": {"eps_255": 8.0}}
    expected = {"clean": {}, "noise": {"sigma": 0.2}}
    assert evaluation({}) is None and evaluation({"evaluator": known}) == expected
    later = known | {name: dict(values) for name, values in NEUTRAL["evaluator"].items()}
    assert evaluation({"evaluator": later}) == expected
    assert evaluation({"evaluator": later | {"fgsm": {"eps_255": 4.0, "quantize": False}}}) == expected | {
        "fgsm": {"eps_255": 4.0}  # as a record has it from before there was quantize
    }
    assert evaluation({"evaluator": later | {"fgsm": {"eps_255": 8.0, "quantize": True}}}) != expected
