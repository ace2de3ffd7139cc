"""Butterfly products: their form, the transforms that they hold, how they are found, what none can hold."""

import copy
import math
import warnings

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import torch

from helpers.layers import (
    Butterfly,
    apply_factor,
    cooley_tukey,
    factorize,
    normalised,
    rank_one_bound,
)
from helpers.maths import bit_reversal, gaussian, orders, signed_qr

SMALL = [2, 4, 8, 16, 64]
C128 = torch.complex128


def complex_gaussian(*shape, seed=0):
    return torch.complex(*gaussian(2, *shape, seed=seed))


def random_order(n, seed=0):
    return orders(n, seed=seed)


def holding(blocks, **form):
    """A product with given blocks."""
    layer = Butterfly(2 * blocks.shape[-3], **form)
    layer.blocks.data = blocks
    return layer


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


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("strides", [None, (1,), (4, 2, 1), (2, 2, 8, 1, 2)])
def test_a_product_is_that_of_its_factors_and_permutations(strides, real):
    first, last = random_order(16, 1), random_order(16, 2)
    form = {"input_order": first, "output_order": last, "real": real}
    layer = Butterfly(16, strides=strides, seed=3, **form)
    product = torch.eye(16, dtype=C128)[first]
    for k in range(len(layer.strides)):
        product = layer.factor(k) @ product
    product = product[last]
    close(layer.matrix(), product.real if real else product)
    for kind in (gaussian, complex_gaussian):
        for shape in ((16, 1), (3, 16, 2), (2, 3, 16, 4)):
            x = kind(*shape, seed=1)
            y = product @ x.to(C128)
            close(layer(x), y.real if real else y)


def test_copies_are_products_of_their_own():
    layer, x = Butterfly(8, copies=3, input_order=random_order(8)), gaussian(8, 5, seed=1)
    each = gaussian(3, 8, 5, seed=2)
    for copy_, blocks in enumerate(layer.blocks.data):
        single = holding(blocks, input_order=random_order(8))
        close(layer(x)[copy_], single(x))
        close(layer(each)[copy_], single(each[copy_]))  # an x of its own for each copy
        close(layer.matrix()[copy_], single.matrix())
        close(layer.factor(2)[copy_], single.factor(2))
        both = normalised(layer.blocks.detach(), layer.strides)
        close(both[copy_], normalised(single.blocks.detach(), single.strides))


def test_the_start_is_unitary_and_comes_from_the_seed():
    state = torch.get_rng_state()
    matrix, again, other = (Butterfly(32, seed=seed).matrix() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    assert torch.equal(matrix, again)
    assert not torch.equal(matrix, other)
    close(matrix @ matrix.mH, torch.eye(32, dtype=C128))
    assert matrix.abs().min() > 0  # every input reaches every output


CONVERSIONS = {
    "to(float32)": lambda layer: layer.to(torch.float32),
    "float()": lambda layer: layer.float(),
    "to(device, float32)": lambda layer: layer.to("cpu", torch.float32),
}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
def test_single_precision_keeps_the_blocks_complex(convert):
    double = Butterfly(16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = convert(copy.deepcopy(double))
    assert layer.blocks.requires_grad
    assert (
        layer.blocks.dtype
        == layer.matrix().dtype
        == layer(torch.ones(16, 2)).dtype
        == torch.complex64
    )
    close(layer.matrix().to(C128), double.matrix(), 1e-6)
    assert layer.double().blocks.dtype == C128
    assert Butterfly(16, real=True).float()(torch.ones(16, 2)).dtype == torch.float32


def test_other_moves_of_the_blocks():
    layer = Butterfly(8, input_order=bit_reversal(8))
    expected = layer.matrix()
    assert torch.equal(layer.cpu().share_memory().to(torch.complex128).matrix(), expected)
    with pytest.raises(RuntimeError, match="half, float and double"):
        copy.deepcopy(layer).bfloat16()
    # "meta" is the device that every machine has: a constant made on the CPU would raise.
    layer.to("meta")
    for result in (layer(torch.ones(8, 2, device="meta")), layer.matrix(), layer.factor(0)):
        assert result.device.type == "meta"


# The transforms and their exact factors


@pytest.mark.parametrize("n", SMALL)
def test_cooley_tukey_after_a_bit_reversal_is_the_fft(n):
    fft, x = holding(cooley_tukey(n), input_order=bit_reversal(n)), complex_gaussian(n, 3)
    close(fft(x), torch.fft.fft(x, dim=0, norm="ortho"))
    close(fft(x[:, 0]), torch.fft.fft(x[:, 0], norm="ortho"))


@pytest.mark.parametrize("n", SMALL)
def test_one_block_everywhere_is_scipys_hadamard_matrix(n):
    block = torch.tensor([[1, 1], [1, -1]], dtype=C128) / math.sqrt(2)
    layer = holding(block.expand_as(cooley_tukey(n)), real=True)
    close(layer.matrix(), torch.tensor(scipy.linalg.hadamard(n) / math.sqrt(n)))


@pytest.mark.parametrize("n", SMALL)
def test_a_phase_away_from_the_fft_is_scipys_cosine_transform(n):
    """Makhoul 1980: even places in order, then the odd ones backwards."""
    order = torch.cat([torch.arange(0, n, 2), torch.arange(1, n, 2).flip(0)])
    size = torch.full((n,), math.sqrt(2), dtype=torch.float64)
    size[0] = 1
    phase = torch.polar(size, -math.pi * torch.arange(n, dtype=torch.float64) / (2 * n))
    blocks = cooley_tukey(n)
    # The last factor's rows i and i + n/2 are those of block i.
    blocks[-1] *= phase.unflatten(0, (2, -1)).T[..., None]
    layer = holding(blocks, input_order=order[bit_reversal(n)], real=True)
    close(layer.matrix(), torch.from_numpy(scipy.fft.dct(np.eye(n), norm="ortho", axis=0)))


@pytest.mark.parametrize("n", SMALL)
def test_two_ffts_with_a_diagonal_between_are_a_circular_convolution(n):
    """C = Fᴴ diag(λ) F with F = B P. P is its own inverse, so Fᴴ = P Bᴴ: the factors backwards."""
    kernel = gaussian(n, seed=9)
    there = cooley_tukey(n)
    back = there.flip(0).mH.clone()
    back[0] *= torch.fft.fft(kernel.to(C128)).unflatten(0, (2, -1)).T[:, None, :]
    strides = [2**level for level in range(n.bit_length() - 1)]
    form = {"input_order": bit_reversal(n), "output_order": bit_reversal(n), "real": True}
    layer = holding(torch.cat([there, back]), strides=strides + strides[::-1], **form)
    close(layer.matrix(), torch.from_numpy(scipy.linalg.circulant(kernel)))


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


@pytest.mark.parametrize(
    ("n", "strides"), [(2, None), (4, None), (16, None), (8, (1, 2, 4, 4, 2, 1))]
)
def test_normalised_is_the_same_product_with_ones_in_front_whatever_the_scalings(n, strides):
    layer = Butterfly(n, strides=strides, seed=4)
    expected = normalised(layer.blocks.detach(), layer.strides)
    close(holding(expected, strides=strides).matrix(), layer.matrix())
    close(expected[:-1, ..., 0], torch.ones_like(expected[:-1, ..., 0]))
    for seed in range(3):
        blocks = rescaled(layer, seed)
        assert n == 2 or (blocks - layer.blocks).abs().max() > 0.1
        close(holding(blocks, strides=strides).matrix(), layer.matrix())
        close(normalised(blocks, layer.strides), expected, 1e-10)


# What no product can hold


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_the_bound_of_matrices_counted_by_hand(scale):
    # Rows 0 and 2 of the first two columns hold 1 and ½ in two directions, so ½ is lost.
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix[0, 0], matrix[2, 1] = 1.0, 0.5
    bound = rank_one_bound(scale * matrix, torch.arange(4))
    assert bound == pytest.approx(0.5 / math.sqrt(1.25))
    # In the order of its inputs every 2×2 part of the DFT is orthogonal, so half of it is lost.
    assert rank_one_bound(scale * unitary_dft(4), torch.arange(4)) == pytest.approx(math.sqrt(0.5))
    assert rank_one_bound(0 * matrix, torch.arange(4)) == 0


@pytest.mark.parametrize("n", SMALL)
def test_no_product_is_bounded_and_none_comes_closer_than_the_bound(n):
    order = random_order(n, seed=n)
    layer = Butterfly(n, input_order=order, copies=10)
    layer.blocks.data = complex_gaussian(*layer.blocks.shape, seed=1)
    products = layer.matrix().detach()
    assert rank_one_bound(products[0], order) < 1e-12
    assert rank_one_bound(unitary_dft(n), bit_reversal(n)) < 1e-12
    matrix = complex_gaussian(n, n, seed=2)
    bound = rank_one_bound(matrix, order) * float(matrix.norm()) / n
    # The best multiple of each random product.
    gain = (products.conj() * matrix).sum((1, 2)) / products.abs().square().sum((1, 2))
    errors = (gain[:, None, None] * products - matrix).abs().square().mean((1, 2)).sqrt()
    assert errors.min() >= bound - 1e-12


# Factorization without training


def product_of(n, seed=0):
    """A product of complex Gaussian blocks, in the order of its places."""
    return holding(complex_gaussian(n.bit_length() - 1, n // 2, 2, 2, seed=seed)).matrix().detach()


TRUSTED = {
    "DFT": (unitary_dft, {"columns": "bit reversal"}),
    "inverse DFT": (
        lambda n: torch.fft.ifft(torch.eye(n, dtype=C128)),
        {"columns": "bit reversal"},
    ),
    "Hadamard": (lambda n: torch.tensor(scipy.linalg.hadamard(n)), {}),
    "any product": (product_of, {}),
    "zero": (lambda n: torch.zeros(n, n), {}),
    "identity": (lambda n: torch.eye(n).double(), {}),
    "rank one": (lambda n: torch.outer(gaussian(n, seed=1), gaussian(n, seed=2)), {}),
    "upper half": (lambda n: product_of(n) * (torch.arange(n) < n // 2)[:, None], {}),
}


@pytest.mark.parametrize("n", [*SMALL, 128])
@pytest.mark.parametrize("name", TRUSTED)
def test_a_transform_is_factorized_to_rounding(name, n):
    make, order = TRUSTED[name]
    matrix = make(n)
    found = factorize(matrix, **order)
    assert found.strides == tuple(2**level for level in range(n.bit_length() - 1))
    assert found.error < 1e-13
    assert found.matrix().is_complex() == matrix.is_complex()
    dense = matrix.to(found.matrix().dtype)
    close(found.matrix(), dense, 1e-13 * max(1, float(dense.abs().max()) * n))
    x = gaussian(n, seed=3)
    close(found(x), dense @ x.to(dense.dtype), 1e-12 * max(1, float(dense.norm())))


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_the_scale_of_a_matrix_does_not_matter(scale):
    found = factorize(scale * unitary_dft(16), columns="bit reversal")
    assert found.error < 1e-14
    close(found.matrix() / scale, unitary_dft(16))


@pytest.mark.parametrize("make", [unitary_dft, product_of, TRUSTED["Hadamard"][0]])
@pytest.mark.parametrize("n", SMALL)
def test_shuffled_places_are_put_back(n, make):
    matrix, known = make(n), "bit reversal" if make is unitary_dft else "as given"
    for seed in range(3):
        columns, rows = orders(n, 2, seed=seed, stream="shuffle")
        cases = {
            ("search", "as given"): matrix[:, columns],
            (known, "search"): matrix[rows],
            ("search", "search"): matrix[rows][:, columns],
            ("search", "bit reversal"): matrix[bit_reversal(n)][:, columns],
        }
        for (of_columns, of_rows), shuffled in cases.items():
            found = factorize(shuffled, columns=of_columns, rows=of_rows)
            assert found.error < 1e-13
            close(found.matrix(), shuffled.to(found.matrix().dtype), 1e-10)


def test_a_search_takes_noise():
    """Half of the noise would already be too much for a search that asks for parallel columns to rounding."""
    noise = complex_gaussian(64, 64, seed=1)
    columns, rows = orders(64, 2, seed=1)
    noisy = unitary_dft(64)[rows][:, columns] + 0.2 * 8 * noise / noise.norm()
    assert factorize(noisy, columns="search", rows="search").error < 0.2


def test_noise_is_left_by_its_degrees_of_freedom():
    """Of n² numbers a product keeps those along its n(L + 1) free ones: √((L + 1)/n) of the noise."""
    n, share = 64, math.sqrt(7 / 64)
    for size in (1e-6, 0.1):
        left = []
        for seed in range(5):
            noise = complex_gaussian(n, n, seed=seed)
            noisy = unitary_dft(n) + size * noise / noise.norm() * math.sqrt(n)
            found = factorize(noisy, columns="bit reversal")
            left.append(float((found.matrix() - unitary_dft(n)).norm()) / math.sqrt(n))
            assert rank_one_bound(noisy, bit_reversal(n)) <= found.error <= size
        assert np.mean(left) == pytest.approx(share * size, rel=0.02)


def lost_by_level(matrix):
    """Σσ₂² + σ₃² + … of the parts of each level, relative to the whole; numpy's singular values."""
    n, parts = len(matrix), matrix.numpy()
    for level in range(1, n.bit_length() - 1):
        s, q = 2**level, n // 2**level
        tails = [
            np.linalg.svd(parts[r::s, c * s : (c + 1) * s], compute_uv=False)[1:]
            for r in range(s)
            for c in range(q)
        ]
        yield sum((tail**2).sum() for tail in tails) / np.square(np.abs(parts)).sum()


KINDS = {
    "Gaussian": lambda n, seed: gaussian(n, n, seed=seed),
    "wild": lambda n, seed: torch.exp(3 * gaussian(n, n, seed=seed)),
    "rank two": lambda n, seed: gaussian(n, 2, seed=seed) @ gaussian(2, n, seed=seed + 1),
    "orthogonal": lambda n, seed: signed_qr(gaussian(n, n, seed=seed)),
    "near a product": lambda n, seed: (
        product_of(n, seed) / product_of(n, seed).norm() + complex_gaussian(n, n, seed=seed) / n / 3
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [4, 8, 16, 32])
def test_the_error_lies_between_the_certificate_and_the_losses_of_all_levels(n, kind):
    for seed in range(8):
        matrix = KINDS[kind](n, seed)
        lost = list(lost_by_level(matrix))
        bound = rank_one_bound(matrix, torch.arange(n))
        assert bound == pytest.approx(math.sqrt(max(lost)), rel=1e-9)
        found = factorize(matrix)
        assert bound - 1e-12 <= found.error <= math.sqrt(sum(lost)) + 1e-12
        distance = (found.matrix() - matrix).norm() / matrix.norm()
        assert found.error == pytest.approx(float(distance), rel=1e-9)


def test_a_random_orthogonal_matrix_is_refuted():
    matrix = signed_qr(gaussian(64, 64, seed=1))
    for columns in ("as given", "bit reversal", "search"):
        found = factorize(matrix, columns=columns)
        assert found.error >= rank_one_bound(matrix, found.input_order) > 0.7
