"""One thread an operation, before torch is imported: equal sums on every machine, and processes that can be forked."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def compiled_forms():
    """The ways to compile a network without generating code, each with what unwrap should find."""
    import torch

    def in_place(model):
        model.compile(backend="eager")
        return model

    def forward_only(model):
        model.forward = torch.compile(model.forward, backend="eager")
        return model

    yield {"compile": lambda m: torch.compile(m, backend="eager"), "in place": in_place, "forward": forward_only}
    torch._dynamo.reset()
