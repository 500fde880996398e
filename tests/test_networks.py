"""What is done to a network from outside: unwrapped, frozen, tapped."""

import copy
import gc

import pytest
import torch
from torch import nn

from randomix import networks
from tests.small_networks import batch, network


def state_of(model):
    return copy.deepcopy(model.state_dict()), [part.training for part in model.modules()]


def same_state(before, model):
    after = state_of(model)
    return after[1] == before[1] and all(torch.equal(v, after[0][k]) for k, v in before[0].items())


# -- wrappers and modes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["compile", "in place", "forward"])
def test_compiled_networks_are_known_and_unwrapped(compiled_forms, form):
    model = network()
    assert not networks.is_compiled(model)
    compiled = compiled_forms[form](model)
    assert networks.is_compiled(compiled)
    assert networks.unwrap(compiled) is model


def test_a_network_that_is_not_to_be_compiled_is_not_compiled():
    model = network()
    assert not networks.is_compiled(torch.compiler.disable(model))
    model.forward = torch.compiler.disable(model.forward)
    assert not networks.is_compiled(model)


@pytest.mark.parametrize("form", ["compile", "in place"])
def test_the_bare_network_runs_past_its_compiled_form(compiled_forms, form):
    from torch._dynamo.testing import CompileCounter

    model, (inputs, _) = network(), batch()
    counter = CompileCounter()
    if form == "compile":
        compiled = torch.compile(model, backend=counter)
    else:
        model.compile(backend=counter)
        compiled = model
    networks.run_bare(compiled, inputs)
    networks.tap_shapes(compiled, inputs)
    networks.input_gradient(compiled, inputs, batch()[1])
    assert counter.frame_count == 0
    compiled(inputs)
    assert counter.frame_count == 1


def test_evaluation_mode_gives_each_part_its_own_mode_back():
    model = network()
    model.stages[1].eval()  # frozen by its owner
    before = [part.training for part in model.modules()]
    with pytest.raises(KeyError), networks.evaluation_mode(model):
        assert not any(part.training for part in model.modules())
        raise KeyError
    assert [part.training for part in model.modules()] == before
    assert not all(before)


# -- taps ---------------------------------------------------------------------------------------------------------


def test_tap_shapes_are_those_of_the_features_and_leave_the_network_alone():
    model, (inputs, _) = network(), batch()
    before, calls = state_of(model), []
    model.stem.register_forward_hook(lambda *_: calls.append(1))
    expected = [(3, 12, 10), (4, 12, 10), (4, 12, 10), (8, 6, 5), (16, 3, 3), (32, 2, 2)]
    assert networks.tap_shapes(model, inputs) == expected
    assert networks.tap_shapes(model, inputs[:1]) == expected
    assert len(calls) == 1  # learnt once
    assert networks.tap_shapes(model, inputs[..., :8, :])[1] == (4, 8, 10)
    assert same_state(before, model)


def test_shapes_are_forgotten_with_their_network():
    gc.collect()
    known = len(networks._SHAPES)
    model = network()
    networks.tap_shapes(model, batch()[0])
    assert len(networks._SHAPES) == known + 1
    del model
    gc.collect()
    assert len(networks._SHAPES) == known


class Miscounted(nn.Module):
    """A network that says it has three taps and calls those in ``calls``."""

    num_taps = 3

    def __init__(self, calls):
        super().__init__()
        self.calls, self.head = calls, nn.Linear(3, 5)

    def forward(self, inputs, tap=None):
        for index in self.calls if tap is not None else []:
            inputs = tap(index, inputs)
        return self.head(inputs.flatten(2).mean(2))


@pytest.mark.parametrize("calls", [(0, 1), (0, 1, 1, 2), (0, 1, 3)])
def test_taps_that_are_not_called_once_each_are_refused(calls):
    with pytest.raises(ValueError, match=r"num_taps 3, but its forward calls the taps \[0, 1"):
        networks.tap_shapes(Miscounted(calls), batch()[0])
    assert networks.tap_shapes(Miscounted((2, 0, 1)), batch()[0]) == [(3, 12, 10)] * 3


def test_a_network_without_taps_is_told_how_to_get_them():
    with pytest.raises(ValueError, match=r"Linear has no taps: .*hooked\(model, names\)"):
        networks.num_taps(nn.Linear(2, 2))


def test_probing_for_shapes_keeps_no_half_precision_weights():
    """Cast without gradients and kept, they would be what trains: so it was in earlier versions of torch."""
    seen = []

    class Probe(nn.Module):
        num_taps = 1

        def forward(self, inputs, tap=None):
            seen.append(torch.is_autocast_cache_enabled())
            return inputs if tap is None else tap(0, inputs)

    networks.tap_shapes(Probe(), torch.rand(1, 3, 4, 4))
    assert seen == [False]
    assert torch.is_autocast_cache_enabled()
