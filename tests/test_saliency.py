"""Fine-grained saliency against slow loops and OpenCV, and SaliencyMix on top of it."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from randomix import SaliencyMix, StepRng, functional, mixers, saliency
from randomix.saliency import fine_grained_saliency, published_saliency, saliency_peaks, to_uint8

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
SIZES = [(32, 32, 3), (28, 28, 1), (24, 40, 3), (13, 20, 1), (7, 5, 1), (30, 16, 3), (2, 2, 3)]


def images(shape, count=6, seed=0):
    """uint8 images (N, H, W, C): noise, slopes, a few bright pixels, hardly any contrast, a disc, one grey."""
    draw, (height, width, channels) = np.random.default_rng(seed), shape
    rows, columns = np.mgrid[:height, :width]
    disc = (rows - height / 3) ** 2 + (columns - width / 2) ** 2 < height * width / 20
    kinds = [
        draw.integers(0, 256, shape),
        128 + draw.normal(0, 9, shape).cumsum(0) + draw.normal(0, 9, shape).cumsum(1),
        255 * (draw.random(shape) < 0.03),
        draw.integers(100, 104, shape),
        disc[..., None] * draw.integers(0, 200, channels) + draw.integers(0, 50, shape),
        np.full(shape, 77),
    ]
    return torch.from_numpy(np.stack([np.clip(kinds[i % 6], 0, 255) for i in range(count)]).astype(np.uint8))


def slow_smooth(grey):
    padded = np.pad(grey, 1, mode="reflect")
    kernel = np.outer([1, 2, 1], [1, 2, 1])
    return np.array(
        [
            [(padded[r : r + 3, c : c + 3] * kernel).sum() / 16 for c in range(grey.shape[1])]
            for r in range(grey.shape[0])
        ]
    )


def slow_levels(grey, own):
    """Pixel by pixel, reach by reach, in float64 (a mean that is an integer but for its rounding would differ)."""
    height, width = grey.shape
    above, below = np.zeros((2, height, width))
    for reach in (12, 24, 28, 48, 56, 112):
        for r, c in np.ndindex(height, width):
            box = grey[max(r - reach + 1, 0) : r + reach + 1, max(c - reach + 1, 0) : c + reach + 1]
            mean = (box.sum() - own[r, c]) / (box.size - 1)
            above[r, c] += int(max(own[r, c] - mean, 0)) % 256
            below[r, c] += int(max(mean - own[r, c], 0)) % 256
    scaled = [np.floor(part * 255 / max(part.max(), 1)) for part in (above, below)]
    return (scaled[0] + scaled[1]) % 256


def slow_saliency(image):
    weights = [3735, 19235, 9798] if image.shape[-1] == 3 else [32768]
    grey = np.floor((image.astype(np.float64) * weights).sum(-1) / 32768 + 0.5)
    for _ in range(2):
        grey = np.floor(slow_smooth(grey) + 0.5)
    return slow_levels(grey, grey)


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_equals_the_slow_loops(shape):
    given = images(shape)
    found = fine_grained_saliency(given)
    assert found.dtype == torch.float32
    assert found.shape == (6, *shape[:2])
    for image, one in zip(given.numpy(), found, strict=True):
        np.testing.assert_array_equal(torch.round(one * 255), slow_saliency(image))
    assert (found[5] == 0).all()  # nothing stands out


def test_levels_above_255_start_again_from_zero():
    """A bright spot in a dark hole of a brighter image: the most salient pixel of all is nearly black in the map."""
    image = torch.full((1, 200, 200, 1), 200, dtype=torch.uint8)
    image[:, 70:130, 70:130] = 0
    image[:, 98:102, 98:102] = 150
    found = torch.round(fine_grained_saliency(image)[0] * 255)
    assert found[100, 97:103].tolist() == [167, 224, 16, 15, 223, 166]  # as OpenCV 5.0 has them


def test_as_published_equals_the_slow_loops():
    given = (images((32, 32, 1)).float() / 255 - 0.5) / 0.25
    for image, one in zip(given.numpy(), published_saliency(given), strict=True):
        grey = image[..., 0].astype(np.float32)
        for _ in range(2):  # exact in float64 up to one rounding of float32 an axis, as in any float32 code
            padded = np.pad(grey, 1, mode="reflect")
            rows = (padded[:, :-2] + padded[:, 2:]) * np.float32(0.25) + padded[:, 1:-1] * np.float32(0.5)
            grey = (rows[:-2] + rows[2:]) * np.float32(0.25) + rows[1:-1] * np.float32(0.5)
        own = np.frombuffer(grey.tobytes(), np.uint8).reshape(32, 128)[:, :32].astype(np.float64)
        np.testing.assert_array_equal(torch.round(one * 255), slow_levels(grey.astype(np.float64), own))


def test_as_published_has_nothing_to_do_with_the_image():
    """The reason for the option's name: no peak in common, and never on every fourth column."""
    given = images((32, 32, 3), 240)[torch.arange(240) % 6 != 5]
    given = given + torch.randint(0, 3, given.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    true = saliency_peaks(fine_grained_saliency(given))
    published = saliency_peaks(published_saliency((given / 255 - 0.45) / 0.25))
    assert (true == published).all(1).float().mean() < 0.02
    assert (published[:, 1] % 4 != 3).all()  # sign and exponent


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (24, 40, 3), (33, 31, 3)], ids=str)
def test_equals_opencv(shape):
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "saliency"):
        pytest.skip("opencv without its contributed modules")
    detector = cv2.saliency.StaticSaliencyFineGrained_create()
    given = images(shape, 60)
    given = given + torch.randint(0, 3, given.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = fine_grained_saliency(given)
    for image, one in zip(given.numpy(), found, strict=True):
        np.testing.assert_array_equal(one, detector.computeSaliency(image)[1].reshape(shape[:2]))
    floats = (given.float() / 255 - 0.45) / 0.25
    theirs = np.stack([detector.computeSaliency(image)[1].reshape(shape[:2]) for image in floats.numpy()])
    assert np.mean(published_saliency(floats).numpy() == theirs) > 0.999  # its roundings are those of its processor


@pytest.mark.parametrize(("find", "convert"), [(fine_grained_saliency, torch.Tensor.byte), (published_saliency, None)])
def test_one_image_one_reach_and_other_layouts_change_nothing(find, convert, monkeypatch):
    given = images((24, 40, 3)) if convert else images((24, 40, 3)) / 100 - 1
    whole = find(given)
    assert torch.equal(torch.cat([find(one) for one in given.split(1)]), whole)  # NumPy
    assert torch.equal(find(given.movedim(-1, 1).contiguous().movedim(1, -1)), whole)
    monkeypatch.setattr(saliency, "_CORNERS_AT_ONCE", 0)
    assert torch.equal(find(given), whole)
    assert torch.equal(find(given[:1]), whole[:1])
    if not convert:
        assert torch.equal(find(given.double()), whole)


def test_a_gradient_is_not_followed():
    inputs = torch.rand(1, 3, 8, 8, requires_grad=True)
    peak = saliency_peaks(published_saliency(inputs.movedim(1, -1)))
    assert torch.equal(peak, saliency_peaks(published_saliency(inputs.detach().movedim(1, -1))))


def test_peaks_are_the_first_in_raster_order():
    values = torch.zeros(3, 4, 5)
    values[0, 2, 3] = values[0, 2, 4] = values[0, 3, 0] = 1
    values[1, 3, 4] = 1
    expected = [[2, 3], [3, 4], [0, 0]]
    assert saliency_peaks(values).tolist() == expected
    assert [saliency_peaks(one).tolist()[0] for one in values.split(1)] == expected


def test_uint8_images_come_back_from_normalised_inputs():
    given = images((9, 7, 3), 5)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    inputs = (given.movedim(-1, 1).float() / 255 - mean) / std
    for layout in (torch.contiguous_format, torch.channels_last):
        for count in (1, 5):
            back = to_uint8(inputs[:count].contiguous(memory_format=layout), MEAN, STD)
            assert back.dtype == torch.uint8
            assert torch.equal(back, given[:count])
    assert torch.equal(to_uint8(inputs.double(), MEAN, STD), given)
    pixels = torch.tensor([-0.2, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.3]).view(1, 1, 2, 3)
    assert to_uint8(pixels).flatten().tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fine_grained_saliency(torch.rand(1, 8, 8, 3)), "images must be uint8, got torch.float32"),
        (lambda: published_saliency(torch.zeros(1, 8, 8, 3, dtype=torch.uint8)), "floating point, got torch.uint8"),
        (lambda: fine_grained_saliency(torch.zeros(1, 3, 8, 8).byte()), r"got \(1, 3, 8, 8\)"),
        (lambda: fine_grained_saliency(torch.zeros(1, 1, 8, 3).byte()), "at least 2 x 2 pixels, got 1 x 8"),
        (lambda: to_uint8(torch.zeros(1, 1, 8, 8), MEAN, STD), "3 entries for inputs of 1 channels"),
        (lambda: SaliencyMix(saliency="opencv"), "saliency must be one of uint8, as_published, got 'opencv'"),
        (lambda: SaliencyMix(alpha=-1), "alpha must be a number > 0"),
        (lambda: SaliencyMix().check_shape((2, 8, 8)), "1 or 3 channels only, got 2"),
        (lambda: SaliencyMix().check_shape((1, 16000)), "2-D samples only"),
        (lambda: SaliencyMix(mean=(0.5,)).check_shape((3, 8, 8)), "mean has 1 entries for images of 3 channels"),
        (lambda: SaliencyMix(std=(0.5, 1)).check_shape((1, 8, 8)), "std has 2 entries for images of 1 channels"),
        (lambda: SaliencyMix()(torch.rand(2, 4, 8, 8), torch.eye(2), 0), "1 or 3 channels only, got 4"),
        (lambda: SaliencyMix()(torch.rand(2, 3, 8), torch.eye(2), 0), "2-D samples only"),
    ],
)
def test_misuse_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- SaliencyMix -----------------------------------------------------------------------------------------------------


def batch(count=7, spatial=(12, 20), seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, *spatial, generator=draw), torch.eye(count), torch.randperm(count, generator=draw)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_box_is_cut_around_the_peak_pixel_by_pixel(layout):
    inputs, targets, perm = batch()
    inputs = inputs.contiguous(memory_format=layout)
    draw = np.random.default_rng(0)
    lams, peaks = draw.random(7), draw.integers(0, (12, 20), (7, 2))
    forms = [
        (0.4, (3, 17), [0.4] * 7, [(3, 17)] * 7),
        (0.4, torch.tensor([3, 17]), [0.4] * 7, [(3, 17)] * 7),
        (lams, torch.from_numpy(peaks), lams, peaks),
        (torch.from_numpy(lams), torch.from_numpy(peaks), lams, peaks),
    ]
    for lam, peak, each_lam, each_peak in forms:
        mixed = functional.saliencymix(inputs, targets, perm, lam, peak)
        expected, shares = inputs.clone(), []
        for i, (one_lam, (row, column)) in enumerate(zip(each_lam, each_peak, strict=True)):
            height, width = (int(size * (1 - one_lam) ** 0.5) // 2 for size in (12, 20))
            rows = range(max(row - height, 0), min(row + height, 12))
            columns = range(max(column - width, 0), min(column + width, 20))
            for r in rows:
                for c in columns:
                    expected[i, :, r, c] = inputs[perm[i], :, r, c]
            shares.append(1 - len(rows) * len(columns) / 240)
        assert torch.equal(mixed.inputs, expected)
        assert mixed.inputs.stride() == inputs.stride()
        torch.testing.assert_close(mixed.lam, torch.tensor(shares, dtype=torch.float32))
        own = torch.tensor(shares)[:, None].float()
        torch.testing.assert_close(mixed.targets, own * targets + (1 - own) * targets[perm])


@pytest.fixture(scope="module")
def peaked():
    """Pixels (N, 3, H, W) in [0, 1] and the place at which each is most salient."""
    given = torch.cat([images((24, 30, 3), 2, seed) for seed in range(5)])[:9]
    places = [np.unravel_index(slow_saliency(image).argmax(), (24, 30)) for image in given.numpy()]
    assert len(set(places)) == 9
    return given.movedim(-1, 1).float() / 255, places


@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("normalised", [False, True])
def test_the_peak_is_the_partners(granularity, normalised, peaked):
    inputs, places = peaked
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    mixer = SaliencyMix(granularity=granularity, **{"mean": MEAN, "std": STD} if normalised else {})
    seen = 0
    for step in range(20):
        rng = StepRng(0, step)
        draws = rng.generator("saliencymix")
        perm = draws.permutation(9)
        draws.random(None if granularity == "batch" else 9)
        lam = draws.beta(1.0, 1.0, None if granularity == "batch" else 9)
        mixed = mixer((inputs - mean) / std if normalised else inputs, torch.eye(9), rng)
        for i in range(9):
            row, column = places[perm[0] if granularity == "batch" else perm[i]]
            height, width = (int(size * (1 - np.float32(np.broadcast_to(lam, 9)[i])) ** 0.5) // 2 for size in (24, 30))
            area = (min(row + height, 24) - max(row - height, 0)) * (min(column + width, 30) - max(column - width, 0))
            assert float(mixed.lam[i]) == pytest.approx(1 - area / 720, abs=1e-6)
            seen += 0 < area < 720
    assert seen > 100


def test_as_published_looks_at_the_normalised_floats():
    inputs = (images((32, 32, 3), 40, seed=5).movedim(-1, 1)[:5].float() / 255 - 0.5) / 0.25
    found = [
        mixers.build({"name": "saliencymix", "saliency": s, "mean": [0.5] * 3, "std": [0.25] * 3})
        for s in ("uint8", "as_published")
    ]
    for step in range(10):
        rng = StepRng(1, step)
        draws = rng.generator("saliencymix")
        perm = torch.from_numpy(draws.permutation(5))
        draws.random()
        lam = draws.beta(1.0, 1.0)
        peak = saliency_peaks(published_saliency(inputs[perm[:1]].movedim(1, -1)))[0]
        expected = functional.saliencymix(inputs, torch.eye(5), perm, lam, peak.tolist())
        true, published = (mixer(inputs, torch.eye(5), rng) for mixer in found)
        assert torch.equal(published.inputs, expected.inputs)
        assert torch.equal(published.lam, expected.lam)
        if step == 0:
            assert not torch.equal(true.inputs, published.inputs)


def test_statistics_reach_the_candidates_of_a_composite():
    built = mixers.build({"name": "randomix", "candidates": ["saliencymix", "cutout"]}, mean=MEAN, std=STD)
    assert (built.candidates[0].mean, built.candidates[0].std) == (MEAN, STD)


class NoFloatRunningSums(TorchDispatchMode):
    """As CUDA where only deterministic algorithms are allowed."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__.startswith("cumsum"):
            kind = (kwargs or {}).get("dtype") or args[0].dtype
            assert not kind.is_floating_point
        return func(*args, **(kwargs or {}))


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("find", [fine_grained_saliency, published_saliency])
def test_a_device_may_be_deterministic(find, deterministic):
    dtype = torch.uint8 if find is fine_grained_saliency else torch.float32
    with NoFloatRunningSums():
        assert find(torch.empty(2, 9, 7, 3, dtype=dtype, device="meta")).shape == (2, 9, 7)
    with pytest.raises(AssertionError), NoFloatRunningSums():
        torch.rand(3).cumsum(0)


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 2, 3), (1, 33, 64), (2, 225, 65)])
def test_running_sums_by_doubling_are_the_same(shape):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for axis in (1, 2):
        assert torch.equal(saliency._doubled(values, axis), values.cumsum(axis))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_deterministic_gpu_finds_the_same(kind, deterministic):
    given = images((32, 32, 3), 12)
    find = fine_grained_saliency if kind is torch.uint8 else published_saliency
    given = given if kind is torch.uint8 else (given / 255 - 0.45) / 0.25
    assert torch.equal(find(given.cuda()).cpu(), find(given))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("kind", ["uint8", "as_published"])
def test_a_gpu_finds_the_same_without_being_waited_for(granularity, kind):
    inputs = (images((32, 32, 3), 12).movedim(-1, 1).float() / 255 - 0.5) / 0.25
    mixer = SaliencyMix(saliency=kind, granularity=granularity, mean=(0.5,) * 3, std=(0.25,) * 3)
    there = inputs.cuda().contiguous(memory_format=torch.channels_last)
    targets = torch.eye(12, device="cuda")
    mixer(there, targets, 0)  # constants go over once
    for step in range(5):
        torch.cuda.set_sync_debug_mode("error")
        try:
            mixed = mixer(there, targets, StepRng(0, step))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        expected = mixer(inputs, targets.cpu(), StepRng(0, step))
        assert torch.equal(mixed.inputs.cpu(), expected.inputs)
