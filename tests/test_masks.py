"""Fourier masks against plain sums of waves, in NumPy."""

import math

import numpy as np
import pytest
import torch

from randomix import functional, masks


def fmix_noise(spatial, spectrum, count=None, seed=0):
    shape = masks.noise_shape(spatial, spectrum)
    return np.random.default_rng(seed).standard_normal(shape if count is None else (count, *shape))


def paper_image(noise, spatial, decay_power):
    """The inverse transform of the paper's spectrum as a sum of waves, in NumPy."""
    axes = [np.fft.fftfreq(size) for size in spatial[:-1]] + [np.fft.fftfreq(spatial[-1])[: spatial[-1] // 2 + 1]]
    radius = np.sqrt(sum(np.square(f) for f in np.meshgrid(*axes, indexing="ij")))
    spectrum = (noise[..., 0] + 1j * noise[..., 1]) / np.maximum(radius, 1 / max(spatial)) ** decay_power
    image = np.zeros(spatial)
    for k in np.ndindex(*spectrum.shape):
        turns = sum(f[i] * position for f, i, position in zip(axes, k, np.indices(spatial), strict=True))
        once = k[-1] == 0 or 2 * k[-1] == spatial[-1]  # the other columns stand for their mirror image as well
        image += (spectrum[k] * np.exp(2j * np.pi * turns)).real * (1 if once else 2)
    return image


def code_image(noise, spatial, decay_power):
    """The closed form of what the authors' indexing computes."""
    rows, columns = spatial if len(spatial) == 2 else (1, spatial[0])
    longest = max(spatial)
    if len(spatial) == 1:
        z = longest**decay_power * (noise[0] + 1j * noise[1])
        return z[0].real + 2 * (z[1] * np.exp(2j * np.pi * np.arange(columns) / columns)).real
    image, r, c = np.zeros(spatial), np.arange(rows)[:, None], np.arange(columns)
    for k in range(min(noise.shape[1], rows)):
        f = abs(np.fft.fftfreq(columns)[k])
        real, imaginary = (max(math.hypot(f, y / rows), 1 / longest) ** -decay_power for y in (0, 1))
        z = real * noise[0, k] + 1j * imaginary * noise[1, k]
        image += (z[0] * np.exp(2j * np.pi * k * r / rows)).real
        image += 2 * (z[1] * np.exp(2j * np.pi * (k * r / rows + c / columns))).real
    return image


@pytest.mark.parametrize("spatial", [(20,), (7,), (12, 20), (8, 9), (9, 8), (4, 5, 6), (3, 4, 7)])
@pytest.mark.parametrize("spectrum", ["paper", "code"])
def test_low_frequency_images_are_the_sums_of_their_waves(spatial, spectrum):
    if spectrum == "code" and len(spatial) == 3:
        with pytest.raises(ValueError, match="spectrum 'paper'"):
            masks.noise_shape(spatial, spectrum)
        return
    noise = fmix_noise(spatial, spectrum)
    image = masks.low_frequency(torch.from_numpy(noise), spatial, 3.0, spectrum).numpy()
    slow = (paper_image if spectrum == "paper" else code_image)(noise, spatial, 3.0)
    np.testing.assert_allclose(image / np.abs(image).max(), slow / np.abs(slow).max(), atol=1e-12)


def test_surplus_noise_is_ignored():
    long = np.random.default_rng(0).standard_normal((20, 2))
    assert torch.equal(functional.fmix_mask(long, (20,), 0.4), functional.fmix_mask(long[:11], (20,), 0.4))
    tall = np.random.default_rng(0).standard_normal((12, 11, 2))
    whole = functional.fmix_mask(tall, (12, 20), 0.4, spectrum="code")
    assert torch.equal(whole, functional.fmix_mask(tall[:2], (12, 20), 0.4, spectrum="code"))


def test_the_authors_spectrum_refuses_volumes():
    with pytest.raises(ValueError, match="code"):
        functional.fmix_mask(torch.zeros(5, 12, 4, 2), (5, 12, 7), 0.4, spectrum="code")


@pytest.mark.parametrize(
    ("spatial", "spectrum"),
    [((20,), "paper"), ((12, 20), "paper"), ((5, 12, 7), "paper"), ((20,), "code"), ((12, 20), "code")],
)  # the authors' code has no 3-D: the test above
def test_fmix_masks_hold_the_largest_pixels(spatial, spectrum):
    noise, pixels = fmix_noise(spatial, spectrum), math.prod(spatial)
    image = masks.low_frequency(torch.from_numpy(noise), spatial, 3.0, spectrum)
    for lam in (0.0, 0.123, 0.5, 0.999, 1.0):
        for up in (False, True):
            mask = functional.fmix_mask(noise, spatial, lam, round_up=up, spectrum=spectrum)
            assert mask.dtype == torch.bool
            assert mask.shape == spatial
            assert mask.sum() == (math.ceil if up else math.floor)(lam * pixels)
            if 0 < mask.sum() < pixels:
                assert image[mask].min() >= image[~mask].max()


@pytest.mark.parametrize("max_soft", [0.0, 0.2])
def test_fmix_masks_for_each_sample_equal_one_by_one(max_soft):
    noise, lam = fmix_noise((12, 20), "paper", count=9), torch.linspace(0, 1, 9, dtype=torch.float64)
    up = torch.arange(9) % 2 == 0
    many = functional.fmix_mask(noise, (12, 20), lam, round_up=up, max_soft=max_soft)
    for i in range(9):
        one = functional.fmix_mask(noise[i], (12, 20), float(lam[i]), round_up=bool(up[i]), max_soft=max_soft)
        assert torch.equal(many[i], one)


def test_soft_masks_fall_in_a_straight_line():
    noise = fmix_noise((10, 10), "paper")
    mask = functional.fmix_mask(noise, (10, 10), 0.5, max_soft=0.1)
    levels = mask.flatten().sort(descending=True).values
    expected = torch.cat([torch.ones(40), torch.linspace(1, 0, 20), torch.zeros(40)])
    torch.testing.assert_close(levels, expected)
    assert functional.fmix_mask(noise, (10, 10), 0.0, max_soft=0.3).sum() == 0


@pytest.mark.parametrize("spatial", [(1, 16), (4, 4, 4)])
def test_the_code_spectrum_names_the_way_out(spatial):
    with pytest.raises(ValueError, match="use spectrum 'paper'"):
        functional.fmix_mask(np.ones((1, 9, 2)), spatial, 0.5, spectrum="code")
    with pytest.raises(ValueError, match="spectrum must be one of paper, code, got 'typo'"):
        masks.noise_shape((8, 8), "typo")


def test_take_rows_keeps_the_layout():
    inputs = torch.randn(7, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    index = torch.tensor([3, 3, 0])
    assert torch.equal(masks.take_rows(inputs, index), inputs[index])
    assert masks.take_rows(inputs, index).is_contiguous(memory_format=torch.channels_last)
    assert masks.take_rows(inputs.contiguous(), index).is_contiguous()


def test_restride_changes_only_strides_that_place_nothing():
    one = torch.randn(2, 1, 3, 4)
    other = torch.randn(2, 3, 4, 1).movedim(-1, 1)
    assert one.stride() != other.stride()
    assert masks.restride(one, other).stride() == other.stride()
    assert torch.equal(masks.restride(one, other), one)
    three = torch.randn(2, 3, 4, 5)
    assert masks.restride(three, three.contiguous(memory_format=torch.channels_last)) is three
