"""Statistics against numbers worked out by hand."""

from __future__ import annotations

import pytest

from randomix.records import aggregate
from randomix.records.aggregate import Statistic, cost, difference, group_runs, settings, time_measure
from tests.records.fakes import fake


def by_name(records: list) -> dict[str, aggregate.Group]:
    return {g.first.mixer.name: g for g in group_runs(records)}


def statistic(values: dict[int, float]) -> Statistic:
    return Statistic(tuple(aggregate.Sample(s, v, fake("baseline", s)) for s, v in sorted(values.items())))


def test_mean_and_sample_standard_deviation() -> None:
    group = by_name([fake("baseline", s, e) for s, e in ((2, 14.0), (0, 10.0), (1, 12.0))])["baseline"]
    found = group.metric("top1_error")
    assert (found.mean, found.std, found.n) == (12.0, 2.0, 3)  # sqrt((4 + 0 + 4) / 2)
    assert found.values == [10.0, 12.0, 14.0] and group.seeds == [0, 1, 2]
    assert group.metric("top1_error", "best").mean == 11.0  # best apart from last
    assert group.metric("unknown") is None


def test_one_run_has_no_spread() -> None:
    found = by_name([fake()])["baseline"].metric("top1_error")
    assert (found.mean, found.std, found.n) == (10.0, None, 1)


def test_paired_difference_uses_common_seeds_only() -> None:
    found = difference(statistic({0: 9.0, 1: 10.0, 7: 99.0}), statistic({0: 10.0, 1: 13.0, 2: 50.0}))
    assert (found.mean, found.n, found.paired) == (-2.0, 2, True)  # -1 and -3
    assert found.std == pytest.approx(2**0.5)
    apart = difference(statistic({5: 9.0}), statistic({0: 10.0, 1: 12.0}))
    assert (apart.mean, apart.std, apart.paired, apart.p_welch) == (-2.0, None, False, None)
    assert difference(None, statistic({0: 1.0})) is None


def test_welch() -> None:
    # a: mean 2, variance 1; b: mean 6, variance 4; t = -4 / sqrt(1/3 + 4/3) = -3.0984, 2.9412 degrees of freedom
    assert aggregate.welch_p([1.0, 2.0, 3.0], [4.0, 6.0, 8.0]) == pytest.approx(0.0548, abs=5e-4)
    from scipy.stats import ttest_ind

    a, b = [1.0, 2.5, 3.0, 2.2], [2.0, 2.1]
    assert aggregate.welch_p(a, b) == pytest.approx(ttest_ind(a, b, equal_var=False).pvalue, rel=1e-9)
    assert aggregate.welch_p([1.0], [2.0, 3.0]) is None
    assert aggregate.welch_p([1.0, 1.0], [2.0, 2.0]) is None


def test_cost_is_paired_on_the_same_hardware() -> None:
    records = [fake("baseline", s, cpu=c) for s, c in ((0, 1.0), (1, 2.0))]
    records += [fake("mixup", s, cpu=c) for s, c in ((0, 1.1), (1, 2.6))]
    groups = by_name(records)
    name, measure = time_measure(groups.values())
    found = cost(groups["mixup"], groups["baseline"], measure)
    assert name == "CPU time" and found.values == pytest.approx([1.1, 1.3])
    elsewhere = by_name([fake("cutmix", provenance={"hardware": {"cpu": "Other"}})])["cutmix"]
    assert cost(elsewhere, groups["baseline"], measure) is None
    assert cost(groups["mixup"], None, measure) is None


def test_cost_on_a_gpu_is_wall_time() -> None:
    gpu = {"device": "cuda", "hardware": {"gpu": "Fake GPU", "gpu_count": 1}}
    name, measure = time_measure(group_runs([fake(provenance=gpu)]))
    assert name == "wall time" and measure(fake(provenance=gpu, cpu=3.0)) == 6.0


def test_order_of_methods() -> None:
    names = ["randomix", "mymix", "comixup", "mixup", "baseline", "puzzlemix", "cutout", "fmix", "cutmix"]
    order = [g.first.mixer.name for g in group_runs([fake(n) for n in names])]
    assert order == ["baseline", "cutout", "mixup", "cutmix", "fmix", "puzzlemix", "comixup", "mymix", "randomix"]


def test_only_like_is_compared_with_like() -> None:
    records = [
        fake("baseline"),
        fake("mixup"),
        fake("mixup", recipe={"epochs": 9}),
        fake("mixup", evaluator={"noise": {"sigma": 0.9}}),
    ]
    assert sorted(len(s.groups) for s in settings(records)) == [1, 1, 2]


def test_an_evaluator_that_was_added_later_parts_no_runs() -> None:
    """At its defaults: records from before it and later evaluations of the same runs belong together."""

    def asked(**later: object) -> dict:
        return {"evaluator": {"noise": {"sigma": 0.2}, **later}}

    plain, same = fake("baseline", **asked()), fake("mixup", **asked(fgsm={"eps_255": 8.0}))
    other = fake("mixup", seed=1, **asked(fgsm={"eps_255": 4.0}))
    assert sorted(len(s.groups) for s in settings([plain, same, other])) == [1, 2]


def test_evaluations_fill_gaps_of_training_records() -> None:
    train, later = fake(noise=None), fake(kind="eval", noise=40.0, checkpoint="last.pt")
    best = fake(kind="eval", noise=30.0, checkpoint="best.pt")
    group = by_name([later, best, train])["baseline"]
    assert group.metric("noise_error").values == [40.0] and group.metric("noise_error", "best").values == [30.0]
    assert by_name([fake(noise=50.0), later])["baseline"].metric("noise_error").values == [50.0]


def test_an_evaluation_in_the_middle_of_training_does_not_count() -> None:
    import dataclasses

    early = fake(kind="eval", noise=40.0, checkpoint="last.pt")
    early = dataclasses.replace(early, metrics={"last": {"epoch": 1, "noise_error": 40.0}})
    assert by_name([early])["baseline"].metric("noise_error") is None


def test_differences() -> None:
    configs = [{"a": 1, "b": {"c": [1.0, 2.0]}}, {"a": 1, "b": {"c": [1.5]}}, {"a": 1}]
    assert aggregate.differences(configs) == [["b.c=[1,2]"], ["b.c=[1.5]"], []]
    mixers = [{"candidates": ["mixup", {"name": "fmix", "alpha": alpha}]} for alpha in (0.2, 1.0)]
    mixers.append({"candidates": ["mixup", {"name": "fmix"}]})
    expected = ["mixup,fmix(alpha=0.2)", "mixup,fmix(alpha=1)", "mixup,fmix"]
    assert aggregate.differences(mixers) == [[f"candidates=[{text}]"] for text in expected]
