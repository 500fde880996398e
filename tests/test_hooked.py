"""Taps by hooks on somebody else's network: right values, no traces, what is refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from randomix import ManifoldMixup, PatchUp, StepRng, hooked, networks
from tests.small_networks import batch, network


@pytest.fixture(scope="module")
def resnet():
    """Somebody else's network, small: torchvision's ResNet-18 keeps 32 x 32 to 8, 4, 2, 1 pixels."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return resnet18(num_classes=5).train()


def test_hooked_taps_see_and_replace_what_the_submodules_return(resnet):
    model, (inputs, _) = hooked(resnet, ["layer1", "layer2.0"]), batch(spatial=(32, 32))
    model.eval()
    seen = {}

    def double_second(index, features):
        seen[index] = features
        return features * 2 if index == 2 else features

    with torch.no_grad():
        logits = model(inputs, tap=double_second)
        x = resnet.maxpool(F.relu(resnet.bn1(resnet.conv1(inputs))))
        first = resnet.layer1(x)
        second = resnet.layer2[0](first)
        rest = resnet.layer4(resnet.layer3(resnet.layer2[1](second * 2)))
        expected = resnet.fc(rest.mean((2, 3)))
        assert torch.equal(model(inputs), resnet(inputs))
    model.train()
    assert torch.equal(seen[0], inputs)
    torch.testing.assert_close(seen[1], first)
    torch.testing.assert_close(seen[2], second)
    torch.testing.assert_close(logits, expected)
    assert model.num_taps == 3
    assert networks.tap_shapes(model, inputs) == [(3, 32, 32), (64, 8, 8), (128, 4, 4)]


def test_hooks_are_gone_after_each_call_also_after_an_error(resnet):
    model, (inputs, _) = hooked(resnet, ["layer1"]), batch(spatial=(32, 32))

    def hooks():
        return sum(len(part._forward_hooks) for part in resnet.modules())

    def fail(index, features):
        if index == 1:
            assert hooks() == 1
            raise KeyError("in the tap")
        return features

    model(inputs, tap=lambda index, features: features)
    assert hooks() == 0
    with pytest.raises(KeyError, match="in the tap"):
        model(inputs, tap=fail)
    assert hooks() == 0


def test_hooked_weights_are_the_network_s_own(resnet):
    model = hooked(resnet, ["layer1"])
    assert [f"network.{key}" for key in resnet.state_dict()] == list(model.state_dict())
    assert all(p is q for p, q in zip(model.parameters(), resnet.parameters(), strict=True))
    again = copy.deepcopy(model)
    inputs = batch(spatial=(32, 32))[0]
    assert networks.tap_shapes(again, inputs) == networks.tap_shapes(model, inputs)


@pytest.mark.parametrize("names", [["layer9"], ["layer1", ""], []])
def test_submodules_that_are_not_there_are_named(resnet, names):
    with pytest.raises(ValueError, match=r"names has .*, expected submodules of ResNet: conv1, .*layer4\.1\.bn2"):
        hooked(resnet, names)


class Twice(nn.Module):
    """One activation used twice, one never, and a part that returns two tensors."""

    def __init__(self):
        super().__init__()
        self.act, self.spare, self.pair, self.head = nn.ReLU(), nn.ReLU(), nn.GRU(3, 3), nn.Linear(3, 5)

    def forward(self, inputs):
        return self.head(self.pair(self.act(self.act(inputs)).flatten(2).permute(2, 0, 1))[0][0])


def test_submodules_that_do_not_run_once_are_named():
    inputs = batch()[0]
    for name, error, text in (
        ("act", ValueError, "the submodule act ran 2 times in a forward pass, expected once"),
        ("spare", ValueError, "the submodule spare ran 0 times"),
        ("pair", TypeError, "the submodule pair returns tuple, expected one tensor"),
    ):
        with pytest.raises(error, match=text):
            hooked(Twice(), [name])(inputs, tap=lambda index, features: features)


@pytest.mark.parametrize("form", ["compile", "in place", "forward"])
def test_a_compiled_network_is_not_hooked(compiled_forms, form):
    with pytest.raises(ValueError, match="takes the bare network"):
        hooked(compiled_forms[form](network()), ["stem"])


@pytest.mark.parametrize("options", [{}, {"fullgraph": True}, {"dynamic": False}])
def test_a_hooked_network_is_not_compiled(options):
    model, inputs = hooked(network(), ["stem"]), batch()[0]
    model(inputs)
    compiled = torch.compile(model, backend="eager", **options)
    for _ in range(3):  # also once dynamo has given up on it
        with pytest.raises(RuntimeError, match="compile"):
            compiled(inputs, tap=lambda index, features: features * 0)
        with pytest.raises(RuntimeError, match="compile"):
            compiled(inputs)
    with pytest.raises(RuntimeError, match="ignores hooks"):
        model.compile()
    whole = torch.compile(lambda x: model(x).sum(), backend="eager")
    with pytest.raises(RuntimeError, match="ignores hooks"):
        whole(inputs)
    torch._dynamo.reset()


def test_a_hooked_network_runs_where_compiling_is_switched_off():
    model, inputs = hooked(network(), ["stem"]), batch()[0]
    assert torch.equal(torch.compiler.disable(model)(inputs), model(inputs))
    assert torch.equal(checkpoint(model, inputs, use_reentrant=False), model(inputs))


@pytest.mark.parametrize(
    "mixer", [ManifoldMixup(taps=[0, 1, 2]), PatchUp(block_size=3), PatchUp(hard=True, block_size=3)]
)
def test_methods_run_on_somebody_else_s_network(resnet, mixer):
    model, (inputs, targets) = hooked(resnet, ["layer1", "layer2"]), batch(spatial=(32, 32))
    mixer.check_network(model, (3, 32, 32))
    results = [mixer.forward_mixed(model, inputs, targets, StepRng(0, step)) for step in range(6)]
    for result in results:
        assert result.logits.isfinite().all()
    model.zero_grad()
    F.cross_entropy(results[-1].logits, results[-1].targets).backward()
    assert all(p.grad.isfinite().all() for p in resnet.parameters())


class PartlyCheckpointed(nn.Module):
    """Two layers below one that is run again in backward."""

    def __init__(self, use_reentrant):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 5, 3)
        self.use_reentrant = use_reentrant

    def forward(self, inputs):
        def part(features):
            return self.third(self.second(features).tanh()).tanh()

        features = self.first(inputs)
        if self.use_reentrant is None:
            return part(features).mean((2, 3))
        return checkpoint(part, features, use_reentrant=self.use_reentrant).mean((2, 3))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")  # torch's, of what is asked for
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_tap_inside_a_checkpointed_part_fails_and_one_outside_is_right(use_reentrant):
    """Backward runs the part again, when the hooks are gone: what it then finds are gradients of something else."""
    (inputs, _), perm = batch(), torch.tensor([1, 2, 3, 0])
    share = torch.tensor(0.3)

    def mix(index, features):
        return torch.lerp(features, features[perm], share) if index == 1 else features

    inside = hooked(PartlyCheckpointed(use_reentrant), ["second"])
    with pytest.raises(RuntimeError, match="tap a submodule outside of the checkpoint" if use_reentrant else "saved"):
        inside(inputs, tap=mix).square().sum().backward()
    with torch.no_grad():  # nothing is run again then
        assert inside(inputs, tap=mix).shape == (4, 5)
    gradients = []
    for mode in (use_reentrant, None):
        outside = hooked(PartlyCheckpointed(mode), ["first"])
        outside(inputs, tap=mix).square().sum().backward()
        gradients.append([p.grad for p in outside.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_part_that_is_run_without_gradients_may_be_tapped():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, inputs):
            with torch.no_grad():
                features = self.body(inputs)
            return self.head(features.mean((2, 3)))

    model = hooked(Frozen(), ["body"])
    model(torch.rand(2, 3, 6, 6), tap=lambda index, features: features * 2).sum().backward()
    assert model.network.head.weight.grad is not None


@pytest.mark.parametrize("names", ["body", None, ["body", "body"]])
def test_names_are_a_list_without_repetition(names):
    with pytest.raises(ValueError, match="names"):
        hooked(nn.ModuleDict({"body": nn.Linear(2, 2)}), names)
