"""Random numbers by counter: a hash of (seed, counters), computed where the counters live, equal on every device.

The mixing steps are those of SplitMix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014), in wrapping int64 arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WEYL, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def hash64(seed: int, *counters: Tensor | int) -> Tensor:
    """64 pseudo-random bits, as int64, for each entry of the broadcast non-negative int64 counters.

    The result is a function of the values alone, not of shapes, batches or devices.
    """
    state = _mix(torch.tensor(_signed(seed)))  # no dimensions: joins tensors of any device
    for counter in counters:
        step = _signed(counter * _WEYL) if isinstance(counter, int) else counter * _signed(_WEYL)
        state = _mix(state + step)
    return state


def uniform_integers(bits: Tensor, stop: int) -> Tensor:
    """int64 in 0 .. stop - 1 from 64 random bits; stop < 2**31."""
    return (_shift(bits, 32) * stop) >> 32


def unit_interval(bits: Tensor) -> Tensor:
    """Uniform float32 in (0, 1] from 64 random bits."""
    return _unit(_shift(bits, 40))


def normals(bits: Tensor) -> Tensor:
    """Standard normal float32 numbers, two along a new last dimension, from 64 random bits (Box and Muller)."""
    radius = unit_interval(bits).log_().mul_(-2).sqrt_()
    angle = _unit(bits & 0xFFFFFF).mul_(2 * torch.pi)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)


def _unit(bits24: Tensor) -> Tensor:
    """float32 in (0, 1] from 24 bits: zero would have no logarithm."""
    return bits24.float().add_(1).div_(2**24)


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift(state, 30)) * _signed(_MIX1)
    state = (state ^ _shift(state, 27)) * _signed(_MIX2)
    return state ^ _shift(state, 31)


def _shift(state: Tensor, count: int) -> Tensor:
    """Shift right by ``count``, filling with zeros: torch's own shift repeats the sign."""
    return (state >> count) & ((1 << (64 - count)) - 1)


def _signed(value: int) -> int:
    """The int64 with the lowest 64 bits of ``value``."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value
