"""The sheet of mixed samples, on the digits that come with scikit-learn."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from scripts import show_mixes


def test_the_sheet_is_reproducible(tmp_path: Path, capsys) -> None:
    arguments = ["--mixers", "mixup", "cutmix", "randomix", "--samples", "2", "--seed", "1", "--out"]
    for name in ("a.png", "b.png"):
        assert show_mixes.main([*arguments, str(tmp_path / name)]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert capsys.readouterr().out.split() == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


def test_panels_say_what_they_show() -> None:
    data = show_mixes.load_data("digits")
    rows = show_mixes.sheet(data, ["mixup", "baseline"], samples=3, seed=0)
    assert len(rows) == 3
    for a, b, mix, same in rows:
        assert (a.heading, b.heading, mix.heading, same.heading) == ("a", "b", "Mixup", "Baseline")
        assert a.below != b.below and same.below == f"λ 1.00\n{a.below}: 100%\n{b.below}: 0%"
        share = float(mix.below.split()[1])
        assert show_mixes.SHARES[0] - 0.01 <= share <= show_mixes.SHARES[1] + 0.01
        lam = float(((mix.pixels - b.pixels) * (a.pixels - b.pixels)).sum() / ((a.pixels - b.pixels) ** 2).sum())
        assert lam == pytest.approx(share, abs=0.006)  # the text is about this picture
        assert same.pixels.allclose(a.pixels, atol=1e-6)


def test_signals_and_colours_are_drawn(tmp_path: Path) -> None:
    import torch

    panels = [show_mixes.Panel(torch.rand(shape), "x", "a long name of a class") for shape in ((3, 5, 7), (1, 40))]
    show_mixes.draw([panels], tmp_path / "sheet.svg")
    assert (tmp_path / "sheet.svg").stat().st_size > 1000


def test_a_full_disk_leaves_the_old_picture(tmp_path, monkeypatch, capsys) -> None:
    def full(folder, need):
        raise OSError(errno.ENOSPC, "No space left on device")

    picture = tmp_path / "sheet.png"
    picture.write_bytes(b"old")
    monkeypatch.setattr("randomix.files.check_space", full)
    assert show_mixes.main(["--mixers", "mixup", "--out", str(picture)]) == 2
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith("show_mixes.py: disk full at ")
    assert picture.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--dataset", "none"], "--dataset none: choose from "),
        (["--samples", "0"], "--samples is 0, expected at least 1"),
        (["--seed", "-1"], "--seed is -1, expected at least 0"),
        (["--out", "x.gif"], "--out x.gif: the name must end in one of .png, .svg, .pdf"),
        (["--network", "/nowhere"], "--network /nowhere: no finished run there"),
        (["--mixers", "puzzlemix"], "--mixers puzzlemix: mixes by a network's gradient; give one with --network"),
        (["--mixers", "patchup"], "--mixers patchup: mixes inside the network, there is no picture of it"),
        (["--out", "/dev/null/x.png"], "cannot write /dev/null: File exists; choose a folder that can be written"),
    ],
)
def test_wrong_arguments_give_one_line(capsys, arguments: list[str], line: str) -> None:
    assert show_mixes.main(["--mixers", "mixup", *arguments]) == 2
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith("show_mixes.py: ") and line in printed
