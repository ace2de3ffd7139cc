"""A small causal transformer over bytes, its committed checkpoint, and what is measured on it.

Pre-layer-norm blocks as in GPT-2 (Radford et al. 2019) with tied embeddings and the book's own
:func:`helpers.attention.attention_weights`, so the formula on the page is the formula that was
trained. Positions enter by rotating queries and keys (Su et al. 2021): with learned positions the
same budget of training stayed at the loss of a bigram model. The projections have no bias, so the
logit of places i and j is x_i·W_Q·R·W_Kᵀ·x_jᵀ / √d, where the rotation R depends on i − j.
``python -m helpers.training`` made the checkpoint.
"""

import gzip
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from helpers.attention import attention_weights, causal_mask
from helpers.checks import integer
from helpers.models import read_verified
from helpers.spectrum import Spectrum, spectrum, truncate

DATA = Path(__file__).parent / "data"
DECODER_FILE = DATA / "decoder.safetensors"
DECODER_SHA256 = "a930150c3d473aa3ca600ee8adc9e692df6efc2c862978013f70ffb381274dcd"

BYTES = 256
"""Size of the vocabulary: text is its UTF-8 bytes."""

ROTATION_BASE = 1000.0
"""Slowest rotation: one turn in about 2π·1000 tokens, slow enough for contexts of 256."""

Transform = Callable[[int, Tensor], Tensor]
"""``transform(layer, A) -> A`` with A of shape (batch, heads, n, n); may return any such tensor."""


class Block(nn.Module):
    """x + Attention(LN x), then x + MLP(LN x)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        # Row vectors times matrices, as in the text: queries = x W_Q. Head h owns the columns
        # h·d … (h+1)·d − 1 of W_Q, W_K and W_V, and the same rows of W_O.
        self.W_Q, self.W_K, self.W_V, self.W_O = (
            nn.Parameter(torch.empty(width, width)) for _ in range(4)
        )
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rotated queries and keys (batch, heads, n, d) of the stream x (batch, n, width)."""
        x = self.attention_norm(x)
        return rotate(self._split(x @ self.W_Q)), rotate(self._split(x @ self.W_K))

    def values(self, x: Tensor) -> Tensor:
        """Values (batch, heads, n, d)."""
        return self._split(self.attention_norm(x) @ self.W_V)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """The block's output with ``weights`` (batch, heads, n, n) as its attention matrices."""
        x = x + (weights @ self.values(x)).transpose(-3, -2).flatten(-2) @ self.W_O
        return x + self.mlp(self.mlp_norm(x))

    def _split(self, rows: Tensor) -> Tensor:  # (batch, n, width) → (batch, heads, n, d)
        return rows.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


class Decoder(nn.Module):
    """Causal transformer over bytes; its weights are a function of ``seed`` alone.

    Matrices are N(0, 1/fan-in), so that attention logits have about unit variance before training;
    those that write into the residual stream (W_O, the MLP's second) are smaller by 1/√(2·layers),
    as in GPT-2; biases are 0.

    Raises ValueError or TypeError for sizes that are not positive integers, or a ``width`` that
    does not give every head an even width.
    """

    def __init__(
        self, *, seed: int, width: int = 96, layers: int = 4, heads: int = 4, context: int = 256
    ) -> None:
        super().__init__()
        width, heads = integer(width, "width", least=1), integer(heads, "heads", least=1)
        layers, self.context = (
            integer(layers, "layers", least=1),
            integer(context, "context", least=1),
        )
        if width % (2 * heads):
            raise ValueError(f"width must be a multiple of 2·heads = {2 * heads}, not {width}")
        # "meta" tensors hold no numbers, so building the modules draws nothing from global state.
        with torch.device("meta"):
            self.embedding = nn.Embedding(BYTES, width)
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
            self.norm = nn.LayerNorm(width)
        self.to_empty(device="cpu")
        self._draw(torch.Generator().manual_seed(integer(seed, "seed", least=0)))

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        width = self.embedding.embedding_dim
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1)
            else:
                fan_in = 4 * width if name.endswith("mlp.2.weight") else width
                writes = name.endswith(("W_O", "mlp.2.weight"))
                variance = 1 / fan_in / (2 * len(self.blocks) if writes else 1)
                parameter.normal_(0, math.sqrt(variance), generator=generator)

    def forward(
        self, tokens: Int64[Tensor, "batch n"], transform: Transform | None = None
    ) -> Float[Tensor, "batch n 256"]:
        """Logits of the next byte at every place.

        ``transform(layer, A)`` may replace the attention matrices A (batch, heads, n, n) of each
        layer before they mix values: truncate them, zero a head, return others.

        Raises TypeError unless ``tokens`` is an int64 tensor, ValueError unless it is
        two-dimensional, not empty, within 0 … 255 and no longer than the context.
        """
        return self.norm(self._stream(tokens, transform)) @ self.embedding.weight.T

    def attention(
        self, tokens: Int64[Tensor, "batch n"]
    ) -> Float[Tensor, "batch layers heads n n"]:
        """Attention matrices of every layer and head, rows summing to one, upper triangle 0."""
        weights: list[Tensor] = []
        self._stream(tokens, lambda _, A: weights.append(A) or A)
        return torch.stack(weights, 1)

    def queries_keys(
        self, tokens: Int64[Tensor, "batch n"]
    ) -> tuple[Float[Tensor, "batch layers heads n d"], Float[Tensor, "batch layers heads n d"]]:
        """Queries and keys of every layer and head: A = softmax(QKᵀ/√d) under the causal mask."""
        return self.heads(tokens)[:2]

    def heads(
        self, tokens: Int64[Tensor, "batch n"]
    ) -> tuple[Float[Tensor, "batch layers heads n d"], ...]:
        """Queries, keys and values of every layer and head."""
        triples: list[tuple[Tensor, Tensor, Tensor]] = []
        self._stream(tokens, None, triples)
        return tuple(torch.stack(part, 1) for part in zip(*triples, strict=True))

    def _stream(
        self,
        tokens: Tensor,
        transform: Transform | None,
        triples: list[tuple[Tensor, Tensor, Tensor]] | None = None,
    ) -> Tensor:
        _check_tokens(tokens, self.context)
        mask = causal_mask(tokens.shape[1], device=tokens.device)
        x = self.embedding(tokens)
        for layer, block in enumerate(self.blocks):
            queries, keys = block.queries_keys(x)
            if triples is not None:
                triples.append((queries, keys, block.values(x)))
            weights = attention_weights(queries, keys, mask=mask)
            x = block(x, weights if transform is None else transform(layer, weights))
        return x


def rotate(rows: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n d"]:
    """Turn row i by i·θ_k in the plane of its coordinates k and k + d/2, θ_k = base^(−2k/d).

    Inner products of rotated rows i and j depend on the places through j − i only (Su et al. 2021).
    """
    n, d = rows.shape[-2:]
    speeds = ROTATION_BASE ** (-torch.arange(0, d, 2, dtype=rows.dtype, device=rows.device) / d)
    angles = torch.arange(n, dtype=rows.dtype, device=rows.device)[:, None] * speeds
    first, second = rows.chunk(2, -1)
    turned = (
        first * angles.cos() - second * angles.sin(),
        first * angles.sin() + second * angles.cos(),
    )
    return torch.cat(turned, -1)


def load_decoder(
    path: Path = DECODER_FILE,
    sha256: str = DECODER_SHA256,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Decoder:
    """The trained decoder (seed 0 of ``helpers.training``), in evaluation mode.

    Raises :class:`helpers.models.ModelFileError` when the file is missing or its SHA-256 is not
    ``sha256``; nothing is read from a file that fails.
    """
    weights = safetensors.torch.load(read_verified(Path(path), sha256))
    decoder = Decoder(seed=0)
    decoder.load_state_dict(weights)
    return decoder.to(device=device, dtype=dtype).eval().requires_grad_(False)


def encode(text: str) -> Int64[Tensor, "bytes"]:
    """The UTF-8 bytes of ``text`` as token ids; ValueError if it is empty."""
    if not isinstance(text, str):
        raise TypeError(f"text must be a string, not {type(text).__name__}")
    if not text:
        raise ValueError("text must hold at least one character, but it is empty")
    return torch.tensor(list(text.encode()))


def windows(text: str, context: int, count: int) -> Int64[Tensor, "count context_plus_1"]:
    """``count`` windows of ``context`` + 1 bytes, evenly spread over ``text`` and not overlapping.

    The extra byte is the last target. ValueError when the text is too short for them.
    """
    tokens = encode(text)
    length = integer(context, "context", least=1) + 1
    count = integer(count, "count", least=1)
    if len(tokens) < count * length:
        raise ValueError(
            f"text must hold count = {count} windows of {length} bytes = {count * length} bytes, "
            f"not {len(tokens)}"
        )
    starts = torch.arange(count) * (len(tokens) // count)
    return tokens[starts[:, None] + torch.arange(length)]


def heldout_text() -> str:
    """Documentation text that the committed decoders were not trained on."""
    return (DATA / "heldout.txt").read_text(encoding="utf-8")


def training_text() -> str:
    """Documentation text for training: no paragraph of it stands in :func:`heldout_text`."""
    return gzip.decompress((DATA / "training.txt.gz").read_bytes()).decode("utf-8")


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
    """Rank measures of the causal attention matrices on each row of ``tokens``, n ≥ 2.

    Raises ValueError for n = 1, where a row has no entropy to speak of, else as ``Decoder``.
    """
    _check_tokens(tokens, decoder.context)
    if tokens.shape[1] < 2:
        raise ValueError(f"tokens must have at least 2 columns, not {tokens.shape[1]}")
    queries, keys = decoder.queries_keys(tokens)
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


def _check_tokens(tokens: object, context: int) -> None:
    if not isinstance(tokens, Tensor) or tokens.dtype != torch.int64:
        kind = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
        raise TypeError(f"tokens must be an int64 tensor, not {kind}")
    shape = tuple(tokens.shape)
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(f"tokens must have shape (batch, n) and not be empty, not {shape}")
    if shape[1] > context:
        raise ValueError(f"tokens must have at most {context} columns, the context, not {shape[1]}")
    least, most = int(tokens.min()), int(tokens.max())
    if least < 0 or most >= BYTES:
        raise ValueError(f"tokens must lie in 0 … {BYTES - 1}, but run {least} … {most}")
