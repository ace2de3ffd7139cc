"""Products of butterfly factors: matrices that cost N log N, and gradient descent that finds the FFT in them.

``python -m helpers.butterfly`` (about half an hour on two cores) writes ``helpers/data/butterfly.json``: the
errors of every transform for N up to 64 and of the DFT up to 1024, and those of learned permutations.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Complex, Complex128, Float64, Int64
from torch import Tensor, nn
from tqdm import tqdm

from helpers.checks import integer, real_number
from helpers.nulls import gaussian
from helpers.orthogonal import signed_qr

RESULTS = Path(__file__).parent / "data" / "butterfly.json"
SEEDS = 10


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
        seed: int = 0,
        dtype: torch.dtype = torch.complex128,
    ) -> None:
        super().__init__()
        self.n, levels = power_of_two(n), power_of_two(n).bit_length() - 1
        allowed = tuple(2**level for level in range(levels))
        self.strides = allowed if strides is None else tuple(strides)
        if not self.strides or not set(self.strides) <= set(allowed):
            raise ValueError(f"strides must be taken from {allowed}, not {self.strides}")
        if dtype not in (torch.complex64, torch.complex128):
            raise ValueError(f"dtype must be complex64 or complex128, not {dtype}")
        self.real = real
        for name, order in (("input_order", input_order), ("output_order", output_order)):
            order = torch.arange(n) if order is None else torch.as_tensor(order)
            if order.shape != (n,) or not torch.equal(order.sort().values, torch.arange(n)):
                raise ValueError(f"{name} must be a permutation of 0 … {n - 1}")
            self.register_buffer(name, order)
        leading = () if copies is None else (integer(copies, "copies", least=1),)
        generator = torch.Generator().manual_seed(integer(seed, "seed", least=0))
        shape = (*leading, len(self.strides), n // 2, 2, 2)
        draw = torch.randn(shape, generator=generator, dtype=torch.complex128)
        self.blocks = nn.Parameter(torch.linalg.qr(draw).Q.to(dtype))

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

    @property
    def multiplications(self) -> int:
        """Complex multiplications for one vector: 2n for each factor, against n² for the matrix."""
        return 2 * self.n * len(self.strides)


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


def power_of_two(n: object, name: str = "n") -> int:
    """``n`` as an int; ValueError unless it is 2, 4, 8, …"""
    n = integer(n, name, least=2)
    if n & (n - 1):
        raise ValueError(f"{name} must be a power of two, not {n}")
    return n


def bit_reversal(n: int) -> Int64[Tensor, "n"]:
    """Places 0 … n − 1 with their binary digits in reverse order."""
    levels = power_of_two(n).bit_length() - 1
    places, order = torch.arange(n), torch.zeros(n, dtype=torch.int64)
    for level in range(levels):
        order |= ((places >> level) & 1) << (levels - 1 - level)
    return order


def cooley_tukey(n: int) -> Complex128[Tensor, "levels pairs 2 2"]:
    """The blocks of the FFT of radix 2, decimation in time (Cooley & Tukey 1965), for the unitary DFT.

    With ``input_order=bit_reversal(n)``. At stride s the pair at place t of its group has the block
    [[1, w], [1, −w]]/√2 with the twiddle factor w = exp(−2πi·t/2s).
    """
    factors = []
    for level in range(power_of_two(n).bit_length() - 1):
        stride = 2**level
        angle = -math.pi * (torch.arange(n // 2, dtype=torch.float64) % stride) / stride
        w, one = (
            torch.polar(torch.ones_like(angle), angle),
            torch.ones(n // 2, dtype=torch.complex128),
        )
        factors.append(torch.stack([one, w, one, -w], -1).unflatten(-1, (2, 2)) / math.sqrt(2))
    return torch.stack(factors)


def normalised(
    blocks: Complex[Tensor, "*copies levels pairs 2 2"], strides: Sequence[int]
) -> Complex[Tensor, "*copies levels pairs 2 2"]:
    """The same product with the first entry of each row equal to 1 in every factor but the last.

    B_{k+1}B_k = (B_{k+1}D)(D⁻¹B_k) for any diagonal D: the scalings move into the next factor.
    For strides 1, 2, …, n/2 nothing else can vary (Le et al. 2022), unless a block entry is zero.
    """
    n = 2 * blocks.shape[-3]
    factors, scale = [], torch.ones(*blocks.shape[:-4], n, 1, dtype=blocks.dtype)
    for k, stride in enumerate(strides):
        columns = scale.unflatten(-2, (-1, 2, stride))[..., 0]  # (…, group, which, place)
        columns = columns.movedim(-1, -2).flatten(-3, -2)[..., None, :]  # (…, pair, 1, column)
        block = blocks[..., k, :, :, :] * columns
        if k < len(strides) - 1:
            rows = block[..., :1]
            block = block / rows
            # back to places: (…, group, place, which) → (…, group, which, place)
            rows = rows[..., 0].unflatten(-2, (-1, stride)).movedim(-1, -2)
            scale = rows.flatten(-3, -1)[..., None]
        factors.append(block)
    return torch.stack(factors, -4)


def rank_one_bound(matrix: Tensor, input_order: Int64[Tensor, "n"]) -> float:
    """A lower bound for the relative error of any butterfly product with strides 1, 2, …, n/2 (not of its real part).

    After k factors the places of a block of 2^k columns reach one another; the other factors
    join places that agree modulo 2^k. So the rows r, r + 2^k, … and one block of columns share a
    single path, and that part of the product has rank one (Li et al. 2015; Le et al. 2022). Whatever
    σ₂, σ₃, … these parts of ``matrix`` have is lost. The bound is the largest over k; 0 for a zero
    matrix, which every product with a zero factor equals.
    """
    n = power_of_two(len(matrix))
    if not matrix.any():
        return 0.0
    columns = matrix[:, input_order]
    lost = []
    for level in range(1, n.bit_length() - 1):
        parts = columns.unflatten(0, (-1, 2**level)).unflatten(-1, (-1, 2**level))
        squares = torch.linalg.svdvals(parts.permute(1, 2, 0, 3)).square()
        lost.append(squares[..., 1:].sum() / squares.sum())
    return math.sqrt(max(lost, default=0.0))


@dataclass(frozen=True)
class Goal:
    """A transform to be found, and the form of the product that should hold it."""

    matrix: Complex128[Tensor, "n n"] | Float64[Tensor, "n n"]
    form: dict[str, object]
    """Arguments of :class:`Butterfly`."""


def dft(n: int, seed: int = 0) -> Goal:
    """The unitary DFT, exp(−2πi·jk/n)/√n, after a bit reversal."""
    n = power_of_two(n)
    turns = torch.outer(torch.arange(n), torch.arange(n)) % n
    angle = -2 * math.pi * turns.double() / n
    matrix = torch.polar(torch.full_like(angle, 1 / math.sqrt(n)), angle)
    return Goal(matrix, {"input_order": bit_reversal(n)})


def hadamard(n: int, seed: int = 0) -> Goal:
    """Sylvester's Hadamard matrix over √n. It needs no permutation."""
    n = power_of_two(n)
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < n:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return Goal(matrix / math.sqrt(n), {})


def cosine(n: int, seed: int = 0) -> Goal:
    """The orthonormal DCT-II as the real part of one butterfly product (Makhoul 1980).

    The even places in order, then the odd ones backwards, go through a DFT; a phase per row and the
    real part give the DCT.
    """
    n = power_of_two(n)
    k, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    matrix = torch.cos(math.pi * ((2 * j + 1) * k % (4 * n)).double() / (2 * n)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    order = torch.cat([torch.arange(0, n, 2), torch.arange(1, n, 2).flip(0)])
    return Goal(matrix, {"input_order": order[bit_reversal(n)], "real": True})


def circular_convolution(n: int, seed: int = 0) -> Goal:
    """A random circulant matrix of norm √n, as Fᴴ·diag·F: 2L factors with the diagonal inside one of them."""
    n = power_of_two(n)
    first = gaussian(n, seed=seed)
    matrix = torch.stack([first.roll(shift) for shift in range(n)], 1)
    strides = [2**level for level in range(power_of_two(n).bit_length() - 1)]
    orders = {"input_order": bit_reversal(n), "output_order": bit_reversal(n)}
    return Goal(matrix / first.norm(), {"strides": (*strides, *strides[::-1]), **orders})


def random_orthogonal(n: int, seed: int = 0) -> Goal:
    """The negative control: a uniformly distributed orthogonal matrix."""
    n = power_of_two(n)
    return Goal(signed_qr(gaussian(n, n, seed=seed)), {"input_order": bit_reversal(n)})


GOALS: dict[str, Callable[[int, int], Goal]] = {
    "DFT": dft,
    "Hadamard": hadamard,
    "DCT": cosine,
    "convolution": circular_convolution,
    "random orthogonal": random_orthogonal,
}


@dataclass(frozen=True)
class Recipe:
    """How a goal is trained."""

    steps: int = 1000
    learning_rate: float = 0.1


RECIPES = {"DCT": Recipe(4000, 0.2), "convolution": Recipe(4000)}
"""Where the defaults leave many starts unfinished."""


def fit(
    layer: Butterfly,
    target: Tensor,
    *,
    steps: int = 1000,
    learning_rate: float = 0.1,
    columns: int | None = None,
    permutation: "SoftPermutation | None" = None,
    seed: int = 0,
    watch: Callable[[int, Butterfly], None] | None = None,
    progress: bool = True,
) -> Float64[Tensor, "steps *copies"]:
    """Train ``layer`` in place by Adam, one-cycle, on n times the mean squared modulus of the error.

    Returns the RMSE before each step.

    RMSE is ‖T − B‖_F/n, the measure of Dao et al. 2019. With ``columns`` every step sees that many random
    columns of the identity, drawn from ``seed``, and the RMSE is estimated from them. A ``permutation``
    is trained too and goes first. ``watch`` is called with the step and the layer before every step.

    Raises ValueError for a target of another shape than (n, n), and for steps, learning_rate and columns
    that are not positive.
    """
    n = layer.n
    if target.shape != (n, n):
        raise ValueError(f"target must have shape {(n, n)}, not {tuple(target.shape)}")
    if not torch.isfinite(target).all():
        raise ValueError("target must be finite")
    steps = integer(steps, "steps", least=1)
    learning_rate = real_number(learning_rate, "learning_rate", above=0)
    groups = [{"params": [layer.blocks], "lr": learning_rate}]
    if permutation is not None:
        groups.append({"params": [permutation.logits], "lr": learning_rate / 2})
    optimizer = torch.optim.Adam(groups)
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
    identity = torch.eye(n, dtype=layer.blocks.real.dtype, device=layer.blocks.device)
    chosen = torch.arange(n)
    count = n if columns is None else integer(columns, "columns", least=1, most=n)
    generator = torch.Generator().manual_seed(integer(seed, "seed", least=0))
    history = []
    for step in tqdm(range(steps), "butterfly", disable=not progress, delay=5, leave=False):
        if watch:
            watch(step, layer)
        if count < n:
            chosen = torch.randperm(n, generator=generator)[:count]
        optimizer.zero_grad()
        x = identity[:, chosen]
        difference = layer(x if permutation is None else permutation(x)) - target[:, chosen]
        mean_square = difference.abs().square().mean((-2, -1))
        (n * mean_square.sum()).backward()
        optimizer.step()
        schedule.step()
        history.append(mean_square.detach().sqrt())
    return torch.stack(history)


@torch.no_grad()
def rmse(layer: Butterfly, target: Tensor) -> Float64[Tensor, "*copies"]:
    """‖T − B‖_F/n of the whole matrix."""
    return (layer.matrix() - target).abs().square().mean((-2, -1)).sqrt()


class SoftPermutation(nn.Module):
    """A product of choices that becomes a permutation as its probabilities become 0 or 1 (Dao et al. 2019, §3.2).

    At every level, on stretches of n, n/2, …, 4 places: (a) even places first, then odd ones; (b) reverse
    the first half; (c) reverse the second half; each done with probability p: x → p·P x + (1 − p)·x.
    ``copies`` independent starts near p = ½ are drawn from ``seed``.
    """

    def __init__(self, n: int, *, copies: int, seed: int = 0) -> None:
        super().__init__()
        levels = power_of_two(n).bit_length() - 2
        generator = torch.Generator().manual_seed(integer(seed, "seed", least=0))
        copies = integer(copies, "copies", least=1)
        draw = torch.randn(copies, levels, 3, generator=generator, dtype=torch.float64)
        self.logits = nn.Parameter(draw / 2)

    def forward(self, x: Float64[Tensor, "n width"]) -> Float64[Tensor, "copies n width"]:
        """The rows of ``x`` in every copy's order, mixed as long as the choices are undecided."""
        return self._mix(x, self.logits.sigmoid())

    @torch.no_grad()
    def orders(self) -> Int64[Tensor, "copies n"]:
        """The nearest permutations: every choice with p > ½ is made."""
        n = 2 ** (self.logits.shape[1] + 1)
        places = torch.arange(n, dtype=torch.float64, device=self.logits.device)[:, None]
        return self._mix(places, (self.logits > 0).double())[..., 0].round().long()

    def _mix(self, x: Tensor, chances: Tensor) -> Tensor:
        n = x.shape[-2]
        x = x.expand(len(chances), *x.shape)
        for level in range(chances.shape[1]):
            a, b, c = chances[:, level, :, None, None, None].unbind(1)
            y = x.unflatten(1, (-1, n >> level))
            y = a * torch.cat([y[:, :, 0::2], y[:, :, 1::2]], 2) + (1 - a) * y
            first, second = y.chunk(2, 2)
            first = b * first.flip(2) + (1 - b) * first
            second = c * second.flip(2) + (1 - c) * second
            x = torch.cat([first, second], 2).flatten(1, 2)
        return x


def learn_permutation(n: int, *, starts: int = 8, seed: int = 0) -> dict[str, object]:
    """Find the DFT and the order of its inputs together, from ``starts`` random starts.

    First with soft permutations; then each is rounded and the blocks are trained anew for the best one.
    Returns "soft" and "bounds", the RMSE and :func:`rank_one_bound` after rounding of every start, the
    "order" kept (of the least soft RMSE), and the "rmse" with it.
    """
    target = dft(n).matrix
    layer, permutation = (
        Butterfly(n, copies=starts, seed=seed),
        SoftPermutation(n, copies=starts, seed=seed),
    )
    soft = fit(layer, target, steps=1000, permutation=permutation, progress=False)[-1]
    orders = permutation.orders()
    best = int(soft.argmin())
    final = Butterfly(n, input_order=orders[best], seed=seed)
    fit(final, target, steps=1000, progress=False)
    return {
        "soft": soft.tolist(),
        "bounds": [rank_one_bound(target, order) for order in orders],
        "order": orders[best].tolist(),
        "rmse": float(rmse(final, target)),
    }


SIZES = dict.fromkeys(GOALS, (8, 16, 32, 64))
SIZES["DFT"] += (128, 256, 1024)


def run(task: tuple[str, int, int]) -> dict[str, object]:
    """One goal, size and seed: the RMSE at the end and the seconds; or, for "permutation", what that gave."""
    name, n, seed = task
    torch.set_num_threads(1)
    start = time.perf_counter()
    if name == "permutation":
        found = learn_permutation(n, seed=seed)
        return {**found, "seconds": time.perf_counter() - start}
    goal, recipe = GOALS[name](n, seed), RECIPES.get(name, Recipe())
    layer = Butterfly(n, seed=seed, **goal.form)
    # An exact solution has no error in any column, so a few of them at a time will do.
    columns = max(64, n // 8) if n > 64 else None
    steps = 2 * recipe.steps if n in (128, 256) else recipe.steps  # 1024 takes long enough
    fit(
        layer,
        goal.matrix,
        steps=steps,
        learning_rate=recipe.learning_rate,
        columns=columns,
        seed=seed,
        progress=False,
    )
    found = {"rmse": float(rmse(layer, goal.matrix)), "seconds": time.perf_counter() - start}
    if name == "random orthogonal":
        found["bound"] = rank_one_bound(goal.matrix, goal.form["input_order"]) / math.sqrt(n)
    return found


def load_results() -> dict[str, dict[str, list[dict]]]:
    """The committed results of :func:`run`: goal → N (a string) → one entry per seed."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))["results"]


if __name__ == "__main__":
    tasks = [(name, n, seed) for name in GOALS for n in SIZES[name] for seed in range(SEEDS)]
    tasks += [("permutation", n, seed) for n in (8, 16, 32) for seed in range(SEEDS)]
    results: dict = {name: {} for name in (*GOALS, "permutation")}
    # The longest first, so that no process ends much later than the other.
    tasks.sort(key=lambda task: -task[1] * (2 if task[0] == "convolution" else 1))
    with ProcessPoolExecutor(2) as processes:
        done = list(tqdm(processes.map(run, tasks), "butterflies", total=len(tasks)))
    for (name, n, _), found in sorted(zip(tasks, done, strict=True), key=lambda pair: pair[0]):
        rounded = json.loads(
            json.dumps(found), parse_float=lambda text: float(f"{float(text):.3g}")
        )
        results[name].setdefault(str(n), []).append(rounded)
    head = {"command": "python -m helpers.butterfly", "torch": torch.__version__.split("+")[0]}
    RESULTS.write_text(json.dumps({**head, "results": results}) + "\n", encoding="utf-8")
    sys.exit(0)
