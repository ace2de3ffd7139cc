"""Butterfly products: their form, the transforms that they hold, what descent finds, permutations."""

import itertools
import json
import math

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import torch

from experiments.transform_search import (
    GOALS,
    SEEDS,
    SIZES,
    SoftPermutation,
    learn_permutation,
    load_results,
)
from helpers.layers import (
    Butterfly,
    apply_factor,
    butterfly,
    cooley_tukey,
    fit,
    normalised,
    rank_one_bound,
    rmse,
)
from helpers.maths import bit_reversal, gaussian

SMALL = [2, 4, 8, 16, 32, 64]
C128 = torch.complex128


def complex_gaussian(*shape, seed=0):
    return torch.complex(*gaussian(2, *shape, seed=seed))


def random_order(n, seed=0):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def holding(blocks, **form):
    """A product with given blocks."""
    layer = Butterfly(2 * blocks.shape[-3], **form)
    layer.blocks.data = blocks
    return layer


def shuffled(order):
    """The matrix P with (Px)_i = x[order[i]]."""
    return torch.eye(len(order), dtype=C128)[order]


def unitary_dft(n):
    return torch.fft.fft(torch.eye(n, dtype=C128), dim=0, norm="ortho")


def close(one, other, tolerance=1e-12):
    torch.testing.assert_close(one, other, atol=tolerance, rtol=0)


# The form


@pytest.mark.parametrize("n", SMALL)
def test_a_factor_has_two_entries_in_every_row_and_column_a_stride_apart(n):
    layer = Butterfly(n)
    assert layer.strides == tuple(2**level for level in range(n.bit_length() - 1))
    for k, stride in enumerate(layer.strides):
        rows, columns = layer.factor(k).nonzero(as_tuple=True)
        assert torch.equal(rows.bincount(), torch.full((n,), 2))
        assert torch.equal(columns.bincount(), torch.full((n,), 2))
        # Places that differ in one binary digit, the one worth `stride`, or not at all.
        assert set((rows ^ columns).tolist()) == {0, stride}


def test_blocks_belong_to_pairs_ordered_by_their_first_place():
    blocks = complex_gaussian(4, 2, 2)
    for stride, firsts in ((1, (0, 2, 4, 6)), (2, (0, 1, 4, 5)), (4, (0, 1, 2, 3))):
        expected = torch.zeros(8, 8, dtype=C128)
        for block, i in zip(blocks, firsts, strict=True):
            expected[[[i], [i + stride]], [i, i + stride]] = block
        close(apply_factor(blocks, stride, torch.eye(8, dtype=C128)), expected)


@pytest.mark.parametrize("strides", [None, (1,), (4, 2, 1), (2, 2, 8, 1, 2)])
def test_the_matrix_is_the_product_of_factors_and_permutations(strides):
    orders = {"input_order": random_order(16, 1), "output_order": random_order(16, 2)}
    layer = Butterfly(16, strides=strides, seed=3, **orders)
    product = shuffled(orders["input_order"])
    for k in range(len(layer.strides)):
        product = layer.factor(k) @ product
    close(layer.matrix(), shuffled(orders["output_order"]) @ product)
    for real, part in ((True, layer.matrix().real), (False, layer.matrix())):
        same = Butterfly(16, strides=strides, seed=3, real=real, **orders)
        close(same.matrix(), part)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("kind", [gaussian, complex_gaussian])
@pytest.mark.parametrize("shape", [(8, 1), (8, 5), (3, 8, 2), (2, 3, 8, 4)])
def test_forward_is_the_matrix_on_one_vector_and_on_batches(shape, kind, real):
    layer = Butterfly(8, input_order=random_order(8), real=real)
    x = kind(*shape, seed=1)
    complex_matrix = Butterfly(8, input_order=random_order(8)).matrix()
    y = complex_matrix @ x.to(C128)
    close(layer(x), y.real if real else y)


def test_forward_is_linear_and_over_the_real_numbers_only_if_real():
    layer, real = Butterfly(16), Butterfly(16, real=True)
    x, y = complex_gaussian(2, 16, 3)
    close(layer((2 - 1j) * x + y), (2 - 1j) * layer(x) + layer(y))
    close(real(-0.5 * x + y), -0.5 * real(x) + real(y))
    assert (real(1j * x) - real(x)).abs().max() > 0.1


def test_copies_are_products_of_their_own():
    layer, x = Butterfly(8, copies=3, input_order=random_order(8)), gaussian(8, 5, seed=1)
    assert layer(x).shape == (3, 8, 5)
    assert layer.matrix().shape == layer.factor(1).shape == (3, 8, 8)
    each = gaussian(3, 8, 5, seed=2)
    for copy, blocks in enumerate(layer.blocks.data):
        single = holding(blocks, input_order=random_order(8))
        close(layer(x)[copy], single(x))
        close(layer(each)[copy], single(each[copy]))  # an x of its own for each copy
        close(layer.matrix()[copy], single.matrix())
        close(layer.factor(2)[copy], single.factor(2))
        close(rmse(layer, torch.eye(8))[copy], rmse(single, torch.eye(8)))


def test_the_start_is_unitary():
    blocks, matrix = Butterfly(32, seed=1).blocks, Butterfly(32, seed=1).matrix()
    close(blocks @ blocks.mH, torch.eye(2, dtype=C128).expand_as(blocks))
    close(matrix @ matrix.mH, torch.eye(32, dtype=C128))
    assert matrix.abs().min() > 0  # every input reaches every output


def test_single_precision():
    layer = Butterfly(16, dtype=torch.complex64)
    assert layer.matrix().dtype == torch.complex64
    assert layer(torch.ones(16, 2)).dtype == torch.complex64
    assert Butterfly(16, dtype=torch.complex64, real=True)(torch.ones(16, 2)).dtype == torch.float32
    close(layer.matrix().to(C128), Butterfly(16).matrix(), 1e-5)


def test_multiplications():
    assert Butterfly(1024).multiplications == 2 * 1024 * 10
    for name, factors in {"DFT": 6, "Hadamard": 6, "DCT": 6, "convolution": 12}.items():
        layer = Butterfly(64, **GOALS[name](64, 0).form)
        nonzero = sum(int((layer.factor(k) != 0).sum()) for k in range(len(layer.strides)))
        assert layer.multiplications == nonzero == 128 * factors < 64**2


def test_matrix_and_factors_live_where_the_blocks_live():
    # "meta" is the device that every machine has: a constant made on the CPU would raise.
    layer = Butterfly(8, input_order=bit_reversal(8)).to("meta")
    assert layer(torch.ones(8, 2, device="meta")).device.type == "meta"
    assert layer.matrix().device.type == "meta"
    assert layer.factor(0).device.type == "meta"


# The transforms and their exact factors


@pytest.mark.parametrize("n", SMALL)
def test_bit_reversal(n):
    digits = n.bit_length() - 1
    assert bit_reversal(n).tolist() == [int(f"{i:0{digits}b}"[::-1], 2) for i in range(n)]


@pytest.mark.parametrize("n", SMALL)
def test_cooley_tukey_after_a_bit_reversal_is_the_fft(n):
    goal = GOALS["DFT"](n, 0)
    close(goal.matrix, unitary_dft(n))
    fft, x = holding(cooley_tukey(n), **goal.form), complex_gaussian(n, 3)
    close(fft.matrix(), unitary_dft(n))
    close(fft(x), torch.fft.fft(x, dim=0, norm="ortho"))
    assert float(rmse(fft, goal.matrix)) < 1e-15


@pytest.mark.parametrize("n", SMALL)
def test_the_hadamard_matrix_is_scipys_and_needs_one_block(n):
    goal = GOALS["Hadamard"](n, 0)
    close(goal.matrix, torch.tensor(scipy.linalg.hadamard(n) / math.sqrt(n)))
    block = torch.tensor([[1, 1], [1, -1]], dtype=C128) / math.sqrt(2)
    layer = holding(block.expand_as(cooley_tukey(n)), **goal.form)
    close(layer.matrix(), goal.matrix.to(C128))


@pytest.mark.parametrize("n", SMALL)
def test_the_cosine_transform_is_scipys_and_a_phase_away_from_the_fft(n):
    goal = GOALS["DCT"](n, 0)
    expected = scipy.fft.dct(np.eye(n), norm="ortho", axis=0)
    close(goal.matrix, torch.from_numpy(expected))
    angle = -math.pi * torch.arange(n, dtype=torch.float64) / (2 * n)
    size = torch.full((n,), math.sqrt(2), dtype=torch.float64)
    size[0] = 1
    phase = torch.polar(size, angle)
    blocks = cooley_tukey(n)
    # The last factor's rows i and i + n/2 are those of block i.
    blocks[-1] *= phase.unflatten(0, (2, -1)).T[..., None]
    close(holding(blocks, **goal.form).matrix(), goal.matrix)


@pytest.mark.parametrize("n", SMALL)
def test_circular_convolution_is_numpys_and_two_ffts_with_a_diagonal_between(n):
    goal = GOALS["convolution"](n, 5)
    kernel, x = goal.matrix[:, 0], gaussian(n, seed=9)
    assert float(kernel.norm()) == pytest.approx(1)
    assert float(goal.matrix.norm()) == pytest.approx(math.sqrt(n))
    expected = np.fft.ifft(np.fft.fft(kernel.numpy()) * np.fft.fft(x.numpy())).real
    close(goal.matrix @ x, torch.from_numpy(expected))
    # C = Fᴴ diag(λ) F with F = B P. P is its own inverse, so Fᴴ = P Bᴴ: the factors backwards.
    there = cooley_tukey(n)
    back = there.flip(0).mH.clone()
    eigenvalues = torch.fft.fft(kernel.to(C128))
    back[0] *= eigenvalues.unflatten(0, (2, -1)).T[:, None, :]
    layer = holding(torch.cat([there, back]), **goal.form)
    close(layer.matrix(), goal.matrix.to(C128))


def test_goals_are_drawn_from_the_seed_and_have_equal_norms():
    state = torch.get_rng_state()
    for name, goal in GOALS.items():
        first, again, other = (goal(16, seed).matrix for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert torch.equal(first, other) == (name in ("DFT", "Hadamard", "DCT"))
        assert float(first.norm()) == pytest.approx(4)
        if name != "convolution":
            close((first @ first.mH).abs(), torch.eye(16, dtype=torch.float64))
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"


# Scalings that leave the product alone


def rescaled(layer, seed):
    """The same product with random diagonals and their inverses between the factors."""
    blocks = layer.blocks.detach().clone()
    scales = torch.exp(complex_gaussian(len(layer.strides), layer.n, seed=seed) / 2)
    for k in range(len(layer.strides) - 1):
        for shift, scale in ((0, scales[k]), (1, 1 / scales[k])):
            pairs = scale.unflatten(0, (-1, 2, layer.strides[k + shift])).mT.flatten(0, 1)
            # Factor k gets a diagonal on its rows, the next one the inverse on its columns.
            blocks[k + shift] *= pairs[:, None, :] if shift else pairs[:, :, None]
    return blocks


FORMS = [("DFT", 2), ("DFT", 4), ("DFT", 16), ("DCT", 8), ("convolution", 8)]


@pytest.mark.parametrize(("name", "n"), FORMS)
def test_normalised_is_the_same_product_with_ones_in_front(name, n):
    form = GOALS[name](n, 0).form
    layer = Butterfly(n, seed=4, **form)
    blocks = normalised(layer.blocks.detach(), layer.strides)
    close(holding(blocks, **form).matrix(), layer.matrix())
    close(blocks[:-1, ..., 0], torch.ones_like(blocks[:-1, ..., 0]))


@pytest.mark.parametrize(("name", "n"), FORMS)
def test_normalised_undoes_every_rescaling(name, n):
    form = GOALS[name](n, 0).form
    layer = Butterfly(n, seed=4, **form)
    expected = normalised(layer.blocks.detach(), layer.strides)
    for seed in range(5):
        blocks = rescaled(layer, seed)
        assert n == 2 or (blocks - layer.blocks).abs().max() > 0.1
        close(holding(blocks, **form).matrix(), layer.matrix())
        close(normalised(blocks, layer.strides), expected, 1e-10)


def test_normalised_knows_copies():
    layer = Butterfly(8, copies=2)
    both = normalised(layer.blocks.detach(), layer.strides)
    for blocks, single in zip(both, layer.blocks.detach(), strict=True):
        close(blocks, normalised(single, layer.strides))


# What no product can hold


def bound_by_loops(matrix, order):
    n, worst = len(matrix), 0.0
    columns, width = matrix.numpy()[:, order.numpy()], 2
    while width < n:
        lost = 0.0
        for row, first in itertools.product(range(width), range(0, n, width)):
            sigma = np.linalg.svd(columns[row::width, first : first + width], compute_uv=False)
            lost += (sigma[1:] ** 2).sum()
        worst, width = max(worst, lost / np.linalg.norm(columns) ** 2), 2 * width
    return math.sqrt(worst)


@pytest.mark.parametrize("n", SMALL)
def test_nothing_of_a_butterfly_product_is_lost(n):
    order = random_order(n)
    layer = Butterfly(n, input_order=order)
    layer.blocks.data = complex_gaussian(*layer.blocks.shape)
    assert rank_one_bound(layer.matrix().detach(), order) < 1e-12
    assert rank_one_bound(GOALS["DFT"](n, 0).matrix, bit_reversal(n)) < 1e-12
    if n > 2:
        assert rank_one_bound(GOALS["DFT"](n, 0).matrix, torch.arange(n)) > 0.5


@pytest.mark.parametrize("n", [4, 8, 32])
def test_the_bound_counted_in_loops(n):
    for goal in ("random orthogonal", "convolution", "DCT"):
        matrix = GOALS[goal](n, 3).matrix
        for order in (bit_reversal(n), random_order(n)):
            expected = bound_by_loops(matrix, order)
            assert rank_one_bound(matrix, order) == pytest.approx(expected, abs=1e-12)


def test_the_bound_of_a_matrix_counted_by_hand():
    # Rows 0 and 2 of the first two columns hold 1 and ½ in two directions, so ½ is lost.
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix[0, 0], matrix[2, 1] = 1.0, 0.5
    assert rank_one_bound(matrix, torch.arange(4)) == pytest.approx(0.5 / math.sqrt(1.25))
    assert rank_one_bound(0 * matrix, torch.arange(4)) == 0


@pytest.mark.parametrize("n", [4, 8, 16])
def test_no_product_comes_closer_than_the_bound(n):
    order = random_order(n, seed=n)
    for seed, matrix in enumerate(complex_gaussian(3, n, n)):
        bound = rank_one_bound(matrix, order) * float(matrix.norm()) / n
        layer = Butterfly(n, input_order=order, copies=10, seed=seed)
        layer.blocks.data = complex_gaussian(*layer.blocks.shape, seed=seed)
        # The best multiple of each random product, and then what descent makes of them.
        products = layer.matrix().detach()
        gain = (products.conj() * matrix).sum((1, 2)) / products.abs().square().sum((1, 2))
        errors = (gain[:, None, None] * products - matrix).abs().square().mean((1, 2)).sqrt()
        assert errors.min() >= bound
        fit(layer, matrix, steps=80, progress=False)
        assert bound - 1e-12 <= rmse(layer, matrix).min() < errors.min()


# Training


def test_gradient_descent_finds_the_dft_from_every_start():
    goal, starts = GOALS["DFT"](8, 0), 5
    layer = Butterfly(8, copies=starts, seed=0, **goal.form)
    history = fit(layer, goal.matrix, steps=600, progress=False)
    assert history.shape == (600, starts)
    assert rmse(layer, goal.matrix).max() < 1e-10
    # What it found are the twiddle factors, up to the scalings.
    for blocks in layer.blocks.detach():
        found, known = (normalised(b, layer.strides) for b in (blocks, cooley_tukey(8)))
        close(found, known, 1e-8)


def test_it_does_not_find_a_random_orthogonal_matrix():
    goal = GOALS["random orthogonal"](8, 1)
    layer = Butterfly(8, copies=5, seed=0, **goal.form)
    fit(layer, goal.matrix, steps=300, progress=False)
    bound = rank_one_bound(goal.matrix, goal.form["input_order"]) / math.sqrt(8)
    assert bound > 0.1
    assert rmse(layer, goal.matrix).min() >= bound


def test_the_history_is_the_rmse_before_each_step():
    layer, target = Butterfly(8), GOALS["DCT"](8, 0).matrix
    seen = []
    watch = lambda step, now: seen.append((step, float(rmse(now, target))))  # noqa: E731
    history = fit(layer, target, steps=6, watch=watch, progress=False)
    assert [step for step, _ in seen] == list(range(6))
    assert history.tolist() == pytest.approx([error for _, error in seen], rel=1e-12)
    matrix = layer.matrix().detach().numpy()
    expected = np.linalg.norm(matrix - target.numpy()) / 8
    assert float(rmse(layer, target)) == pytest.approx(expected, rel=1e-12)


def test_random_columns_estimate_the_rmse():
    target, layer = unitary_dft(16), Butterfly(16, input_order=random_order(16))
    start = float(rmse(layer, target))
    errors = [
        float(fit(Butterfly(16, input_order=random_order(16)), target, columns=4, steps=1, seed=s))
        for s in range(40)
    ]
    assert float(np.sqrt(np.mean(np.square(errors)))) == pytest.approx(start, rel=0.1)
    assert len(set(errors)) > 30
    # All columns are no choice, and an exact product has no error in any of them.
    whole = fit(Butterfly(16, input_order=random_order(16)), target, columns=16, steps=1)
    assert float(whole) == pytest.approx(start)
    exact = holding(cooley_tukey(16), input_order=bit_reversal(16))
    assert float(fit(exact, target, columns=3, steps=1)) < 1e-15


def test_random_columns_find_the_dft_too():
    goal = GOALS["DFT"](8, 0)
    layer = Butterfly(8, copies=2, **goal.form)
    fit(layer, goal.matrix, steps=800, columns=6, progress=False)
    assert rmse(layer, goal.matrix).max() < 1e-6


def test_start_and_training_are_functions_of_the_seed():
    def trained(seed, columns_seed=0):
        layer = Butterfly(8, seed=seed)
        fit(layer, unitary_dft(8), steps=3, columns=4, seed=columns_seed, progress=False)
        return layer.blocks.detach()

    state = torch.get_rng_state()
    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))
    assert not torch.equal(trained(0), trained(0, columns_seed=1))
    assert torch.equal(SoftPermutation(8, copies=2).logits, SoftPermutation(8, copies=2).logits)
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"


# Permutations

HARD = 1000.0


def hard(n, choices):
    """A permutation that makes the given choices (…, level, 3) with certainty."""
    permutation = SoftPermutation(n, copies=len(choices))
    permutation.logits.data = torch.where(choices.bool(), HARD, -HARD).double()
    return permutation


def test_hard_choices_are_permutations():
    choices = torch.cartesian_prod(*[torch.arange(2)] * 6).unflatten(1, (2, 3))
    permutation, x = hard(8, choices), gaussian(8, 3, seed=0)
    orders, moved = permutation.orders(), permutation(x)
    assert torch.equal(orders.sort(1).values, torch.arange(8).expand(64, 8))
    for order, y in zip(orders, moved, strict=True):
        close(y, x[order])  # the convention of Butterfly's input_order
    assert len({tuple(order) for order in orders.tolist()}) > 30


def test_each_choice_does_what_is_said():
    first = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]  # on all 8 places, then none on the halves
    orders = hard(8, torch.tensor([[c, [0, 0, 0]] for c in first])).orders()
    assert orders[0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert orders[1].tolist() == [3, 2, 1, 0, 4, 5, 6, 7]
    assert orders[2].tolist() == [0, 1, 2, 3, 7, 6, 5, 4]
    halves = hard(8, torch.tensor([[[0, 0, 0], [1, 0, 0]]])).orders()
    assert halves[0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("n", SMALL)
def test_every_bit_reversal_can_be_reached(n):
    evens_first = torch.tensor([1, 0, 0]).expand(1, n.bit_length() - 2, 3)
    assert torch.equal(hard(n, evens_first).orders()[0], bit_reversal(n))


def test_a_relaxed_permutation_mixes_permutations():
    permutation = SoftPermutation(16, copies=5, seed=2)
    P = permutation(torch.eye(16, dtype=torch.float64)).detach()
    assert P.shape == (5, 16, 16)
    assert P.min() >= 0
    close(P.sum(1), torch.ones(5, 16, dtype=torch.float64))
    close(P.sum(2), torch.ones(5, 16, dtype=torch.float64))
    x = gaussian(16, 3, seed=1)
    close(permutation(x).detach(), P @ x)
    # By hand for n = 4: p(B) p(A) with every choice a mean of doing and not doing it.
    single = SoftPermutation(4, copies=1, seed=1)
    a, b, c = single.logits.detach().sigmoid()[0, 0]
    one = torch.eye(4, dtype=torch.float64)
    sort, first, second = one[[0, 2, 1, 3]], one[[1, 0, 2, 3]], one[[0, 1, 3, 2]]
    expected = a * sort + (1 - a) * one
    for p, P in ((b, first), (c, second)):
        expected = (p * P + (1 - p) * one) @ expected
    close(single(one)[0].detach(), expected)


def test_the_nearest_permutation_takes_the_likelier_choices():
    permutation = SoftPermutation(8, copies=6, seed=3)
    assert torch.equal(permutation.orders(), hard(8, permutation.logits > 0).orders())


def test_a_permutation_is_learned_with_the_blocks():
    found = learn_permutation(8, starts=4)
    assert set(found) == {"soft", "bounds", "order", "rmse"}
    assert len(found["soft"]) == len(found["bounds"]) == 4
    assert sorted(found["order"]) == list(range(8))
    best = int(np.argmin(found["soft"]))
    order = torch.tensor(found["order"])
    assert rank_one_bound(unitary_dft(8), order) == pytest.approx(found["bounds"][best], abs=1e-12)
    assert found["bounds"][best] < 1e-12
    assert found["rmse"] < 1e-10


# The committed results


def test_the_stored_results_are_complete():
    head = json.loads(butterfly.RESULTS.read_text(encoding="utf-8"))
    assert head["command"] == "python -m helpers.butterfly"
    results = load_results()
    assert tuple(results) == (*GOALS, "permutation")
    sizes = {**SIZES, "permutation": (8, 16, 32)}
    assert max(sizes["DFT"]) == 1024
    for name, by_size in results.items():
        assert tuple(by_size) == tuple(map(str, sizes[name]))
        for runs in by_size.values():
            assert len(runs) == SEEDS == 10
            for run in runs:
                assert math.isfinite(run["rmse"])
                assert run["rmse"] >= 0
                assert run["seconds"] > 0


def test_stored_random_orthogonal_matrices_stay_above_their_bounds():
    for n, runs in load_results()["random orthogonal"].items():
        for seed, run in enumerate(runs):
            goal = GOALS["random orthogonal"](int(n), seed)
            bound = rank_one_bound(goal.matrix, goal.form["input_order"]) / math.sqrt(int(n))
            assert run["bound"] == pytest.approx(bound, rel=0.01)  # three digits are stored
            assert run["rmse"] >= 0.99 * bound


def test_stored_permutations_can_hold_the_dft_where_it_was_found():
    for n, runs in load_results()["permutation"].items():
        for run in runs:
            assert sorted(run["order"]) == list(range(int(n)))
            bound = rank_one_bound(unitary_dft(int(n)), torch.tensor(run["order"]))
            assert run["rmse"] >= 0.99 * bound / math.sqrt(int(n)) - 1e-15
            best = int(np.argmin(run["soft"]))
            assert run["bounds"][best] == pytest.approx(bound, rel=0.01, abs=1e-12)


def test_a_result_measured_again():
    stored = load_results()["random orthogonal"]["8"][2]
    again = butterfly.run(("random orthogonal", 8, 2))
    assert again["rmse"] == pytest.approx(stored["rmse"], rel=0.02)
    assert again["bound"] == pytest.approx(stored["bound"], rel=0.01)
