"""Log-mel features against explicit windows, FFTs and a mel matrix from its formula."""

from functools import cache

import numpy as np
import pytest
import torch

from datasets.sound.log_mel import HOP, N_FFT, N_MELS, LogMel, feature_shape, shortest

CPU = torch.device("cpu")


def slaney_hz(mel):
    """Slaney's scale: linear, 3 mels in 200 Hz, up to 1 kHz; from there 27 mels for a factor of 6.4."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


@cache
def mel_matrix(rate):
    """Triangles (mels, bins) between neighbouring centres, each of area 1 in Hz."""
    top = 15 + 27 * np.log(rate / 2 / 1000) / np.log(6.4)
    edges = slaney_hz(np.linspace(0, top, N_MELS + 2))
    bins = np.arange(N_FFT // 2 + 1) * rate / N_FFT
    matrix = np.zeros((N_MELS, len(bins)))
    for m in range(N_MELS):
        low, centre, high = edges[m : m + 3]
        for k, f in enumerate(bins):
            matrix[m, k] = max(0, min((f - low) / (centre - low), (high - f) / (high - centre))) * 2 / (high - low)
    return matrix


def slow(waveform, rate):
    """(mels, frames) in float64."""
    padded = np.pad(waveform.astype(np.float64), N_FFT // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    power = []
    for frame in range(1 + len(waveform) // HOP):
        spectrum = np.fft.rfft(padded[frame * HOP : frame * HOP + N_FFT] * window)
        power.append(mel_matrix(rate) @ np.abs(spectrum) ** 2)
    power = np.maximum(np.array(power).T, 1e-10)
    decibels = 10 * np.log10(power / power.max())
    return (np.maximum(decibels, -80) + 40) / 80


@pytest.mark.parametrize(("rate", "length"), [(16_000, 16_000), (8_000, 5_000), (22_050, shortest())])
def test_features_equal_the_slow_ones(rate, length):
    rng = np.random.default_rng(0)
    time = np.arange(length) / rate
    sounds = np.stack(
        [
            0.3 * np.sin(2 * np.pi * 440 * time) + 0.01 * rng.standard_normal(length),
            0.5 * rng.standard_normal(length).clip(-2, 2),
            np.sin(2 * np.pi * (200 + 3000 * time) * time) * np.exp(-5 * time) * 1e-3,
        ]
    ).astype(np.float32)
    features = LogMel(rate, CPU)(torch.from_numpy(sounds)[:, None])
    assert tuple(features.shape) == (3, *feature_shape(length)) and features.dtype == torch.float32
    for found, sound in zip(features[:, 0].numpy(), sounds, strict=True):
        np.testing.assert_allclose(found, slow(sound, rate), atol=2e-4)  # float32 at 80 dB below the loudest
    assert features.max() == 0.5 and features.min() >= -0.5


def test_features_equal_those_of_torchaudio():
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    mel = MelSpectrogram(16_000, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS, norm="slaney", mel_scale="slaney")
    decibels = torch.nn.Sequential(mel, AmplitudeToDB(top_db=80.0))
    generator = torch.Generator().manual_seed(0)
    sounds = torch.randn(21, 1, 16_000, generator=generator) * torch.rand(21, 1, 16_000, generator=generator) ** 4
    slow = torch.stack([(db - db.amax() + 40) / 80 for db in map(decibels, sounds)])
    torch.testing.assert_close(LogMel(16_000, CPU)(sounds), slow, atol=1e-5, rtol=0)


def test_one_second_gives_the_size_of_fmix():
    assert feature_shape(16_000) == (1, 32, 32)


def test_silence_is_one_half_everywhere_and_has_no_gradient():
    sound = torch.zeros(2, 1, 16_000, requires_grad=True)
    features = LogMel(16_000, CPU)(sound)
    assert torch.equal(features, torch.full((2, 1, 32, 32), 0.5))
    features.sum().backward()
    assert torch.equal(sound.grad, torch.zeros_like(sound))


def test_loudness_does_not_matter_and_clips_do_not_meet():
    sound = torch.randn(3, 1, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    transform = LogMel(16_000, CPU)
    louder = sound * torch.tensor([1.0, 5.0, 0.2])[:, None, None]
    torch.testing.assert_close(transform(louder), transform(sound), atol=1e-5, rtol=0)
    torch.testing.assert_close(transform(sound)[1:2], transform(sound[1:2]), atol=1e-6, rtol=0)
    many = sound.repeat(23, 1, 1)  # 69: more than are made at once, and not a multiple
    torch.testing.assert_close(transform(many), transform(sound).repeat(23, 1, 1, 1), atol=1e-6, rtol=0)


def test_gradients_are_right_and_float32_stays_under_autocast():
    sound = torch.randn(1, 1, 2_000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    transform = LogMel(16_000, CPU)
    weights = torch.randn(1, 1, 32, 4, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((transform(sound) * weights).sum(), sound)
    step = torch.zeros_like(sound)
    for place in (3, 700, 1999):
        step.zero_()[0, 0, place] = 1e-2
        change = (transform(sound + step) - transform(sound - step)).double().mul(weights).sum() / 2e-2
        assert abs(change - gradient[0, 0, place]) < 0.02 * gradient.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        inside = transform(sound.detach())
    assert inside.dtype == torch.float32 and torch.equal(inside, transform(sound.detach()))
