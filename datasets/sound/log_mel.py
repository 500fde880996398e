"""Log-mel spectrograms on the device: 1 x 32 x 32 for one second at 16 kHz, as FMix made them for Speech Commands.

32 mels (Slaney's scale and area normalisation) of the power in windows of 2,048 samples every 512, centred, with
reflection at the ends as librosa did before 0.10 (zeros since), in decibels below the clip's own loudest value, cut off
at -80 dB. E. Harris et al., arXiv:2002.12047; their code asks librosa for the same. In float32 also under autocast: the
powers of 16-bit sound do not fit into half precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from randomix.devices import no_autocast

N_FFT, HOP, N_MELS = 2048, 512, 32
TOP_DB, FLOOR = 80.0, 1e-10  # librosa.power_to_db's top_db, and its amin: the power of silence
_CHUNK = 8  # clips at once on a CPU: their spectra stay in its cache, and the cost of each call is shared
_GROUP = 16  # neighbouring mels, which are summed over the bins they have: half of all products are with zero
MEAN, STD = (0.5,), (1.0,)  # of (dB + 80) / 80 in [0, 1]: what remains is FMix's (dB + 40) / 80


class LogMel:
    """Waveforms (n, 1, L) in [-1, 1] to features (n, 1, 32, 1 + L // 512) in [-0.5, 0.5]; differentiable."""

    def __init__(self, rate: int, device: torch.device) -> None:
        from torchaudio.functional import melscale_fbanks

        bank = melscale_fbanks(N_FFT // 2 + 1, 0.0, rate / 2, N_MELS, rate, norm="slaney", mel_scale="slaney")
        self._window = torch.hann_window(N_FFT, device=device)
        self._groups = [_nonzero(part, device) for part in bank.split(_GROUP, dim=1)]

    def __call__(self, waveforms: Tensor) -> Tensor:
        """A silent clip becomes the constant 0.5."""
        with no_autocast(waveforms.device):
            parts = waveforms.split(_CHUNK) if waveforms.device.type == "cpu" else (waveforms,)
            return torch.cat([self._features(part[:, 0].float()) for part in parts])[:, None]

    def _features(self, sound: Tensor) -> Tensor:
        """(n, mels, frames) of sound (n, L)."""
        power = self._mel_power(sound).clamp_min(FLOOR)
        loudest = power.amax((1, 2), keepdim=True)
        decibels = (10 * (power / loudest).log10()).clamp_min(-TOP_DB)
        return ((decibels + TOP_DB) / TOP_DB - MEAN[0]).transpose(1, 2)

    def _mel_power(self, sound: Tensor) -> Tensor:
        """(n, frames, mels) of sound (n, L).

        Real and imaginary parts are squared where they lie, side by side, and added by the product with the mels.
        """
        before, after = sound[:, 1 : N_FFT // 2 + 1].flip(1), sound[:, -N_FFT // 2 - 1 : -1].flip(1)
        frames = torch.cat([before, sound, after], 1).unfold(1, N_FFT, HOP) * self._window
        squares = torch.view_as_real(torch.fft.rfft(frames)).square_().flatten(2)
        return torch.cat([squares[..., bins] @ weights for bins, weights in self._groups], 2)


def _nonzero(bank: Tensor, device: torch.device) -> tuple[slice, Tensor]:
    """The bins of (bins, mels) from the first to the last that counts, and their weights; each twice: re, im."""
    used = bank.any(1).nonzero()
    bins = slice(2 * int(used[0]), 2 * int(used[-1]) + 2)
    return bins, bank.repeat_interleave(2, 0)[bins].to(device)


def feature_shape(length: int) -> tuple[int, int, int]:
    """(1, mels, frames) of the features of ``length`` samples; (1, 32, 32) of 16,000."""
    return (1, N_MELS, 1 + length // HOP)


def shortest() -> int:
    """The number of samples that clips must have: more than half a window, for the reflection at the ends."""
    return N_FFT // 2 + 1
