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
_CHUNK = 32  # clips at once on a CPU: their spectra stay in its cache, which more than halves the time
MEAN, STD = (0.5,), (1.0,)  # of (dB + 80) / 80 in [0, 1]: what remains is FMix's (dB + 40) / 80


class LogMel:
    """Waveforms (n, 1, L) in [-1, 1] to features (n, 1, 32, 1 + L // 512) in [-0.5, 0.5]; differentiable."""

    def __init__(self, rate: int, device: torch.device) -> None:
        from torchaudio.transforms import MelScale, Spectrogram

        self._spectrum = Spectrogram(N_FFT, hop_length=HOP, power=None, pad_mode="reflect").to(device)
        self._mels = MelScale(N_MELS, rate, n_stft=N_FFT // 2 + 1, norm="slaney", mel_scale="slaney").to(device)

    def __call__(self, waveforms: Tensor) -> Tensor:
        """A silent clip becomes the constant 0.5."""
        with no_autocast(waveforms.device):
            parts = waveforms.split(_CHUNK) if waveforms.device.type == "cpu" else (waveforms,)
            return torch.cat([self._features(part.float()) for part in parts])

    def _features(self, waveforms: Tensor) -> Tensor:
        spectrum = self._spectrum(waveforms)
        power = self._mels(spectrum.real.square() + spectrum.imag.square()).clamp_min(FLOOR)  # abs() takes a root first
        loudest = power.amax((1, 2, 3), keepdim=True)
        decibels = (10 * (power / loudest).log10()).clamp_min(-TOP_DB)
        return (decibels + TOP_DB) / TOP_DB - MEAN[0]


def feature_shape(length: int) -> tuple[int, int, int]:
    """(1, mels, frames) of the features of ``length`` samples; (1, 32, 32) of 16,000."""
    return (1, N_MELS, 1 + length // HOP)


def shortest() -> int:
    """The number of samples that clips must have: more than half a window, for the reflection at the ends."""
    return N_FFT // 2 + 1
