"""The one room for randomness: every stream of random numbers has a seed and a name.

Streams of different names or seeds never meet, whatever the seed: both are hashed together (numpy's
``SeedSequence``), so that nobody has to add numbers to a seed by hand. Numbers come from numpy, whose
generators give the same ones on every processor; torch's don't.
"""

import hashlib
import struct

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from helpers.maths.checks import integer

Seed = int | np.random.Generator
"""A number, or a stream that somebody else has opened and that is drawn from further."""


def generator(seed: Seed, stream: str) -> np.random.Generator:
    """The stream of this name. A ``seed`` that is a generator already is handed on as it is.

    Raises TypeError for a seed that is no integer, ValueError for a negative one.
    """
    if isinstance(seed, np.random.Generator):
        return seed
    name = struct.unpack("<8I", hashlib.sha256(stream.encode()).digest())
    sequence = np.random.SeedSequence(integer(seed, "seed", least=0), spawn_key=name)
    return np.random.default_rng(sequence)


def gaussian(*shape: int, seed: Seed, stream: str = "gaussian") -> Float64[Tensor, "..."]:
    """Independent standard normal numbers of a ``shape``, float64, from a stream of its own."""
    return torch.from_numpy(generator(seed, stream).standard_normal(shape))


def uniform(*shape: int, seed: Seed, stream: str = "uniform") -> Float64[Tensor, "..."]:
    """Independent numbers of [0, 1), float64."""
    return torch.from_numpy(generator(seed, stream).random(shape))


def integers(
    high: int, *shape: int, low: int = 0, seed: Seed, stream: str = "integers"
) -> Int64[Tensor, "..."]:
    """Independent whole numbers, each of ``low`` … ``high`` − 1 as likely as any other."""
    return torch.from_numpy(generator(seed, stream).integers(low, high, shape))


def orders(n: int, *shape: int, seed: Seed, stream: str = "orders") -> Int64[Tensor, "*shape n"]:
    """Independent permutations of 0 … n − 1, each as likely as any other."""
    places = np.broadcast_to(np.arange(n), (*shape, n))
    return torch.from_numpy(generator(seed, stream).permuted(places, axis=-1))
