"""What the heads and the weights of a small decoder are like, and what changing them costs."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from experiments.decoder import Decoder
from helpers.maths import Spectrum, attention_weights, causal_mask, spectrum, truncate
from helpers.maths.checks import integer
from helpers.models import Transform


def bits_per_byte(
    decoder: Decoder, batch: Int64[Tensor, "batch n_plus_1"], transform: Transform | None = None
) -> float:
    """Mean −log₂ of the probability given to each next byte."""
    logits = decoder(batch[:, :-1], transform)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    return loss.item() / math.log(2)


def ablate(decoder: Decoder, layer: int, head: int) -> Transform:
    """A transform that sets one head's output to zero; ValueError if there is no such head."""
    layer = integer(layer, "layer", least=0, most=len(decoder.blocks) - 1)
    heads = decoder.blocks[layer].heads
    kept = torch.arange(heads) != integer(head, "head", least=0, most=heads - 1)

    def transform(at: int, weights: Tensor) -> Tensor:
        return weights * kept.to(weights.device)[:, None, None] if at == layer else weights

    return transform


def truncate_all(rank: int, *, causal: bool = False) -> Transform:
    """A transform that replaces every A by its best approximation of rank ``rank``.

    Rows are not renormalised. The approximation spills a little weight above the diagonal, on
    bytes still to be predicted; ``causal`` cuts that off again, after which the rank may be higher.
    """

    def transform(_: int, weights: Tensor) -> Tensor:
        low_rank = truncate(weights, rank)
        return low_rank.tril() if causal else low_rank

    return transform


def truncate_energy(fraction: float = 0.99, *, causal: bool = False) -> Transform:
    """As :func:`truncate_all`, each A at its own ``energy_rank(fraction)``."""

    def transform(_: int, weights: Tensor) -> Tensor:
        U, S, Vh = torch.linalg.svd(weights)
        ranks = Spectrum(S).energy_rank(fraction)
        kept = torch.arange(S.shape[-1], device=S.device) < ranks[..., None]
        low_rank = U * (S * kept)[..., None, :] @ Vh
        return low_rank.tril() if causal else low_rank

    return transform


@dataclass(frozen=True)
class HeadMeasures:
    """Means over windows for every head, each of shape (layers, heads)."""

    k99: Float[Tensor, "layers heads"]
    """Singular values that hold 99 % of Σσ² of A."""
    effective_rank: Float[Tensor, "layers heads"]
    stable_rank: Float[Tensor, "layers heads"]
    numerical_rank: Float[Tensor, "layers heads"]
    """Number of σ above σ₁/1000."""
    row_entropy: Float[Tensor, "layers heads"]
    """Mean over rows i ≥ 1 of the entropy of row i, divided by log(i + 1), its largest value."""
    k99_unmasked: Float[Tensor, "layers heads"]
    """k99 of softmax(QKᵀ/√d) of the same queries and keys without the causal mask."""


@torch.no_grad()
def measure_heads(decoder: Decoder, tokens: Int64[Tensor, "batch n"]) -> HeadMeasures:
    """Rank measures of the causal attention matrices on each row of ``tokens``, n ≥ 2."""
    queries, keys, _ = decoder.heads(tokens)
    weights = attention_weights(
        queries, keys, mask=causal_mask(tokens.shape[1], device=tokens.device)
    )
    masked, unmasked = spectrum(weights), spectrum(attention_weights(queries, keys))
    relative = Spectrum(masked.singular_values / masked.singular_values[..., :1])
    entropy = -torch.special.xlogy(weights, weights).sum(-1)[..., 1:]
    largest = torch.arange(2, tokens.shape[1] + 1, dtype=weights.dtype, device=weights.device).log()
    measures = {
        "k99": masked.energy_rank(0.99),
        "effective_rank": masked.effective_rank,
        "stable_rank": masked.stable_rank,
        "numerical_rank": relative.numerical_rank(1e-3),
        "row_entropy": (entropy / largest).mean(-1),
        "k99_unmasked": unmasked.energy_rank(0.99),
    }
    return HeadMeasures(
        **{name: values.to(weights.dtype).mean(0) for name, values in measures.items()}
    )


@torch.no_grad()
def ablation_costs(
    decoder: Decoder, batch: Int64[Tensor, "batch n_plus_1"]
) -> Float[Tensor, "layers heads"]:
    """Loss increase in bits per byte when one head's output is set to zero, head by head."""
    intact = bits_per_byte(decoder, batch)
    costs = [
        [bits_per_byte(decoder, batch, ablate(decoder, layer, head)) for head in range(block.heads)]
        for layer, block in enumerate(decoder.blocks)
    ]
    return torch.tensor(costs, dtype=torch.float64) - intact


@torch.no_grad()
def truncation_costs(
    decoder: Decoder,
    batch: Int64[Tensor, "batch n_plus_1"],
    ranks: tuple[int, ...] = (4, 8, 16, 32, 64),
    *,
    causal: bool = False,
) -> dict[str, float]:
    """Loss increase in bits per byte when every A is truncated: keys "4" … "64" and "k99"."""
    intact = bits_per_byte(decoder, batch)
    transforms = {str(rank): truncate_all(rank, causal=causal) for rank in ranks}
    transforms["k99"] = truncate_energy(0.99, causal=causal)
    return {name: bits_per_byte(decoder, batch, t) - intact for name, t in transforms.items()}


@torch.no_grad()
def update_ranks(before: Decoder, after: Decoder) -> dict[str, Tensor]:
    """How much of the full rank the weight updates ΔW = W_after − W_before use, in fractions.

    For ``W_Q``, ``W_K``, ``W_V``, ``W_O``: shape (layers,), full rank = width. For ``W_QK``, the
    heads' products W_Q W_Kᵀ: shape (layers, heads), full rank = min(width, 2d), since a difference
    of two matrices of rank d has no more. Keys ``"W_Q k99"``, ``"W_Q effective"`` and so on.
    """
    ranks: dict[str, Tensor] = {}
    for name in ("W_Q", "W_K", "W_V", "W_O", "W_QK"):
        update = _matrices(after, name) - _matrices(before, name)
        heads = update.shape[1] if name == "W_QK" else 1
        full = min(update.shape[-1], 2 * (update.shape[-1] // heads))
        spectra = spectrum(update)
        ranks[f"{name} k99"] = spectra.energy_rank(0.99) / full
        ranks[f"{name} effective"] = spectra.effective_rank / full
    return ranks


def _matrices(decoder: Decoder, name: str) -> Tensor:
    if name != "W_QK":
        return torch.stack([getattr(block, name) for block in decoder.blocks]).double()
    queries, keys = (
        _matrices(decoder, side).unflatten(-1, (decoder.blocks[0].heads, -1)).transpose(1, 2)
        for side in ("W_Q", "W_K")
    )
    return queries @ keys.mT
