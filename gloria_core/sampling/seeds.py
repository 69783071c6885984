"""A noise seed for every chunk, derived from the user's seed with integers alone, so that every machine agrees."""

import torch
from torch import Tensor

_MASK_64 = (1 << 64) - 1
_SEED_BITS = 53


def chunk_seed(seed: int, index: int) -> int:
    """Return the seed of a chunk's noise.

    The first chunk takes the user's seed as it is: one chunk equals a plain clip made with that seed. Chunk k > 0 takes
    mix((mix(seed) + k) mod 2^64) >> 11, where mix is `splitmix64`. The shift leaves 53 bits, which a web
    page can show and give back without rounding.

    Args:
        seed: the user's seed; taken modulo 2^64.
        index: the chunk's index, from 0.

    Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".
    """
    seed &= _MASK_64
    return seed if index == 0 else splitmix64((splitmix64(seed) + index) & _MASK_64) >> (64 - _SEED_BITS)


def take_seed(seed: int, index: int, attempt: int) -> int:
    """Return the seed of another attempt at a chunk; attempt 0 is the chunk's own seed (see `chunk_seed`)."""
    own = chunk_seed(seed, index)
    return own if attempt == 0 else splitmix64((splitmix64(own) + attempt) & _MASK_64) >> (64 - _SEED_BITS)


def chunk_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Return float32 Gaussian noise on the CPU, the same for the same seed whatever device samples it."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator)


def splitmix64(state: int) -> int:
    """Return the first output of the generator SplitMix64 that starts in a 64-bit state."""
    z = (state + 0x9E3779B97F4A7C15) & _MASK_64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return z ^ (z >> 31)
