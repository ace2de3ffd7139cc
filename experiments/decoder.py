"""A small causal transformer over bytes, and its committed checkpoint.

Pre-layer-norm blocks as in GPT-2 (Radford et al. 2019) with tied embeddings and the book's own
:func:`~helpers.maths.attention.attention_weights`, so the formula on the page is the formula that was
trained. Positions enter by rotating queries and keys (Su et al. 2021): with learned positions the
same budget of training stayed at the loss of a bigram model. The projections have no bias, so the
logit of places i and j is x_i·W_Q·R·W_Kᵀ·x_jᵀ / √d, where the rotation R depends on i − j.
``python -m experiments.decoder_seeds`` made the checkpoint.
"""

import math
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from helpers.maths import Seed, attention_weights, causal_mask, gaussian, generator
from helpers.maths.checks import integer, own_precision, unicode_text
from helpers.models import Transform, read_verified
from helpers.models.transformer import check_ids

DECODER_FILE = Path(__file__).with_name("decoder.safetensors")
DECODER_SHA256 = "aee6cff7a15852f63a15e26d2ebf45782fd78d0bdc7219304fa6bf7ecbdb2fb4"

BYTES = 256
"""Size of the vocabulary: text is its UTF-8 bytes."""

ROTATION_BASE = 1000.0
"""Slowest rotation: one turn in about 2π·1000 tokens, slow enough for contexts of 256."""


class Block(nn.Module):
    """x + Attention(LN x), then x + MLP(LN x)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        # Row vectors times matrices, as in the text: queries = x W_Q. Head h owns the columns
        # h·d … (h+1)·d − 1 of W_Q, W_K and W_V, and the same rows of W_O.
        matrices = (nn.Parameter(torch.empty(width, width)) for _ in range(4))
        self.W_Q, self.W_K, self.W_V, self.W_O = matrices
        inner = 4 * width
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values (batch, heads, n, d) of the stream x (batch, n, width)."""
        x = self.attention_norm(x)
        queries, keys, values = (self._split(x @ W) for W in (self.W_Q, self.W_K, self.W_V))
        return rotate(queries), rotate(keys), values

    def forward(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The block's output with ``mixed`` = A·values (batch, heads, n, d)."""
        x = x + mixed.transpose(-3, -2).flatten(-2) @ self.W_O
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
        self, *, seed: Seed, width: int = 96, layers: int = 4, heads: int = 4, context: int = 256
    ) -> None:
        super().__init__()
        width, heads = integer(width, "width", least=1), integer(heads, "heads", least=1)
        layers = integer(layers, "layers", least=1)
        self.context = integer(context, "context", least=1)
        if width % (2 * heads):
            raise ValueError(f"width must be a multiple of 2·heads = {2 * heads}, not {width}")
        # "meta" tensors hold no numbers, so building the modules draws nothing from global state.
        with torch.device("meta"):
            self.embedding = nn.Embedding(BYTES, width)
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
            self.norm = nn.LayerNorm(width)
        self.to_empty(device="cpu")
        self._draw(generator(seed, "decoder"))

    @torch.no_grad()
    def _draw(self, stream: np.random.Generator) -> None:
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
                parameter.copy_(math.sqrt(variance) * gaussian(*parameter.shape, seed=stream))

    @own_precision
    def forward(
        self, tokens: Int64[Tensor, "batch n"], transform: Transform | None = None
    ) -> Float[Tensor, "batch n 256"]:
        """Logits of the next byte at every place.

        ``transform(layer, A)`` may replace the attention matrices A (batch, heads, n, n) of each
        layer before they mix values: truncate them, zero a head, return others.

        Raises TypeError unless ``tokens`` is an int64 tensor, ValueError unless it is
        two-dimensional, not empty, within 0 … 255 and no longer than the context.
        """
        return self.norm(self._stream(tokens, transform)[0]) @ self.embedding.weight.T

    def attention(
        self, tokens: Int64[Tensor, "batch n"]
    ) -> Float[Tensor, "batch layers heads n n"]:
        """Attention matrices of every layer and head, rows summing to one, upper triangle 0."""
        return torch.stack([weights for weights, *_ in self._stream(tokens)[1]], 1)

    def heads(
        self, tokens: Int64[Tensor, "batch n"]
    ) -> tuple[Float[Tensor, "batch layers heads n d"], ...]:
        """Queries, keys and values of every layer and head: A = softmax(QKᵀ/√d) under the causal mask."""
        rows = [part for _, *part in self._stream(tokens)[1]]
        return tuple(torch.stack(part, 1) for part in zip(*rows, strict=True))

    @own_precision
    def _stream(
        self, tokens: Tensor, transform: Transform | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor, Tensor]]]:
        """What the last block puts out; A, queries, keys and values of every layer."""
        check_ids(tokens, "tokens", BYTES, self.context)
        if tokens.ndim != 2 or tokens.numel() == 0:
            shape = tuple(tokens.shape)
            raise ValueError(f"tokens must have shape (batch, n) and not be empty, not {shape}")
        mask = causal_mask(tokens.shape[1], device=tokens.device)
        x, parts = self.embedding(tokens), []
        for layer, block in enumerate(self.blocks):
            queries, keys, values = block.queries_keys_values(x)
            weights = attention_weights(queries, keys, mask=mask)
            parts.append((weights, queries, keys, values))
            x = block(x, (weights if transform is None else transform(layer, weights)) @ values)
        return x, parts


def rotate(rows: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n d"]:
    """Turn row i by i·θ_k in the plane of its coordinates k and k + d/2, θ_k = base^(−2k/d).

    Inner products of rotated rows i and j depend on the places through j − i only (Su et al. 2021).
    """
    n, d = rows.shape[-2:]
    speeds = ROTATION_BASE ** (-torch.arange(0, d, 2, dtype=rows.dtype, device=rows.device) / d)
    angles = torch.arange(n, dtype=rows.dtype, device=rows.device)[:, None] * speeds
    (first, second), cos, sin = rows.chunk(2, -1), angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), -1)


def load_decoder(path: Path | str = DECODER_FILE) -> Decoder:
    """The trained decoder (seed 0 of ``decoder_seeds``), in float64 and evaluation mode.

    Raises :class:`helpers.models.files.ModelFileError` when the file is missing or its SHA-256 is not
    DECODER_SHA256; nothing is read from a file that fails.
    """
    weights = safetensors.torch.load(read_verified(path, DECODER_SHA256))
    decoder = Decoder(seed=0)
    decoder.load_state_dict(weights)
    return decoder.double().eval().requires_grad_(False)


def encode(text: str) -> Int64[Tensor, "bytes"]:
    """The UTF-8 bytes of ``text`` as token ids; ValueError for a character that has none."""
    return torch.tensor(list(unicode_text(text, "text").encode()))


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
