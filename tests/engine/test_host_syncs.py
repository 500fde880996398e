"""No step reads a value of the device: on a GPU torch itself says so, on the CPU what would read one is refused."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import models
from randomix import mixers
from randomix.engine.distributed import World
from randomix.engine.stopper import Decision, NonFiniteGuard, Stopper
from tests.support import make_trainer, tiny_config

# What hands a tensor's values to the host, by itself or to learn the size of its result.
READS = {
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "equal",
    "unique_dim",
    "_unique2",
    "unique_consecutive",
    "repeat_interleave",
    "bincount",
    "histc",
    "allclose",
    "one_hot",
}
METHODS = [{"name": name} for name in mixers.available()]
METHODS += [{"name": n, "clean_weight": 1.0} for n in ("puzzlemix", "comixup")]
METHODS += [{"name": n, "granularity": "sample"} for n in ("mixup", "cutmix", "fmix", "resizemix", "randomix")]
ids = {"ids": lambda settings: "-".join(str(v) for v in settings.values())}


class RefuseReads(TorchDispatchMode):
    """Raise where the host would have to wait for a device, which on the CPU holds what comes from given tensors."""

    def __init__(self, *tensors):
        super().__init__()
        self.known = set()
        self.put(True, tensors)

    def put(self, there, tensors):
        """A new tensor may lie where one lay that is gone."""
        for tensor in tensors:
            (self.known.add if there else self.known.discard)(tensor.untyped_storage().data_ptr())

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        there = any(t.untyped_storage().data_ptr() in self.known for t in tensors_in((args, kwargs)))
        masks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        fills = name in ("masked_fill", "masked_fill_") and isinstance(args[2], torch.Tensor)
        if there and (name in READS or masks or fills):
            raise AssertionError(f"{name} waits for the device")
        result = function(*args, **(kwargs or {}))
        self.put(there, tensors_in(result))
        return result


def tensors_in(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Watched(Stopper):
    """Decides as on a GPU: the guard looks at the loss, on its device, and the host hears of it later."""

    def check(self, step, loss=None):
        self.guard.observe(step, loss)
        return Decision(False, False)


def trainer_of(settings, folder, device="cpu", **trainer):
    config = tiny_config(folder, dataset={"height": 16, "width": 16}, trainer=trainer | {"device": device})
    config["mixer"] = dict(settings)
    running = make_trainer(config, World(device=torch.device(device, *([0] if device == "cuda" else []))), models.build)
    running.model.train()
    return running


def steps(running, stopper, batches, mode=None):
    for batch in batches:
        if mode is not None:
            mode.put(True, [batch.inputs, batch.labels, batch.indices])
        running.step(running.progress.step, batch, stopper)
        running.progress.step += 1


@pytest.mark.parametrize("settings", METHODS, **ids)
def test_a_step_reads_nothing_from_the_device(tmp_path, settings):
    running = trainer_of(settings, tmp_path)
    with Watched(running.guard) as stopper, RefuseReads(*running.model.state_dict().values()) as mode:
        steps(running, stopper, running.loader.batches(0, 3), mode)
    assert running.guard.poll() is None
    assert running.meter.read()["samples"] == 48


@pytest.mark.parametrize("trainer", [{"precision": "bf16"}, {"precision": "fp16", "device": "auto"}], **ids)
def test_neither_does_the_scaler_nor_the_average_nor_accumulation(tmp_path, trainer):
    config = tiny_config(tmp_path, trainer=trainer, recipe={"accumulate": 2, "ema_decay": 0.9})
    running = make_trainer(config, World(), models.build)
    with Watched(running.guard) as stopper, RefuseReads(*running.model.state_dict().values()) as mode:
        steps(running, stopper, running.loader.batches(0, 7), mode)  # over the end of an epoch


READERS = {
    "item": lambda t: t.sum().item(),
    "bool": lambda t: bool(t.sum() > 0),
    "float": lambda t: float(t[0]),
    "mask": lambda t: t[t > 0],
    "write": lambda t: t.__setitem__(t > 0, 0.0),
    "nonzero": torch.nonzero,
    "equal": lambda t: torch.equal(t, t),
    "loop": lambda t: [int(v) for v in t],
    "unique": torch.unique,
    "repeat": lambda t: t.repeat_interleave(t.long()),
}


@pytest.mark.parametrize("read", READERS)
def test_what_reads_is_refused_of_the_device_only(read):
    values, host = torch.rand(6), torch.rand(6)
    with RefuseReads(values):
        READERS[read](host * 2)
        with pytest.raises(AssertionError, match="waits for the device"):
            READERS[read]((values * 2 + host).exp())


# -- a GPU --------------------------------------------------------------------------------------------------------

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def three_steps_without_a_sync(running):
    with Stopper(running.guard, interval=16) as stopper, torch.backends.cudnn.flags(benchmark=False):
        batches = running.loader.batches(0, 6)
        steps(running, stopper, [next(batches) for _ in range(3)])  # what is made at the first use
        torch.cuda.set_sync_debug_mode("error")
        try:
            steps(running, stopper, [next(batches) for _ in range(3)])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()


@gpu
@pytest.mark.parametrize("settings", METHODS, **ids)
def test_a_gpu_is_never_waited_for(tmp_path, settings):
    three_steps_without_a_sync(trainer_of(settings, tmp_path, "cuda", precision="auto"))


@gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_is_never_waited_for_in_any_precision(tmp_path, precision):
    three_steps_without_a_sync(trainer_of({"name": "randomix"}, tmp_path, "cuda", precision=precision))


@pytest.mark.parametrize("step", [3, torch.tensor(3)], ids=["number", "tensor"])
def test_the_guard_notes_a_step_without_reading_one(step):
    weight = torch.zeros(2, requires_grad=True)
    guard = NonFiniteGuard(torch.optim.SGD([weight], 0.1), torch.device("cpu"))
    loss = torch.tensor(float("nan"))
    with RefuseReads(loss, *([step] if isinstance(step, torch.Tensor) else [])):
        guard.observe(step, loss)
    assert guard.poll() == 3
