"""Scaled dot-product attention, written as it is read."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from helpers.maths.checks import own_precision, real_number, real_tensor


@own_precision
def attention_weights(
    queries: Float[Tensor, "*q_batch m d"],
    keys: Float[Tensor, "*k_batch n d"],
    *,
    mask: Bool[Tensor, "*mask_batch m_or_1 n"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "*batch m n"]:
    """A = softmax(s·QKᵀ + log mask), rows summing to one (Vaswani et al. 2017, Eq. 1).

    ``queries`` (…, m, d) and ``keys`` (…, n, d) broadcast over their batch dimensions.
    ``mask`` is boolean, broadcastable to (…, m, n); True means "may attend".
    ``scale`` is s, by default 1/√d. Autocast doesn't lower the precision.

    Raises TypeError for tensors that are not real floating point or a mask that is not boolean;
    ValueError for non-finite entries, different widths d, logits that overflow, and a row that may
    attend to nothing; what torch does for different dtypes and shapes that do not broadcast.
    """
    real_tensor(queries, "queries", least_dims=2)
    real_tensor(keys, "keys", least_dims=2)
    if queries.shape[-1] != keys.shape[-1]:
        shapes = f"queries are {tuple(queries.shape)} and keys are {tuple(keys.shape)}"
        raise ValueError(f"queries and keys must have the same width, but {shapes}")
    if scale is None:
        scale = 1 / math.sqrt(queries.shape[-1])
    scale = real_number(scale, "scale", above=0)

    logits = scale * queries @ keys.mT
    if not torch.isfinite(logits).all():
        raise ValueError("queries and keys give logits beyond the range of their dtype")
    if mask is not None:
        logits = torch.where(_usable_mask(mask).expand_as(logits), logits, float("-inf"))
    return torch.softmax(logits, dim=-1)


@own_precision
def attention(
    queries: Float[Tensor, "*q_batch m d"],
    keys: Float[Tensor, "*k_batch n d"],
    values: Float[Tensor, "*v_batch n w"],
    *,
    mask: Bool[Tensor, "*mask_batch m_or_1 n"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "*batch m w"]:
    """A·values with A from :func:`attention_weights`; each output row is a mean of values."""
    real_tensor(values, "values", least_dims=2)
    return attention_weights(queries, keys, mask=mask, scale=scale) @ values


class Part(NamedTuple):
    """Attention to some of the keys: its outputs, and what it takes to join them with others."""

    outputs: Float[Tensor, "*batch m w"]
    log_mass: Float[Tensor, "*batch m"]
    """ln Z with Z = Σ_j exp(s·q·k_j + b_j), the normaliser; −∞ where a query sees none of the keys."""


@own_precision
def attention_part(
    queries: Float[Tensor, "*q_batch m d"],
    keys: Float[Tensor, "*k_batch n d"],
    values: Float[Tensor, "*v_batch n w"],
    *,
    scale: float,
    bias: Float[Tensor, "*b_batch m_or_1 n"] | float = 0.0,
) -> Part:
    """Outputs softmax(s·qKᵀ + b)V and their ln Z. A bias of −∞ hides a key.

    A query that sees nothing has the output zero, mass zero and the gradient zero. Nothing is checked:
    torch's own errors tell of shapes that don't fit.
    """
    logits = scale * queries @ keys.mT + bias
    blind = torch.isneginf(logits).all(-1, keepdim=True)
    logits = logits.masked_fill(blind, 0)
    log_mass = logits.logsumexp(-1, keepdim=True)
    outputs = (logits - log_mass).exp() @ values
    nothing = log_mass.masked_fill(blind, float("-inf")).squeeze(-1)
    return Part(outputs.masked_fill(blind, 0), nothing)


def combine(first: Part, second: Part) -> Part:
    """Attention to the keys of both parts: o = (Z₁o₁ + Z₂o₂)/(Z₁ + Z₂), exact whatever the parts."""
    blind = torch.isneginf(first.log_mass) & torch.isneginf(second.log_mass)
    share = torch.sigmoid((first.log_mass - second.log_mass).masked_fill(blind, 0))[..., None]
    outputs = share * first.outputs + (1 - share) * second.outputs
    return Part(outputs, torch.logaddexp(first.log_mass, second.log_mass))


def causal_mask(n: int, *, device: torch.device | str | None = None) -> Bool[Tensor, "n n"]:
    """Lower-triangular mask: token i may attend to tokens j ≤ i. True means "may attend"."""
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()


def _usable_mask(mask: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a boolean tensor (True = may attend), not {kind}")
    if empty := int((~mask.any(-1)).sum()):
        raise ValueError(f"mask must leave every query a key, but {empty} rows are fully masked")
    return mask
