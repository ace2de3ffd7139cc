"""Null models: attention matrices that carry no learned structure, or have lost it."""

import torch
from jaxtyping import Float
from torch import Tensor

from helpers.maths.attention import attention_weights, causal_mask
from helpers.maths.checks import square_matrices
from helpers.maths.draws import Seed, gaussian, uniform


def random_attention(
    n: int,
    d: int,
    *,
    temperature: float = 1.0,
    causal: bool = False,
    samples: int = 1,
    seed: Seed = 0,
) -> Float[Tensor, "samples n n"]:
    """softmax(QKᵀ / (temperature·√d)) of standard Gaussian Q and K, float64.

    At temperature 1 the logits have variance 1; a temperature of 1/t gives them the standard
    deviation t. With ``causal`` the upper triangle is masked.
    """
    queries, keys = gaussian(2, samples, n, d, seed=seed, stream="random attention")
    mask = causal_mask(n) if causal else None
    return attention_weights(queries, keys, mask=mask, scale=1 / (temperature * d**0.5))


def shuffle_within_rows(
    weights: Float[Tensor, "*batch n n"], *, seed: Seed, causal: bool = False
) -> Float[Tensor, "*batch n n"]:
    """Each row's entries in a random order of its own, drawn independently row by row.

    This keeps what single rows know (their entropy, their largest weight) and destroys what
    rows share. Permuting whole rows would be no null at all: PA has the singular values of A.
    With ``causal`` row i is shuffled within its first i + 1 entries only.
    """
    n = square_matrices(weights, "weights").shape[-1]
    order = uniform(*weights.shape, seed=seed, stream="shuffled rows").to(weights.device)
    if causal:
        # Masked places sort last, so the allowed ones fill the front of the row.
        last = 2.0 + torch.arange(n, device=weights.device)
        order = torch.where(causal_mask(n, device=weights.device), order, last)
    return weights.gather(-1, order.argsort(-1))
