"""Products of butterfly factors: matrices that cost N log N, and how to find one in a dense matrix."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Complex, Complex128, Float64, Inexact, Int64
from torch import Tensor, nn

from helpers.maths import Seed, bit_reversal, gaussian, integer, one_of, power_of_two, unit_scale

Blocks = Complex[Tensor, "*copies levels pairs 2 2"]


class Butterfly(nn.Module):
    """y = Q·B_K⋯B_1·P x: K sparse factors between two fixed permutations of n = 2^L places.

    A factor of stride s is one 2×2 block for each pair of places i, i + s (n/2 pairs), so it has two
    nonzero entries in every row and column. ``strides`` names the factors in the order in which
    they are applied, by default 1, 2, 4, …, n/2. ``input_order`` and ``output_order`` are permutations:
    place i of P x is x[input_order[i]], and y[i] is the product's row output_order[i]. ``real`` returns
    the real part. Starts at random, drawn from ``seed``: every block is a unitary 2×2 matrix, so
    that the product is one too. ``copies`` independent starts live side by side on a leading axis.
    ``error`` is None, or what :func:`factorize` says of it.

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
        self.error: float | None = None
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
        """``(n, width)`` → ``(*copies, n, width)``, real or complex, in n log n steps for each column.

        A vector ``(n,)`` gives a vector; without copies leading axes of x are kept.
        """
        if x.ndim == 1:
            return self(x[:, None])[..., 0]
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


ORDERS = ("as given", "bit reversal", "search")


@torch.no_grad()
def factorize(matrix: Tensor, *, columns: str = "as given", rows: str = "as given") -> Butterfly:
    """The butterfly with strides 1, 2, …, n/2 nearest to ``matrix`` (n, n), or nearly so, without training.

    Exact, to rounding, if the matrix is such a product with its ``columns`` and ``rows`` in the order that
    is named, one of ORDERS; "search" finds it. The product's ``error`` is its relative Frobenius
    distance to the matrix, which :func:`rank_one_bound` bounds from below, whatever the method. Its blocks
    ask for no gradients until ``requires_grad_()`` is called.

    At the middle level the parts that share one path (see there) don't overlap, so the best
    approximation of each by a rank-one matrix is a best approximation of the whole by two factors;
    both are of the same kind and smaller (Le et al. 2022; Zheng et al. 2023). Of the two vectors of a part
    one has length one while the other is factored, so that no error grows on its way up (Le et al.
    2025). Orders are found by pairing columns that are parallel on classes of rows.

    Computes in double precision. Raises ValueError for a matrix that isn't square or finite, whose size is no
    power of two, and for an unknown order.
    """
    real = not torch.as_tensor(matrix).is_complex()
    matrix = torch.as_tensor(matrix, dtype=torch.float64 if real else torch.complex128)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix must be square, but the shape is {tuple(matrix.shape)}")
    n = power_of_two(len(matrix), "the size of matrix")
    if not torch.isfinite(matrix).all():
        raise ValueError("matrix must be finite")
    unit = unit_scale(matrix)
    matrix = matrix / unit
    named = {"as given": torch.arange(n), "bit reversal": bit_reversal(n), "search": None}
    first = named[one_of(columns, "columns", ORDERS)]
    last = named[one_of(rows, "rows", ORDERS)]
    if first is None:
        last, first = _find_orders(matrix, last)
    elif last is None:
        # The transposed product, its places in bit-reversed order, is one with the same strides.
        last = _find_orders(matrix[:, first].T[bit_reversal(n)], named["as given"])[1]
        last = last[bit_reversal(n)]
    layer = Butterfly(n, input_order=first, output_order=last.argsort(), real=real)
    layer.blocks.data = _factors(matrix[last][:, first]).to(torch.complex128)
    size = matrix.norm()
    layer.error = float((layer.matrix() - matrix).norm() / size) if size else 0.0
    layer.blocks.data[-1] *= unit
    return layer.requires_grad_(False)


def _factors(matrix: Tensor) -> Inexact[Tensor, "*batch levels pairs 2 2"]:
    """The blocks of :func:`factorize` for matrices (…, n, n) in the product's own order."""
    n = matrix.shape[-1]
    if n == 2:
        return matrix[..., None, None, :, :]
    low = 2 ** ((n.bit_length() - 1) // 2)
    parts = matrix.unflatten(-2, (-1, low)).unflatten(-1, (-1, low))  # (…, a, r, q, c)
    U, S, Vh = torch.linalg.svd(parts.movedim(-4, -2), full_matrices=False)  # of (…, r, q, a, c)
    U, S, Vh = U[..., 0], S[..., :1], Vh[..., 0, :]
    last = _factors((S * U).mT)  # (…, r, levels, pairs of a, 2, 2)
    first = _factors((S * Vh).movedim(-3, -2))  # (…, q, levels, pairs of c, 2, 2)
    rows = torch.where(S > 0, 1 / S, 0)[..., 0].mT.unflatten(-1, (2, -1)).mT
    first[..., -1, :, :, :] *= rows[..., None]
    first = first.movedim(-5, -4).flatten(-4, -3)
    last = last.movedim(-5, -3).flatten(-4, -3)
    return torch.cat([first, last], -4)


def _find_orders(matrix: Tensor, rows: Int64[Tensor, "n"] | None) -> tuple[Tensor, Tensor]:
    """Orders in which the matrix is nearest to a butterfly product; ``rows`` may be known.

    From level to level the stretches of columns and the classes of rows (see :func:`rank_one_bound`)
    are made: what is left of two stretches joins if it is parallel on all classes.
    """
    n = len(matrix)
    classes = torch.arange(n)[None] if rows is None else rows[None]
    stretches = torch.arange(n)[:, None]  # (stretch, its columns); one of them stands for all
    for _ in range(n.bit_length() - 2):
        if rows is None:
            partner = _on_two_lines(matrix[classes[0]])
            halves = [_halves(matrix[places][:, [0, partner]]) for places in classes]
            classes = torch.stack([c[h] for c, h in zip(classes, halves, strict=True)], 1)
        else:
            classes = classes.unflatten(1, (-1, 2)).permute(2, 0, 1)
        classes = classes.flatten(0, 1)  # (class, its rows)
        pairs = _pairs(_loss(matrix[classes]))
        U, S, _ = torch.linalg.svd(matrix[classes][..., pairs].movedim(1, 2), full_matrices=False)
        matrix = matrix.new_empty(n, len(pairs))
        matrix[classes] = (U[..., 0] * S[..., :1]).mT
        stretches = stretches[pairs].flatten(1)
    return classes.T.flatten(), stretches.flatten()


def _loss(parts: Tensor) -> Float64[Tensor, "columns columns"]:
    """What is lost if two columns of parts (class, rows, columns) become parallel: Σσ₂² over the classes."""
    inner = parts.mH @ parts
    size = inner.diagonal(dim1=1, dim2=2).real
    mean, half = (size[:, :, None] + size[:, None]) / 2, (size[:, :, None] - size[:, None]) / 2
    return (mean - (half.square() + inner.abs().square()).sqrt()).sum(0)


def _pairs(loss: Float64[Tensor, "n n"]) -> Int64[Tensor, "half 2"]:
    """All n places in pairs: the pair with the least loss, then the next one of what is left; sorted."""
    places, pairs = torch.triu_indices(len(loss), len(loss), 1), []
    free = set(range(len(loss)))
    for i, j in zip(*places[:, loss[*places].argsort()].tolist(), strict=True):
        if i in free and j in free:
            free -= {i, j}
            pairs.append((i, j))
    return torch.tensor(sorted(pairs))


def _on_two_lines(columns: Tensor) -> int:
    """The column b whose rows (a, b) with the first column a lie nearest to two lines: a², ab, b² are dependent."""
    a, b = columns[:, :1], columns[:, 1:]
    products = torch.stack([a.square().expand_as(b), a * b, b.square()], -1).movedim(1, 0)
    products = nn.functional.normalize(products, dim=1)
    return 1 + int(torch.linalg.svdvals(products)[:, -1].argmin())


def _halves(two: Tensor) -> Int64[Tensor, "2 half"]:
    """The rows of two columns, those nearest to the direction of the first one and the others."""
    unit = nn.functional.normalize(two, dim=1)
    nearest = (unit @ unit[0].conj()).abs().argsort(descending=True)
    return nearest.unflatten(0, (2, -1)).sort(1).values
