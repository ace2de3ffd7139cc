"""A layer that may be of low rank, a convolution, attention or a butterfly, and pays for what it is.

y = Σ_k g_k T_k(x). Each T_k is one class of operators that mix the tokens, each gate g_k is 0 or 1, and
an open gate costs ``price`` bits for every free parameter of its class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import torch
from jaxtyping import Float
from torch import Tensor, nn

from helpers.layers.butterfly import Butterfly
from helpers.layers.fitting import matching, one_cycle, rms, with_gradients
from helpers.maths import Seed, attention, bit_reversal, gaussian, generator
from helpers.maths.checks import integer, real_number, real_tensor

Tokens = Float[Tensor, "*batch n width"]
TINY = 1e-30
SETTLED = 10.0
FLOAT_BITS = 32.0
"""Default price of a parameter: the bits that a number takes in single precision."""


class LowRank(nn.Module):
    """x → U diag(σ) Vᵀ x with free U, V (n×r) and σ; r(2n − r) of the numbers are free."""

    def __init__(self, n: int, rank: int, seed: Seed) -> None:
        super().__init__()
        self.left = _draw(n, rank, deviation=n**-0.5, seed=seed)
        self.sigma = nn.Parameter(torch.ones(rank, dtype=torch.float64))
        self.right = _draw(n, rank, deviation=n**-0.5, seed=seed)
        self.free = rank * (2 * n - rank)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, n, width)`` → the same shape."""
        return (self.left * self.sigma) @ (self.right.mT @ x)


class Convolution(nn.Module):
    """Convolution along the tokens, zero-padded, one kernel for all columns."""

    def __init__(self, n: int, taps: int, seed: Seed) -> None:
        super().__init__()
        self.kernel = _draw(taps, deviation=taps**-0.5, seed=seed)
        self.free = self.kernel.numel()
        lags = torch.arange(n)[:, None] - torch.arange(n) + taps // 2
        # Place ``taps`` of the kernel, beyond its end, will hold a zero.
        outside = (lags < 0) | (lags >= taps)
        self.register_buffer("places", torch.where(outside, taps, lags))

    def forward(self, x: Tensor) -> Tensor:
        """``(…, n, width)`` → the same shape."""
        # At these sizes a Toeplitz matrix is faster than a convolution.
        return nn.functional.pad(self.kernel, (0, 1))[self.places] @ x


class Attention(nn.Module):
    """softmax(x W_h xᵀ) x for each head h, on its share of the columns, times a gain for each head."""

    def __init__(self, width: int, heads: int, seed: Seed) -> None:
        super().__init__()
        self.query_key = _draw(heads, width, width, deviation=0.5 / width, seed=seed)
        self.gain = nn.Parameter(torch.ones(heads, 1, 1, dtype=torch.float64))
        self.free = self.query_key.numel() + heads

    def forward(self, x: Tensor) -> Tensor:
        """``(…, n, width)`` → the same shape; a head's share is width/heads columns."""
        heads = len(self.gain)
        tokens = x[..., None, :, :]
        values = x.unflatten(-1, (heads, -1)).transpose(-3, -2)
        mixed = attention(tokens @ self.query_key, tokens, values, scale=1.0)
        return (self.gain * mixed).transpose(-3, -2).flatten(-2)


class RealButterfly(Butterfly):
    """The real part of log₂n butterfly factors after a bit reversal; n(log₂n + 1) free complex numbers."""

    def __init__(self, n: int, seed: Seed) -> None:
        super().__init__(n, input_order=bit_reversal(n), real=True, seed=seed)
        # Moving a diagonal from one factor into the next changes nothing: n(L − 1) numbers are idle.
        self.free = 2 * n * (len(self.strides) + 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, n, width)`` → the same shape, through the matrix."""
        return super().forward(self._identity(x.dtype)) @ x


CLASSES = ("low rank", "convolution", "attention", "butterfly")


class UniversalLayer(nn.Module):
    """y = Σ_k g_k T_k(x) for tokens x (…, n, width), with gates g_k that are open with probability π_k.

    ``classes`` are some of CLASSES. While it is trained, every gate is a coin of probability π_k =
    sigmoid(logit_k). Nothing needs to be tossed: :meth:`description_length` sums over all states of
    the gates, and :meth:`forward` takes the mean Σπ_kT_k(x). An open gate costs ``price`` bits for each
    free parameter. In evaluation mode gates with π_k > ½ are open and the others closed.

    ``rank``, ``taps`` and ``heads`` are the sizes of the classes. Starts at random from
    ``seed``. Raises ValueError for an unknown class, a negative price, a rank above n, an even number
    of taps, heads that don't divide the width, a dtype other than float32 or float64, and with
    "butterfly" for an n that is no power of two.
    """

    def __init__(
        self,
        n: int,
        width: int,
        *,
        classes: Sequence[str] = CLASSES,
        rank: int = 4,
        taps: int = 9,
        heads: int = 1,
        price: float = FLOAT_BITS,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        n, width = integer(n, "n", least=2), integer(width, "width", least=1)
        rank = integer(rank, "rank", least=1, most=n)
        taps, heads = integer(taps, "taps", least=1), integer(heads, "heads", least=1)
        if taps % 2 == 0 or taps > 2 * n - 1:
            raise ValueError(f"taps must be odd and at most 2n − 1 = {2 * n - 1}, not {taps}")
        if width % heads:
            raise ValueError(f"heads must divide width = {width}, not {heads}")
        if isinstance(classes, str) or not classes or not set(classes) <= set(CLASSES):
            raise ValueError(f"classes must be some of {CLASSES}, not {classes!r}")
        self.price = real_number(price, "price", least=0)
        stream = generator(seed, "universal layer")
        make = {
            "low rank": lambda: LowRank(n, rank, stream),
            "convolution": lambda: Convolution(n, taps, stream),
            "attention": lambda: Attention(width, heads, stream),
            "butterfly": lambda: RealButterfly(n, stream),
        }
        # A fixed order: the same seed draws the same start, whatever the order of ``classes``.
        self.classes = tuple(name for name in CLASSES if name in classes)
        self.members = nn.ModuleDict({name: make[name]() for name in self.classes})
        self.gate_logits = nn.Parameter(torch.zeros(len(self.classes), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.size = (n, width)

    @property
    def probabilities(self) -> Float[Tensor, "classes"]:
        """π_k, in the order of ``classes``."""
        return self.gate_logits.sigmoid()

    @property
    def chosen(self) -> tuple[str, ...]:
        """The classes whose gates are open."""
        return tuple(compress(self.classes, (self.probabilities > 0.5).tolist()))

    @property
    def parameters_of(self) -> dict[str, int]:
        """Free parameters of each class: what leaves the operator the same isn't counted."""
        return {name: self.members[name].free for name in self.classes}

    @property
    def free(self) -> Float[Tensor, "classes"]:
        """The same numbers, in the order of ``classes``."""
        return torch.tensor(list(self.parameters_of.values())).to(self.gate_logits)

    def parts(self, x: Tokens) -> Float[Tensor, "classes *batch n width"]:
        """T_k(x) of every class, without gates."""
        x = self._matching(x, "x")
        return self.scale * torch.stack([self.members[name](x) for name in self.classes])

    def forward(self, x: Tokens) -> Tokens:
        """The mean output; open gates only in evaluation.

        Raises ValueError for another n, width or dtype than the layer's.
        """
        if not self.training:
            x = self._matching(x, "x")
            open_parts = [self.members[name](x) for name in self.chosen]
            return self.scale * sum(open_parts, start=torch.zeros_like(x))
        return torch.tensordot(self.probabilities, self.parts(x), 1)

    def description_length(self, x: Tokens, y: Tokens, share: float = 1.0) -> Float[Tensor, ""]:
        """Expected bits for y given x over the coins: (N/2)·log₂(mean squared residual), plus the gates' price.

        Up to a constant this is the length of a two-part code (Rissanen 1978) for N = numel(y) Gaussian
        residuals of unknown variance. All 2^K states of the gates are summed, so in each π_k it is
        linear: a gate is worth opening exactly if it saves more bits than it costs. ``share`` scales the price.
        """
        p, states = self.probabilities, self.states()
        chances = torch.where(states == 1, p, 1 - p).prod(-1)
        return (chances * self.code_lengths(x, y, share)).sum()

    def code_lengths(self, x: Tokens, y: Tokens, share: float = 1.0) -> Float[Tensor, "states"]:
        """Bits for y given x and the price, for every state of the gates; see :meth:`description_length`."""
        flat, states = y.flatten(), self.states()
        # Relative to y, so that neither tiny outputs nor a small residual are lost to rounding.
        size = rms(flat, 0)
        size = torch.where(size > 0, size, TINY)
        residuals = flat / size - states @ (self.parts(x).flatten(1) / size)
        bits = flat.numel() * (residuals.square().mean(-1).clamp(min=TINY).log2() / 2 + size.log2())
        return bits + share * self.price * states @ self.free

    @torch.no_grad()
    def settle(self, x: Tokens, y: Tokens) -> float:
        """Open and close the gates for the shortest code; returns the bits it saves against no class."""
        lengths = self.code_lengths(x, y)
        best = self.states()[lengths.argmin()]
        self.gate_logits.copy_(torch.where(best == 1, SETTLED, -SETTLED))
        return float(lengths[0] - lengths.min())

    def _matching(self, x: Tensor, name: str) -> Tensor:
        return matching(x, name, self.scale.dtype, (*x.shape[:-2], *self.size))

    def states(self) -> Float[Tensor, "states classes"]:
        """All 2^K states of the gates, 0 closed and 1 open."""
        states = torch.cartesian_prod(*[torch.arange(2)] * len(self.classes))
        return states.reshape(-1, len(self.classes)).to(self.gate_logits)


@dataclass(frozen=True)
class Choice:
    """What a fit ended with."""

    chosen: tuple[str, ...]
    """Open classes of the state with the shortest code."""
    by_gradient: tuple[str, ...]
    """Classes with π_k > ½ when gradient descent ended."""
    probabilities: Float[Tensor, "steps classes"]
    """π_k before every step and after the last."""
    saved: float
    """Bits saved against no class at all, price included; 0 if none is open."""


@with_gradients
def choose_classes(
    layer: UniversalLayer,
    inputs: Tokens,
    outputs: Tokens,
    *,
    steps: int = 800,
    learning_rate: float = 0.2,
    gate_rate: float = 0.05,
    progress: bool = True,
) -> Choice:
    """Train operators and gates of ``layer`` in place to the least description length; leaves it in evaluation mode.

    Adam, one-cycle, on the bits per output. The price rises from 0 to its full height over the first
    half, so that the operators can learn before they have to pay. Gradient descent moves one gate
    at a time, so it can stop at a pair that doesn't pay; at the end the codes of all states of the
    gates are compared, and the shortest is kept (:meth:`UniversalLayer.settle`).

    Raises ValueError for inputs of another n, width or dtype than the layer's, outputs of another shape
    than theirs, and rates that aren't positive.
    """
    inputs = layer._matching(real_tensor(inputs, "inputs", least_dims=2), "inputs")
    outputs = matching(real_tensor(outputs, "outputs"), "outputs", inputs.dtype, inputs.shape)
    steps = integer(steps, "steps", least=1)
    named = {"learning_rate": learning_rate, "gate_rate": gate_rate}
    rates = [real_number(rate, name, above=0) for name, rate in named.items()]
    inputs, outputs = (part.detach().clone().to(layer.scale) for part in (inputs, outputs))
    layer.scale.copy_(rms(outputs.flatten(), 0)[0])  # the operators learn in units of the outputs
    path = []

    def bits_per_output(step: int) -> Tensor:
        path.append(layer.probabilities.detach().clone())
        bits = layer.description_length(inputs, outputs, share=min(1.0, 2 * step / steps))
        return bits / outputs.numel()

    parts = layer.members.parameters(), [layer.gate_logits]
    one_cycle(parts, rates, bits_per_output, steps=steps, name="classes", progress=progress)
    path.append(layer.probabilities.detach().clone())
    by_gradient, saved = layer.chosen, layer.settle(inputs, outputs)
    layer.eval()
    return Choice(layer.chosen, by_gradient, torch.stack(path), saved)


def _draw(*shape: int, deviation: float, seed: Seed) -> nn.Parameter:
    return nn.Parameter(deviation * gaussian(*shape, seed=seed))
