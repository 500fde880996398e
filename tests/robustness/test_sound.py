"""Noise, masked time and attacks on spoken words, for networks of waveforms and of log-mel features alike."""

import pytest
import torch
from torch import nn

import datasets
from datasets.speech_commands import COMMANDS
from randomix.errors import ConfigError
from randomix.robustness.attacks import PixelNetwork
from randomix.robustness.evaluators import check_evaluators, run_evaluators
from randomix.robustness.noise import add_noise_at_snr
from randomix.robustness.occlusion import occlude
from tests.datasets.sounds import make_speech_commands
from tests.robustness.toys import CPU, whole

SETTINGS = {
    "snr_noise": {"snr_db": [20.0, -10.0], "repeats": 2, "seed": 1},
    "occlusion": {"block": 0.25, "repeats": 2, "placement": "inside"},
    "occlusion_sweep": {"blocks": [0.5, 0.999], "placements": ["inside"]},
    "fgsm_sound": {"eps": [0.0, 0.1]},
}


@pytest.fixture(scope="module", params=["waveform", "log_mel"])
def problem(request, tmp_path_factory):
    """Twelve clips in the official layout and a network that is right about most of its training clips."""
    root = tmp_path_factory.mktemp("speech") / "set"
    make_speech_commands(root, (*COMMANDS, "bed"), takes=5)
    data = datasets.build(
        {"name": "speech_commands", "root": str(root), "verify": False, "features": request.param, "background_prob": 0}
    )
    torch.manual_seed(0)
    pool = nn.Sequential(nn.Conv1d(1, 64, 128, 32), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten())
    first = pool if request.param == "waveform" else nn.Flatten()
    network = nn.Sequential(first, nn.LazyLinear(data.num_classes))
    (train,) = data.train_loader(
        batch_size=data.num_train, seed=0, rank=0, world_size=1, device=CPU, dtype=torch.float32
    ).batches(0, 1)
    network(train.inputs[:1])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(train.inputs), train.labels).backward()
        optimizer.step()
    return network, data, data.eval_set(CPU)


def test_all_that_is_for_sound_runs_on_it(problem):
    network, data, eval_set = problem
    check_evaluators(list(SETTINGS), SETTINGS, data)
    options = {"names": ["clean", *SETTINGS], "settings": SETTINGS}
    found = run_evaluators(network, eval_set, batch_size=12, **options)
    metrics, counts = found["metrics"], found["counts"]
    assert run_evaluators(network, eval_set, batch_size=5, **options)["counts"] == counts
    assert metrics["fgsm_sound_error_0"] == metrics["top1_error"] < metrics["fgsm_sound_error_0.1"]
    assert metrics["snr_noise_error"] == (metrics["snr_noise_error_20db"] + metrics["snr_noise_error_-10db"]) / 2
    assert metrics["top1_error"] <= metrics["snr_noise_error_20db"] <= metrics["snr_noise_error_-10db"]
    assert metrics["occlusion_sweep_error_inside_0.999"] > 75  # next to nothing is left
    batch, model = whole(eval_set), PixelNetwork(network, eval_set.normalise).eval()
    for level, correct in zip((20.0, -10.0), counts["snr_noise"]["correct1"], strict=True):
        for seed, number in enumerate(correct, start=1):
            noisy = add_noise_at_snr(batch.inputs, batch.indices, level, seed)
            assert number == int((model(noisy).argmax(1) == batch.labels).sum())
    assert counts["snr_noise"]["snr_db"] == [20.0, -10.0] and counts["snr_noise"]["total"] == 12


def test_masked_time_is_a_share_of_the_clip(problem):
    """Before the features are made: what is masked is what is heard."""
    _, data, eval_set = problem
    batch = whole(eval_set)
    assert data.input_shape == (1, 16000)
    sound = batch.inputs + 2  # no sample is 0 of itself
    for share in (0.125, 0.25, 0.5):
        silent = occlude(sound, batch.indices, block=share, placement="inside", seed=5) == 0
        assert (silent.sum((1, 2)) == share * 16000).all()
        first, last = silent.int().argmax(2), 15999 - silent.flip(2).int().argmax(2)
        assert (last - first + 1 == share * 16000).all()  # one stretch
        assert len(set(first.flatten().tolist())) > 6


def test_pictures_have_no_signal_to_noise_ratio():
    data = datasets.build({"name": "digits", "train_size": 20})
    for name in ("snr_noise", "fgsm_sound"):
        with pytest.raises(ConfigError, match=f"^evaluators has {name}, which is for sound"):
            check_evaluators([name], {}, data)
