"""Products of butterfly factors: matrices that cost N log N, and gradient descent that finds the FFT in them."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Complex, Complex128, Float64, Int64
from torch import Tensor, nn

from helpers.layers.fitting import matching, one_cycle, with_gradients
from helpers.maths import Seed, gaussian, integer, power_of_two, real_number, unit_scale

Blocks = Complex[Tensor, "*copies levels pairs 2 2"]


class Butterfly(nn.Module):
    """y = Q·B_K⋯B_1·P x: K sparse factors between two fixed permutations of n = 2^L places.

    A factor of stride s is one 2×2 block for each pair of places i, i + s (n/2 pairs), so it has two
    nonzero entries in every row and column. ``strides`` names the factors in the order in which
    they are applied, by default 1, 2, 4, …, n/2. ``input_order`` and ``output_order`` are permutations:
    place i of P x is x[input_order[i]], and y[i] is the product's row output_order[i]. ``real`` returns
    the real part. Starts at random, drawn from ``seed``: every block is a unitary 2×2 matrix, so
    that the product is one too. ``copies`` independent starts live side by side on a leading axis.

    The form is that of Dao et al. 2019, with blocks of their own for all pairs of a factor.
    Raises ValueError for an n that is no power of two, unknown strides and orders that are no
    permutation of 0 … n − 1.
    """

    def __init__(
        self,
        n: int,
        *,
        strides: Sequence[int] | None = None,
        input_order: Int64[Tensor, "n"] | None = None,
        output_order: Int64[Tensor, "n"] | None = None,
        real: bool = False,
        copies: int | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.n = power_of_two(n)
        allowed = tuple(2**level for level in range(self.n.bit_length() - 1))
        self.strides = allowed if strides is None else tuple(strides)
        if not self.strides or not set(self.strides) <= set(allowed):
            raise ValueError(f"strides must be taken from {allowed}, not {self.strides}")
        self.real = real
        for name, order in (("input_order", input_order), ("output_order", output_order)):
            order = torch.arange(n) if order is None else torch.as_tensor(order)
            if order.shape != (n,) or not torch.equal(order.sort().values, torch.arange(n)):
                raise ValueError(f"{name} must be a permutation of 0 … {n - 1}")
            self.register_buffer(name, order)
        leading = () if copies is None else (integer(copies, "copies", least=1),)
        shape = (*leading, len(self.strides), n // 2, 2, 2)
        draw = torch.view_as_complex(gaussian(*shape, 2, seed=seed, stream="butterfly"))
        self.blocks = nn.Parameter(torch.linalg.qr(draw).Q)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, width)`` → ``(*copies, n, width)``, real or complex; without copies leading axes of x are kept."""
        if x.shape[-2] != self.n:
            raise ValueError(f"x must have {self.n} rows, not {x.shape[-2]}")
        y = x[..., self.input_order, :]
        for k, stride in enumerate(self.strides):
            y = apply_factor(self.blocks[..., k, :, :, :], stride, y)
        y = y[..., self.output_order, :]
        return y.real if self.real else y

    def matrix(self) -> Tensor:
        """The whole product as a matrix ``(*copies, n, n)``."""
        return self(self._identity(self.blocks.real.dtype))

    def factor(self, k: int) -> Complex[Tensor, "*copies n n"]:
        """Factor k (0 is applied first) as a matrix."""
        identity = self._identity(self.blocks.dtype)
        return apply_factor(self.blocks[..., k, :, :, :], self.strides[k], identity)

    def _identity(self, dtype: torch.dtype) -> Tensor:
        return torch.eye(self.n, dtype=dtype, device=self.blocks.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """What ``.to``, ``.float()`` and the like do, to pairs of real numbers: the blocks stay complex."""

        def on_pairs(tensor: Tensor) -> Tensor:
            pairs = fn(torch.view_as_real(tensor)) if tensor.is_complex() else None
            if pairs is None or pairs.is_complex():  # no blocks, or a complex dtype was asked for
                return fn(tensor)
            return torch.view_as_complex(pairs)

        return super()._apply(on_pairs, recurse)


def apply_factor(
    blocks: Complex[Tensor, "*copies pairs 2 2"], stride: int, x: Tensor
) -> Complex[Tensor, "*out n width"]:
    """Mix the rows i and i + stride of x (…, n, width) by a 2×2 block each.

    Block p belongs to the p-th pair, pairs ordered by their first place.
    """
    x = x.unflatten(-2, (-1, 2, stride))  # (…, group, which of the two, place, width)
    blocks = blocks.unflatten(-3, (-1, stride)).movedim(-3, -1)  # (…, group, 2, 2, place)
    blocks = blocks[..., None]
    mixed = blocks[..., 0, :, :] * x[..., :1, :, :] + blocks[..., 1, :, :] * x[..., 1:, :, :]
    return mixed.flatten(-4, -2)


def cooley_tukey(n: int) -> Complex128[Tensor, "levels pairs 2 2"]:
    """The blocks of the FFT of radix 2, decimation in time (Cooley & Tukey 1965), for the unitary DFT.

    With ``input_order=bit_reversal(n)``. At stride s the pair at place t of its group has the block
    [[1, w], [1, −w]]/√2 with the twiddle factor w = exp(−2πi·t/2s).
    """
    factors = []
    for level in range(power_of_two(n).bit_length() - 1):
        stride = 2**level
        angle = -math.pi * (torch.arange(n // 2, dtype=torch.float64) % stride) / stride
        one = torch.ones_like(angle)
        w = torch.polar(one, angle)
        factors.append(torch.stack([one, w, one, -w], -1).unflatten(-1, (2, 2)) / math.sqrt(2))
    return torch.stack(factors)


def normalised(blocks: Blocks, strides: Sequence[int]) -> Blocks:
    """The same product with the first entry of each row equal to 1 in every factor but the last.

    B_{k+1}B_k = (B_{k+1}D)(D⁻¹B_k) for any diagonal D: the scalings move into the next factor.
    For strides 1, 2, …, n/2 nothing else can vary (Le et al. 2022), unless a block entry is zero.
    """
    blocks = list(blocks.unbind(-4))
    for k, (stride, following) in enumerate(pairwise(strides)):
        first = blocks[k][..., 0]  # (…, pair, row)
        blocks[k] = blocks[k] / first[..., None]
        # From the pairs to the n places, and on to the pairs of the next factor.
        scale = first.unflatten(-2, (-1, stride)).mT.flatten(-3)
        scale = scale.unflatten(-1, (-1, 2, following)).mT.flatten(-3, -2)
        blocks[k + 1] = blocks[k + 1] * scale[..., None, :]
    return torch.stack(blocks, -4)


def rank_one_bound(matrix: Tensor, input_order: Int64[Tensor, "n"]) -> float:
    """A lower bound for the relative error of any butterfly product with strides 1, 2, …, n/2 (not of its real part).

    After k factors the places of a block of 2^k columns reach one another; the other factors
    join places that agree modulo 2^k. So the rows r, r + 2^k, … and one block of columns share a
    single path, and that part of the product has rank one (Li et al. 2015; Le et al. 2022). Whatever
    σ₂, σ₃, … these parts of ``matrix`` have is lost. The bound is the largest over k; 0 for a zero
    matrix, which every product with a zero factor equals.
    """
    n = power_of_two(len(matrix))
    columns = (matrix / unit_scale(matrix))[:, input_order]
    if not columns.any():
        return 0.0
    lost = []
    for level in range(1, n.bit_length() - 1):
        parts = columns.unflatten(0, (-1, 2**level)).unflatten(-1, (-1, 2**level))
        squares = torch.linalg.svdvals(parts.permute(1, 2, 0, 3)).square()
        lost.append(squares[..., 1:].sum() / squares.sum())
    return math.sqrt(max(lost, default=0.0))


@with_gradients
def learn_blocks(
    layer: Butterfly,
    target: Tensor,
    *,
    steps: int = 1000,
    learning_rate: float = 0.1,
    watch: Callable[[int, Butterfly], None] | None = None,
    progress: bool = True,
) -> Float64[Tensor, "steps *copies"]:
    """Train ``layer`` in place by Adam, one-cycle, on n times the mean squared modulus of the error.

    Returns the RMSE before each step, ‖T − B‖_F/n, the measure of Dao et al. 2019. ``watch`` is called
    with the step and the layer before every step.

    Raises ValueError for a target that is not finite or of another shape than (n, n), and for steps and
    learning_rate that are not positive.
    """
    target = torch.as_tensor(target).detach().clone().to(layer.blocks.device)
    matching(target, "target", target.dtype, (layer.n, layer.n))
    if not torch.isfinite(target).all():
        raise ValueError("target must be finite")
    steps = integer(steps, "steps", least=1)
    learning_rate = real_number(learning_rate, "learning_rate", above=0)
    history = []

    def loss(step: int) -> Tensor:
        if watch:
            watch(step, layer)
        mean_square = (layer.matrix() - target).abs().square().mean((-2, -1))
        history.append(mean_square.detach().sqrt())
        return layer.n * mean_square.sum()

    rates, name = [learning_rate], "butterfly"
    one_cycle([[layer.blocks]], rates, loss, steps=steps, name=name, progress=progress)
    return torch.stack(history)


@torch.no_grad()
def rmse(layer: Butterfly, target: Tensor) -> Float64[Tensor, "*copies"]:
    """‖T − B‖_F/n of the whole matrix."""
    return (layer.matrix() - target).abs().square().mean((-2, -1)).sqrt()
