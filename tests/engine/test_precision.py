"""What float32 means: TF32 only where it was asked for, and only where the device has it."""

import pytest
import torch

from randomix.engine.optim import resolve_precision
from randomix.engine.schema import validate
from randomix.errors import ConfigError
from randomix.records.identity import config_hash
from randomix.runs.setup import set_up_torch
from tests.support import tiny_config

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def as_before():
    """Switches of the whole process."""
    convolutions, products, threads = torch.backends.cudnn, torch.backends.cuda.matmul, torch.get_num_threads()
    before = convolutions.allow_tf32, products.allow_tf32, convolutions.benchmark
    yield
    convolutions.allow_tf32, products.allow_tf32, convolutions.benchmark = before
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("name", "tf32"), [("fp32", False), ("tf32", True), ("bf16", False), ("fp16", False)])
@pytest.mark.parametrize("before", [False, True])
def test_tf32_is_on_where_it_was_asked_for_alone(monkeypatch, name, tf32, before):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = before
    set_up_torch(resolve_precision(name, GPU), threads=1)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (tf32, tf32)


def test_tf32_computes_in_float32_without_autocast_and_scaler(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    precision = resolve_precision("tf32", GPU)
    assert (precision.name, precision.dtype) == ("tf32", torch.float32)
    assert not precision.scaler().is_enabled()
    assert not precision.autocast()._enabled


@pytest.mark.parametrize("capability", [(7, 0), (7, 5)])
def test_tf32_is_refused_by_older_gpus(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    text = rf"precision=tf32: needs a GPU of capability 8.0 or above, found capability 7\.{capability[1]}; use fp32"
    with pytest.raises(ConfigError, match=text):
        resolve_precision("tf32", GPU)


def test_tf32_is_refused_on_a_cpu_also_before_torch_is_imported(tmp_path):
    with pytest.raises(ConfigError, match=r"found cpu; use fp32"):
        resolve_precision("tf32", torch.device("cpu"))
    config = tiny_config(tmp_path, trainer={"precision": "tf32"})
    assert validate(config) == ["trainer.precision=tf32: not with trainer.device=cpu; use fp32"]
    assert validate(tiny_config(tmp_path, trainer={"precision": "tf32", "device": "auto"})) == []


def test_tf32_is_another_result():
    hashes = [config_hash(tiny_config("x", trainer={"precision": name})) for name in ("fp32", "tf32", "auto")]
    assert len(set(hashes)) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_switch_reaches_the_arithmetic_of_a_gpu():
    if torch.cuda.get_device_capability(GPU) < (8, 0):
        pytest.skip("needs a GPU with TF32 (capability 8.0)")
    a, b = torch.rand(2, 512, 512, generator=torch.Generator().manual_seed(0))
    exact, errors = a.double() @ b.double(), {}
    for name in ("fp32", "tf32"):
        set_up_torch(resolve_precision(name, GPU))
        errors[name] = float(((a.to(GPU) @ b.to(GPU)).cpu().double() - exact).abs().max())
    assert errors["tf32"] > 20 * errors["fp32"]
