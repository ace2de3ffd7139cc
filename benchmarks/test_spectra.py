"""The singular values of 72 attention matrices: one call, or a loop of numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.maths import attention_weights, gaussian, spectrum

SIZES = (32, 64, 128, 256, 512)
HEADS, ROUNDS = 72, 5

METHODS = {
    "numpy loop": lambda A: np.stack([np.linalg.svd(head, compute_uv=False) for head in A.numpy()]),
    "torch.linalg.svdvals": torch.linalg.svdvals,
    "helpers.spectrum": lambda A: spectrum(A).singular_values,
}


def difference(found: Tensor | np.ndarray, A: Tensor) -> float:
    """Largest difference from LAPACK's other driver (by way of scipy), over σ₁."""
    from scipy.linalg import svd

    reference = torch.as_tensor(svd(A[0].numpy(), compute_uv=False, lapack_driver="gesvd"))
    return float((torch.as_tensor(found)[0] - reference).abs().max() / reference[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_spectra(measure, size, method):
    """Attention of Gaussian queries and keys of width 32."""
    inputs = []
    for seed in range(ROUNDS):
        queries, keys = gaussian(2, HEADS, size, 32, seed=seed)
        inputs.append((attention_weights(queries, keys),))
    measure("spectra", method, size, METHODS[method], inputs, difference)
