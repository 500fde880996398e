"""Occlusion and noise: area statistics, a slow reference, and independence of batch, rank, layout and device."""

import pytest
import torch

from randomix.robustness.counter import hash64, uniform_integers
from randomix.robustness.noise import add_gaussian_noise, add_noise_at_snr
from randomix.robustness.occlusion import occlude, occlusion_masks

SPATIAL = (12, 7)
OPTIONS = [
    {"kind": "random_blocks", "block": 5, "placement": "clipped"},
    {"kind": "random_blocks", "block": 4, "n_blocks": 3, "placement": "inside"},
    {"kind": "center", "block": 4},
    {"kind": "boundary", "block": 3},
    {"kind": "grid", "block": 3, "n_blocks": 4},
]


def pixels(count=9, channels=3, spatial=SPATIAL):
    return torch.rand(count, channels, *spatial, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("placement", "areas"),
    [
        ("clipped", {8: 5.5, 12: 11.6, 16: 19.1, 20: 27.8, 24: 37.1}),
        ("inside", {8: 6.25, 12: 14.06, 16: 25.0, 20: 39.06, 24: 56.25}),
    ],
)
def test_mean_occluded_area(placement, areas):
    for block, percent in areas.items():
        masks = occlusion_masks((32, 32), torch.arange(10_000), block=block, placement=placement)
        assert abs(100 * masks.double().mean() - percent) < 0.35


def test_clipped_area_is_exact_in_expectation():
    """Over all centres the area of a clipped 16-px block is (14 / 32)^2 = 19.14 %."""
    overlaps = [min(c + 8, 32) - max(c - 8, 0) for c in range(32)]
    assert abs((sum(overlaps) / 32**2) ** 2 - 0.1914) < 1e-4
    masks = occlusion_masks((32, 32), torch.arange(20_000), block=16)
    assert abs(masks.double().mean() - 0.1914) < 0.002
    sides = {tuple(sorted({int(m.any(0).sum()), int(m.any(1).sum())})) for m in masks[:2000, 0]}
    assert min(min(s) for s in sides) == 8 and max(max(s) for s in sides) == 16


@pytest.mark.parametrize("placement", ["clipped", "inside"])
@pytest.mark.parametrize(("spatial", "block", "n_blocks"), [((12, 7), 5, 2), ((6,), 3, 1), ((4, 5, 3), 2, 3)])
def test_random_blocks_equal_a_slow_loop(placement, spatial, block, n_blocks):
    indices = torch.tensor([3, 0, 1000, 7])
    options = {"block": block, "n_blocks": n_blocks, "placement": placement, "seed": 5}
    masks = occlusion_masks(spatial, indices, **options)
    for row, index in enumerate(indices.tolist()):
        expected = torch.zeros(spatial, dtype=torch.bool)
        for number in range(n_blocks):
            box = []
            for axis, size in enumerate(spatial):
                bits = hash64(5, axis, torch.tensor([index]), number)
                if placement == "inside":
                    start = int(uniform_integers(bits, size - block + 1))
                else:
                    start = int(uniform_integers(bits, size)) - block // 2
                box.append(slice(max(start, 0), min(start + block, size)))
            expected[tuple(box)] = True
        assert torch.equal(masks[row, 0], expected)


def test_inside_blocks_are_whole_and_reach_every_place():
    masks = occlusion_masks((6, 5), torch.arange(500), block=3, placement="inside")[:, 0]
    assert (masks.sum((1, 2)) == 9).all()
    assert len({m.numpy().tobytes() for m in masks}) == 4 * 3


def test_center_boundary_and_grid():
    indices = torch.arange(50)
    center = occlusion_masks(SPATIAL, indices, kind="center", block=4)
    expected = torch.zeros(SPATIAL, dtype=torch.bool)
    expected[4:8, 1:5] = True
    assert torch.equal(center, expected.expand(50, 1, *SPATIAL))
    assert torch.equal(occlusion_masks(SPATIAL, indices, kind="boundary", block=4), ~center)
    grid = occlusion_masks(SPATIAL, indices, kind="grid", block=4, n_blocks=2)[:, 0]
    cells = torch.stack([grid[:, r : r + 4, c : c + 4].float().mean((1, 2)) for r in (0, 4, 8) for c in (0, 4)], 1)
    assert ((cells == 0) | (cells == 1)).all() and (cells.sum(1) == 2).all()
    assert (cells.mean(0) > 0.15).all()  # every cell is chosen now and then
    assert occlusion_masks(SPATIAL, indices, kind="grid", block=4, n_blocks=6).all()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_masks_depend_on_seed_and_index_alone(options):
    inputs, indices = pixels(), torch.tensor([4, 0, 9, 100, 7, 31, 2, 5, 1])
    whole = occlude(inputs, indices, seed=1, **options)
    for size in (1, 2, 4):  # batch sizes
        parts = [occlude(i, n, seed=1, **options) for i, n in zip(inputs.split(size), indices.split(size), strict=True)]
        assert torch.equal(torch.cat(parts), whole)
    for world_size in (2, 3):  # ranks
        for rank in range(world_size):
            part = slice(rank, None, world_size)
            assert torch.equal(occlude(inputs[part], indices[part], seed=1, **options), whole[part])
    last = inputs.to(memory_format=torch.channels_last)
    assert torch.equal(occlude(last, indices, seed=1, **options), whole)
    if options["kind"] in ("random_blocks", "grid"):
        assert not torch.equal(occlude(inputs, indices, seed=2, **options), whole)
        assert len({m.numpy().tobytes() for m in occlusion_masks(SPATIAL, torch.arange(200), **options)}) > 20


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_occlude_fills_the_mask_and_nothing_else(options):
    inputs, indices = pixels(), torch.arange(9)
    before = inputs.clone()
    masks = occlusion_masks(SPATIAL, indices, **options).expand_as(inputs)
    for fill in (0.0, 0.5, 1):
        out = occlude(inputs, indices, fill=fill, **options)
        assert (out[masks] == fill).all() and torch.equal(out[~masks], inputs[~masks])
    coloured = occlude(inputs, indices, fill=[0.1, 0.2, 0.3], **options)
    for channel, value in enumerate((0.1, 0.2, 0.3)):
        assert (coloured[:, channel][masks[:, channel]] == torch.tensor(value)).all()
    assert torch.equal(coloured[~masks], inputs[~masks])
    assert torch.equal(inputs, before)


def test_no_blocks_whole_image_and_default_size():
    inputs, indices = pixels(), torch.arange(9)
    assert torch.equal(occlude(inputs, indices, n_blocks=0), inputs)
    square = pixels(spatial=(8, 8))
    assert (occlude(square, indices, block=8, placement="inside", fill=0.25) == 0.25).all()
    assert (occlusion_masks((8, 12), indices, placement="inside").sum((1, 2, 3)) == 16).all()  # half of 8


@pytest.mark.parametrize("spatial", [(32, 32), (16000,), (8, 12), (7,)])
def test_a_share_is_that_of_the_shorter_side(spatial):
    for share, pixels_ in [(0.25, round(min(spatial) / 4)), (0.5, min(spatial) // 2 + min(spatial) % 2), (1e-9, 1)]:
        own, same = (occlusion_masks(spatial, torch.arange(40), block=block, seed=3) for block in (share, pixels_))
        assert torch.equal(own, same)
    assert torch.equal(occlusion_masks((8, 8), torch.arange(9), block=4.0), occlusion_masks((8, 8), torch.arange(9)))


def test_empty_batch():
    empty = torch.empty(0, dtype=torch.int64)
    assert occlude(pixels(0), empty, block=3).shape == (0, 3, *SPATIAL)
    assert add_gaussian_noise(pixels(0), empty, 0.1).shape == (0, 3, *SPATIAL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "blocks"}, "occlusion kind is 'blocks', expected one of random_blocks"),
        ({"placement": "in"}, "occlusion placement is 'in'"),
        ({"block": 8}, r"occlusion block is 8 pixels, expected 1 to 7 for images of \(12, 7\)"),
        ({"block": 0}, "occlusion block is 0"),
        ({"n_blocks": -1}, "occlusion n_blocks is -1"),
        ({"kind": "grid", "block": 4, "n_blocks": 7}, "n_blocks is 7, expected 0 to 6"),
        ({"block": 2.5}, "occlusion block is 2.5, expected whole pixels, or a share of the side below 1"),
        ({"block": -0.5}, "occlusion block is -0.5"),
        ({"fill": [0.0, 1.0]}, "fill has 2 entries for inputs of 3 channels"),
        ({"fill": 127}, "occlusion fill is 127, expected 0 to 1: a pixel's value before normalisation"),
        ({"fill": [0.5, 0.5, -0.1]}, r"occlusion fill is \[0.5, 0.5, -0.1\], expected 0 to 1"),
        ({"fill": float("nan")}, "occlusion fill is nan"),
    ],
)
def test_occlusion_errors(options, message):
    with pytest.raises(ValueError, match=message):
        occlude(pixels(), torch.arange(9), **options)


@pytest.mark.parametrize("indices", [torch.arange(1), torch.arange(9.0), torch.ones(9, dtype=torch.bool)])
def test_occlusion_takes_one_integer_a_sample(indices):
    with pytest.raises(ValueError, match=r"indices are .* expected 9 integers"):
        occlude(pixels(), indices)


@pytest.mark.parametrize("spatial", [(12, 7), (5, 5), (9,), (1, 1)])
def test_noise_depends_on_seed_and_index_alone(spatial):
    inputs, indices = pixels(9, 3, spatial), torch.tensor([4, 0, 9, 100, 7, 31, 2, 5, 1])
    before = inputs.clone()
    whole = add_gaussian_noise(inputs, indices, 0.3, seed=2)
    assert torch.equal(inputs, before)
    for size in (1, 4):
        parts = [add_gaussian_noise(i, n, 0.3, 2) for i, n in zip(inputs.split(size), indices.split(size), strict=True)]
        assert torch.equal(torch.cat(parts), whole)
    if len(spatial) == 2:
        last = add_gaussian_noise(inputs.to(memory_format=torch.channels_last), indices, 0.3, seed=2)
        assert torch.equal(last, whole)
    assert not torch.equal(add_gaussian_noise(inputs, indices, 0.3, seed=3), whole)
    assert not torch.equal(add_gaussian_noise(inputs, indices + 1, 0.3, seed=2), whole)


def test_noise_statistics():
    inputs = torch.full((500, 3, 16, 16), 0.5)
    noisy = add_gaussian_noise(inputs, torch.arange(500), 0.1)
    assert abs(noisy.mean() - 0.5) < 0.001 and abs(noisy.std() - 0.1) < 0.001
    assert noisy.min() >= 0 and noisy.max() <= 1
    assert noisy.std(0).min() > 0.08 and noisy.mean((1, 2, 3)).std() < 0.006  # no common part in samples or places
    assert torch.equal(add_gaussian_noise(inputs, torch.arange(500), 0.0), inputs)
    strong = add_gaussian_noise(inputs, torch.arange(500), 5.0)
    assert strong.min() == 0 and strong.max() == 1
    with pytest.raises(ValueError, match="sigma is -1"):
        add_gaussian_noise(inputs, torch.arange(500), -1)


@pytest.mark.parametrize("snr_db", [30, 10, 0, -5])
def test_noise_has_the_asked_power_in_every_clip(snr_db):
    draw = torch.Generator().manual_seed(1)
    clips = torch.randn(40, 1, 500, generator=draw) * torch.logspace(-5, -2, 40).view(-1, 1, 1)  # nothing is clamped
    before = clips.clone()
    noisy = add_noise_at_snr(clips, torch.arange(40), snr_db, seed=4)
    assert torch.equal(clips, before)
    noise = (noisy - clips).double()
    found = 10 * (clips.double().square().mean((1, 2)) / noise.square().mean((1, 2))).log10()
    assert (found - snr_db).abs().max() < 1e-2  # a sum is rounded to float32
    expected = add_gaussian_noise(torch.zeros_like(clips), torch.arange(40), 1.0, 4, (-9, 9))  # the same draws
    assert torch.nn.functional.cosine_similarity(noise.flatten(1), expected.flatten(1)).min() > 0.9999


def test_noise_on_sound_depends_on_the_clip_alone():
    clips = torch.randn(9, 1, 77, generator=torch.Generator().manual_seed(0)) * 0.2
    clips[2] = 0  # silence: no power to measure noise by
    indices = torch.tensor([4, 0, 9, 100, 7, 31, 2, 5, 1])
    whole = add_noise_at_snr(clips, indices, 3.0, seed=2)
    for size in (1, 4):
        parts = [add_noise_at_snr(c, n, 3.0, 2) for c, n in zip(clips.split(size), indices.split(size), strict=True)]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(whole[2], clips[2])
    assert not torch.equal(add_noise_at_snr(clips, indices, 3.0, seed=3), whole)
    loud = add_noise_at_snr(clips, indices, -20.0)
    assert loud.min() == -1 and loud.max() == 1
    assert add_noise_at_snr(clips[:0], indices[:0], 3.0).shape == (0, 1, 77)
