"""What two ranks do together equals what one does: data, choices, gradients, counts."""

import json

import pytest
import torch

import datasets
from randomix import StepRng, mixers
from randomix.engine import distributed
from randomix.engine.distributed import World
from randomix.engine.stopper import Stopper
from tests.support import group_net, make_trainer, on_ranks, tiny_config


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_ranks_share_each_batch_of_a_single_process(tmp_path, ranks):
    data = datasets.build(tiny_config(tmp_path)["dataset"])
    common = {"batch_size": 16, "seed": 3, "device": torch.device("cpu"), "dtype": torch.float32}
    whole = list(data.train_loader(rank=0, world_size=1, **common).batches(0, 13))
    parts = [list(data.train_loader(rank=r, world_size=ranks, **common).batches(0, 13)) for r in range(ranks)]
    for step, batch in enumerate(whole):
        together = {int(i): x for part in parts for i, x in zip(part[step].indices, part[step].inputs, strict=True)}
        assert sorted(together) == sorted(batch.indices.tolist())
        for index, sample in zip(batch.indices.tolist(), batch.inputs, strict=True):
            assert torch.equal(together[index], sample)  # crops and flips included


def test_ranks_choose_the_same_method_and_other_partners():
    mixer = mixers.build({"name": "randomix", "weights": [3, 1, 1, 1]}, num_classes=4)
    inputs, labels = torch.rand(8, 3, 8, 8), torch.arange(8) % 4
    names, shares = [], []
    for rank in (0, 1):
        mixed = [mixer(inputs, labels, StepRng(5, step, rank)) for step in range(60)]
        names.append([m.name for m in mixed])
        shares.append(torch.stack([m.targets for m in mixed]))
    assert names[0] == names[1]
    assert len(set(names[0])) == 4
    assert not torch.equal(*shares)


@pytest.mark.parametrize("name", ["baseline", "randomix"])
def test_gradients_of_two_ranks_are_the_mean_of_their_shares(tmp_path, monkeypatch, name):
    config = tiny_config(tmp_path)
    if name == "baseline":
        config["mixer"] = {"name": "baseline"}

    def gradients(world: World, step: int = 2) -> list[torch.Tensor]:
        trainer = make_trainer(config, world, group_net)
        trainer.optimizer.zero_grad = lambda **_: None  # keep them to look at
        (batch,) = trainer.loader.batches(step, step + 1)
        stopper = Stopper()
        stopper.close()
        trainer.step(step, batch, stopper)
        return [p.grad.clone() for p in trainer.model.parameters()]

    def work(world: World) -> None:
        torch.save(gradients(world), tmp_path / f"rank-{world.rank}.pt")

    on_ranks(2, work, tmp_path)
    found = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    monkeypatch.setattr(distributed, "ddp", lambda module, world: module)
    shares = [gradients(World(rank, 2)) for rank in (0, 1)]  # the same ranks alone, without communication
    monolith = gradients(World()) if name == "baseline" else None
    for number, together in enumerate(found[0]):
        mean = (shares[0][number] + shares[1][number]) / 2
        torch.testing.assert_close(together, mean, rtol=1e-5, atol=1e-6)
        if monolith is not None:  # without mixing, two halves are one batch
            torch.testing.assert_close(together, monolith[number], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_evaluation_counts_do_not_depend_on_the_ranks(tmp_path, ranks):
    from randomix.robustness.evaluators import run_evaluators

    config = tiny_config(tmp_path)
    settings = {"occlusion": {"block": 4, "repeats": 2}, "noise": {"sigma": 0.3}, "pgd": {"steps": 2}}
    settings["occlusion_sweep"] = {"blocks": [0.25, 4], "repeats": 2}
    torch.manual_seed(0)
    model = group_net({}, sample_shape=(3, 8, 8), num_classes=4)

    def counts(world: World, batch_size: int) -> dict:
        eval_set = datasets.build(config["dataset"]).eval_set(world.device)
        names = ["clean", "noise", "occlusion", "occlusion_sweep", "fgsm", "pgd"]
        return run_evaluators(model, eval_set, names=names, settings=settings, batch_size=batch_size, world=world)

    def work(world: World) -> None:
        (tmp_path / f"{world.rank}.json").write_text(json.dumps(counts(world, 5)["counts"]))

    alone = counts(World(), 64)["counts"]
    assert alone["clean"]["total"] == 37  # no number of ranks here divides it
    on_ranks(ranks, work, tmp_path)
    for rank in range(ranks):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone


def test_a_rank_without_samples_does_not_hang(tmp_path):
    config = tiny_config(tmp_path, dataset={"test_size": 1})
    model = group_net({}, sample_shape=(3, 8, 8), num_classes=4)

    def work(world: World) -> None:
        from randomix.engine.evaluate import evaluate

        result = evaluate(model, datasets.build(config["dataset"]).eval_set(world.device), batch_size=4, world=world)
        assert result.total == 1

    on_ranks(2, work, tmp_path)
