"""The note's four targets and the cases made right: formulas in numpy, ranks, noise, seeds."""

import numpy as np
import pytest
import scipy.linalg
import torch

from helpers.data import NOTE_CASES, cases, note_targets
from helpers.maths import gaussian

RANKS = {"low rank": 4, "convolution": 1, "attention": 32, "Fourier": 1}


def test_there_are_four_square_targets_in_double_precision():
    targets = note_targets(0)
    assert tuple(targets) == NOTE_CASES == tuple(RANKS)
    for target in targets.values():
        assert target.shape == (32, 32)
        assert target.dtype == torch.float64


@pytest.mark.parametrize("seed", [0, 1, 9])
@pytest.mark.parametrize("n", [4, 20, 32])
def test_formulas(n, seed):
    A, B, X, noise = gaussian(4, n, n, seed=seed).numpy()
    y = np.convolve(noise[0], [0.4, 1.0, 0.4], mode="same")
    weights = np.exp(X @ X.T)
    weights /= weights.sum(axis=1, keepdims=True)
    t = np.linspace(0, 2 * np.pi, n)
    s = np.sin(5 * t) + 0.5 * np.sin(11 * t)
    expected = A[:, :4] @ B[:4], np.outer(y, y), weights @ X, np.outer(s, s)
    for target, formula in zip(note_targets(seed, n).values(), expected, strict=True):
        np.testing.assert_allclose(target, formula, atol=1e-12)


@pytest.mark.parametrize("case", NOTE_CASES)
def test_ranks(case):
    for seed in range(10):
        assert np.linalg.matrix_rank(note_targets(seed)[case].numpy(), tol=1e-6) == RANKS[case]


def test_unscaled_attention_of_this_size_is_the_identity():
    tokens = gaussian(4, 32, 32, seed=0)[2]
    weights = torch.softmax(tokens @ tokens.T, dim=-1)
    torch.testing.assert_close(weights, torch.eye(32, dtype=torch.float64), atol=0.01, rtol=0)
    # So the target "attention" is its Gaussian tokens, with nothing of attention in it.
    torch.testing.assert_close(note_targets(0)["attention"], tokens, atol=0.02, rtol=0)


def test_targets_are_a_function_of_the_seed_and_fourier_has_none():
    state = torch.get_rng_state()
    first, again, other = note_targets(1), note_targets(1), note_targets(2)
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    for case in NOTE_CASES:
        assert torch.equal(first[case], again[case])
        assert torch.equal(first[case], other[case]) == (case == "Fourier")


# The cases made right: pairs of an operator

FIXED = {
    "low rank": cases.low_rank,
    "convolution": cases.convolution,
    "circular": lambda *args, **options: cases.convolution(*args, **options, circular=True),
    "Fourier": cases.fourier,
    "control": cases.random_operator,
}
ALL = {**FIXED, "attention": cases.attention}
KERNELS = [(2.0,), (0.4, 1.0, 0.4), (1.0, 2.0, -3.0), (1, 0, 0, 2, 5), (0.1, -0.2, 0.3, 0.4, 0.5)]


@pytest.mark.parametrize("name", ALL)
def test_shapes_and_precision(name):
    assert ALL[name]().inputs.shape == (32, 32, 8)
    case = ALL[name](6, 5, 0.1, 2, width=4)
    for part in (case.inputs, case.outputs, case.clean):
        assert part.shape == (5, 6, 4)
        assert part.dtype == torch.float64
    assert case.description
    if name == "attention":
        assert case.operator is None
        assert case.query_key.shape == (4, 4)
    else:
        assert case.operator.shape == (6, 6)
        assert case.operator.dtype == torch.float64
        assert case.query_key is None


@pytest.mark.parametrize("name", ALL)
def test_sizes_at_their_smallest(name):
    options = {"rank": 1} if name in ("low rank", "attention") else {}
    case = ALL[name](4, 1, 0, 0, width=1, **options)
    assert case.outputs.shape == (1, 4, 1)


@pytest.mark.parametrize("name", FIXED)
def test_clean_outputs_are_the_operator_times_the_inputs(name):
    case = FIXED[name](7, 3, 0.3, 1)
    expected = np.einsum("ij,sjc->sic", case.operator.numpy(), case.inputs.numpy())
    np.testing.assert_allclose(case.clean, expected, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_without_noise_outputs_are_clean(name):
    case = ALL[name](8, 4, 0)
    assert torch.equal(case.outputs, case.clean)


@pytest.mark.parametrize("noise", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("name", ALL)
def test_noise_is_relative_to_the_root_mean_square(name, noise):
    case = ALL[name](32, 64, noise, 1)
    added = case.outputs - case.clean
    level = added.std() / case.clean.square().mean().sqrt()
    assert float(level) == pytest.approx(noise, rel=0.03)  # 16,384 numbers: ±0.6 %
    assert abs(float(added.mean() / added.std())) < 0.03
    # It is white, and knows nothing of the inputs or the outputs.
    for other in (case.inputs, case.clean, added.roll(1, 0), added.roll(1, 1), added.roll(1, 2)):
        assert abs(np.corrcoef(added.flatten(), other.flatten())[0, 1]) < 0.04


def test_inputs_are_standard_normal_and_the_same_in_every_case():
    inputs = cases.low_rank(32, 64, seed=3).inputs
    assert float(inputs.mean()) == pytest.approx(0, abs=0.03)
    assert float(inputs.std()) == pytest.approx(1, abs=0.03)
    for case in ALL.values():
        assert torch.equal(case(32, 64, seed=3).inputs, inputs)


@pytest.mark.parametrize("name", ALL)
def test_operator_and_inputs_depend_on_the_seed_alone(name):
    case, more = ALL[name](8, 4, 0.1, 5), ALL[name](8, 9, 0.7, 5)
    if name == "attention":
        assert torch.equal(case.query_key, more.query_key)
    else:
        assert torch.equal(case.operator, more.operator)
    assert torch.equal(case.inputs, ALL[name](8, 4, 0.9, 5).inputs)


@pytest.mark.parametrize("name", ALL)
def test_a_case_is_a_function_of_its_seed(name):
    state = torch.get_rng_state()
    first, again, other = (ALL[name](8, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    for part in ("inputs", "outputs"):
        assert torch.equal(getattr(first, part), getattr(again, part))
        assert not torch.equal(getattr(first, part), getattr(other, part))


@pytest.mark.parametrize("name", ALL)
def test_split(name):
    case = ALL[name](6, 5)
    first, rest = case.split(2)
    for part in ("inputs", "outputs", "clean"):
        whole = getattr(case, part)
        assert torch.equal(getattr(first, part), whole[:2])
        assert torch.equal(getattr(rest, part), whole[2:])
    for half in (first, rest):
        assert half.operator is case.operator
        assert half.query_key is case.query_key
        assert half.description == case.description


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_low_rank(rank):
    size = []
    for seed in range(20):
        operator = cases.low_rank(8, 1, seed=seed, rank=rank).operator
        assert np.linalg.matrix_rank(operator.numpy(), tol=1e-9) == rank
        size.append(float(operator.square().sum()) / 8)
    # Entries of variance 1/n, so that outputs are as large as inputs.
    assert np.mean(size) == pytest.approx(1, abs=0.4)
    A, B = gaussian(2, 8, rank, seed=7).numpy()
    expected = A @ B.T / np.sqrt(8 * rank)
    np.testing.assert_allclose(cases.low_rank(8, seed=7, rank=rank).operator, expected, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_zero_padded_convolution(kernel):
    case = cases.convolution(9, 2, width=3, kernel=kernel)
    for x, y in zip(case.inputs.mT.flatten(0, 1), case.clean.mT.flatten(0, 1), strict=True):
        np.testing.assert_allclose(y, np.convolve(x, kernel, mode="same"), atol=1e-12)
    middle = len(kernel) // 2
    column, row = np.zeros((2, 9))
    column[: middle + 1] = kernel[middle:]
    row[: middle + 1] = kernel[middle::-1]
    assert np.array_equal(case.operator, scipy.linalg.toeplitz(column, row))


@pytest.mark.parametrize("kernel", KERNELS)
def test_circular_convolution(kernel):
    case = cases.convolution(9, 2, width=3, kernel=kernel, circular=True)
    column = np.zeros(9)
    column[: len(kernel)] = kernel
    column = np.roll(column, -(len(kernel) // 2))
    assert np.array_equal(case.operator, scipy.linalg.circulant(column))
    spectrum = np.fft.fft(case.inputs.numpy(), axis=1) * np.fft.fft(column)[:, None]
    np.testing.assert_allclose(case.clean, np.fft.ifft(spectrum, axis=1).real, atol=1e-12)


@pytest.mark.parametrize("circular", [False, True])
def test_a_kernel_as_long_as_the_signal(circular):
    kernel = (1.0, 2.0, 3.0, 4.0, 5.0)
    operator = cases.convolution(5, kernel=kernel, circular=circular).operator.numpy()
    impulse = np.array([0.0, 0.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(operator @ impulse, kernel)
    assert operator[0, 4] == (4.0 if circular else 0.0)


@pytest.mark.parametrize("n", [4, 7, 32])
def test_hartley(n):
    H = cases.fourier(n).operator.numpy()
    F = np.fft.fft(np.eye(n), norm="ortho")
    np.testing.assert_allclose(H, F.real - F.imag, atol=1e-13)
    np.testing.assert_allclose(H, H.T, atol=1e-14)
    np.testing.assert_allclose(H @ H, np.eye(n), atol=1e-13)
    assert torch.equal(cases.hartley(n), cases.fourier(n, seed=9).operator)


def test_hartley_of_a_long_signal_loses_no_digits():
    F = np.fft.fft(np.eye(1000), norm="ortho")
    np.testing.assert_allclose(cases.hartley(1000), F.real - F.imag, atol=1e-14)


def test_random_operator_is_gaussian_and_full():
    operator = cases.random_operator(64, 1, seed=2).operator
    assert float(operator.std()) == pytest.approx(1 / 8, rel=0.05)
    assert float(operator.mean()) == pytest.approx(0, abs=0.01)
    assert np.linalg.matrix_rank(operator.numpy()) == 64


def test_operator_and_inputs_are_drawn_independently():
    case = cases.random_operator(32, 4)
    entries, inputs = case.operator.flatten().numpy(), case.inputs.flatten()[:1024].numpy()
    assert abs(np.corrcoef(entries, inputs)[0, 1]) < 0.1


@pytest.mark.parametrize("sharpness", [0.5, 2.0])
def test_attention_is_a_softmax_of_its_inputs(sharpness):
    case = cases.attention(5, 3, 0.2, 4, width=3, rank=2, sharpness=sharpness)
    W = case.query_key.numpy()
    assert np.linalg.norm(W) == pytest.approx(sharpness)
    assert np.linalg.matrix_rank(W, tol=1e-9) == 2
    for X, clean in zip(case.inputs.numpy(), case.clean.numpy(), strict=True):
        for i in range(5):
            weights = np.exp([X[i] @ W @ X[j] for j in range(5)])
            np.testing.assert_allclose(clean[i], weights @ X / weights.sum(), atol=1e-12)


def test_sharpness_is_the_deviation_of_a_logit():
    case = cases.attention(32, 200, 0, sharpness=3.0)
    logits = case.inputs @ case.query_key @ case.inputs.mT
    others = ~torch.eye(32, dtype=torch.bool)
    assert float(logits[:, others].std()) == pytest.approx(3, rel=0.03)
    assert float(logits[:, others].mean()) == pytest.approx(0, abs=0.1)


def test_rank_of_the_query_key_matrix():
    for rank in (1, 3, 8):
        W = cases.attention(4, 1, rank=rank).query_key.numpy()
        assert np.linalg.matrix_rank(W, tol=1e-9) == rank
    narrow = cases.attention(4, 1, sharpness=1.0, rank=1).query_key
    assert torch.allclose(2 * narrow, cases.attention(4, 1, sharpness=2.0, rank=1).query_key)


def test_every_case_says_what_it_is():
    makes = (
        cases.low_rank,
        cases.convolution,
        cases.fourier,
        cases.attention,
        cases.random_operator,
    )
    said = [make(4, 1).description for make in makes]
    assert said == [
        "low rank: T = AB of rank 4",
        "zero-padded convolution by (0.4, 1.0, 0.4)",
        "Fourier: T = H, Hartley's transform",
        "attention: T(X) = softmax(X W Xᵀ), W of rank 4",
        "control: Gaussian T",
    ]
    assert cases.convolution(4, 1, circular=True).description.startswith("circular convolution by")
