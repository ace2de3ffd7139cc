"""The note's four targets and the cases made right: formulas in numpy, ranks, noise, seeds."""

import numpy as np
import pytest
import torch

from helpers.data import NOTE_CASES, cases, note_targets
from helpers.maths import gaussian, hartley

RANKS = {"low rank": 4, "convolution": 1, "attention": 32, "Fourier": 1}
MAKE = {
    "low rank": cases.low_rank,
    "convolution": cases.convolution,
    "circular": lambda *args, **options: cases.convolution(*args, **options, circular=True),
    "Fourier": cases.fourier,
    "control": cases.random_operator,
    "attention": cases.attention,
}
KERNELS = [(2.0,), (0.4, 1.0, 0.4), (1, 0, 0, 2, 5), (0.1, -0.2, 0.3, 0.4, 0.5)]


@pytest.mark.parametrize(("n", "seed"), [(4, 0), (20, 1), (32, 9)])
def test_targets_by_their_formulas(n, seed):
    A, B, X, noise = gaussian(4, n, n, seed=seed, stream="note targets").numpy()
    y = np.convolve(noise[0], [0.4, 1.0, 0.4], mode="same")
    weights = np.exp(X @ X.T)
    weights /= weights.sum(axis=1, keepdims=True)
    t = np.linspace(0, 2 * np.pi, n)
    s = np.sin(5 * t) + 0.5 * np.sin(11 * t)
    expected = A[:, :4] @ B[:4], np.outer(y, y), weights @ X, np.outer(s, s)
    for target, formula in zip(note_targets(seed, n).values(), expected, strict=True):
        np.testing.assert_allclose(target, formula, atol=1e-12)


def test_ranks_of_the_targets_and_what_attention_is_about():
    for seed in range(5):
        targets = note_targets(seed)
        assert tuple(targets) == NOTE_CASES
        for case, target in targets.items():
            assert np.linalg.matrix_rank(target.numpy(), tol=1e-6) == RANKS[case]
        # Unscaled attention of this size is the identity nearly: its target is its Gaussian tokens.
        tokens = gaussian(4, 32, 32, seed=seed, stream="note targets")[2]
        error = torch.linalg.matrix_norm(targets["attention"] - tokens)
        assert error < 0.05 * torch.linalg.matrix_norm(tokens)


def test_targets_follow_the_seed_and_fourier_has_none():
    state = torch.get_rng_state()
    first, again, other = note_targets(1), note_targets(1), note_targets(2)
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    for case in NOTE_CASES:
        assert torch.equal(first[case], again[case])
        assert torch.equal(first[case], other[case]) == (case == "Fourier")


# The cases made right: pairs of an operator


@pytest.mark.parametrize("name", MAKE)
def test_outputs_are_those_of_the_operator_and_noise_of_the_stated_size(name):
    case = MAKE[name](16, 64, 0.5, 1)
    assert case.inputs.shape == case.outputs.shape == case.clean.shape == (64, 16, 8)
    if name == "attention":
        W = case.query_key.numpy()
        for X, clean in zip(case.inputs.numpy(), case.clean.numpy(), strict=True):
            weights = np.exp(X @ W @ X.T)
            expected = weights @ X / weights.sum(1, keepdims=True)
            np.testing.assert_allclose(clean, expected, atol=1e-12)
        assert case.operator is None
    else:
        expected = np.einsum("ij,sjc->sic", case.operator.numpy(), case.inputs.numpy())
        np.testing.assert_allclose(case.clean, expected, atol=1e-12)
        assert case.query_key is None
    added = case.outputs - case.clean
    # 8,192 numbers: the standard deviation is within 4 % by five sigma.
    assert float(added.std() / case.clean.square().mean().sqrt()) == pytest.approx(0.5, rel=0.04)
    # It is white, and knows nothing of the inputs or the outputs: correlations of ±.011.
    for other in (case.inputs, case.clean, added.roll(1, 0), added.roll(1, 1), added.roll(1, 2)):
        assert abs(np.corrcoef(added.flatten(), other.flatten())[0, 1]) < 0.055
    assert torch.equal(MAKE[name](8, 4, 0).outputs, MAKE[name](8, 4, 0).clean)


@pytest.mark.parametrize("name", MAKE)
def test_operator_and_inputs_follow_the_seed_alone(name):
    state = torch.get_rng_state()
    first, more, other = (
        MAKE[name](8, 4, 0.1, 5),
        MAKE[name](8, 4, 0.7, 5),
        MAKE[name](8, 4, 0.1, 6),
    )
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    for part in ("inputs", "clean"):
        assert torch.equal(getattr(first, part), getattr(more, part))
        assert not torch.equal(getattr(first, part), getattr(other, part))
    assert not torch.equal(first.outputs, more.outputs)
    assert torch.equal(first.inputs, cases.fourier(8, 4, seed=5).inputs)  # the same in every case
    many = MAKE[name](8, 9, 0.1, 5)
    matrix = "query_key" if name == "attention" else "operator"
    assert torch.equal(getattr(first, matrix), getattr(many, matrix))


@pytest.mark.parametrize("name", MAKE)
def test_split_keeps_the_operator(name):
    case = MAKE[name](6, 5)
    first, rest = case.split(2)
    for part in ("inputs", "outputs", "clean"):
        whole = getattr(case, part)
        assert torch.equal(getattr(first, part), whole[:2])
        assert torch.equal(getattr(rest, part), whole[2:])
    for half in (first, rest):
        assert half.operator is case.operator
        assert half.query_key is case.query_key


def test_low_rank_operators_have_the_rank_and_leave_lengths_alone():
    operators = [cases.low_rank(8, 1, seed=seed).operator for seed in range(20)]
    assert (torch.linalg.matrix_rank(torch.stack(operators)) == cases.RANK).all()
    size = np.mean([float(operator.square().sum()) / 8 for operator in operators])
    assert size == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("kernel", [*KERNELS, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)])
def test_convolutions_are_numpys(kernel):
    padded, circular = (
        cases.convolution(9, 2, kernel=kernel, circular=joined) for joined in (False, True)
    )
    for x, y in zip(padded.inputs.mT.flatten(0, 1), padded.clean.mT.flatten(0, 1), strict=True):
        np.testing.assert_allclose(y, np.convolve(x, kernel, mode="same"), atol=1e-12)
    column = np.roll(np.pad(kernel, (0, 9 - len(kernel))), -(len(kernel) // 2))
    spectrum = np.fft.fft(circular.inputs.numpy(), axis=1) * np.fft.fft(column)[:, None]
    np.testing.assert_allclose(circular.clean, np.fft.ifft(spectrum, axis=1).real, atol=1e-12)


def test_fourier_is_hartleys_and_the_control_gaussian():
    assert torch.equal(cases.fourier(7, seed=9).operator, hartley(7))
    control = cases.random_operator(64, 1, seed=2)
    assert float(control.operator.std()) == pytest.approx(1 / 8, rel=0.05)
    assert torch.linalg.matrix_rank(control.operator) == 64


def test_sharpness_is_the_deviation_of_a_logit():
    case = cases.attention(32, 200, 0, sharpness=3.0)
    assert torch.linalg.matrix_rank(case.query_key) == cases.RANK
    logits = (case.inputs @ case.query_key @ case.inputs.mT)[:, ~torch.eye(32, dtype=torch.bool)]
    assert float(logits.std()) == pytest.approx(3, rel=0.05)
    assert float(logits.mean()) == pytest.approx(0, abs=0.1)


BAD_ARGUMENTS = [
    *(
        (name, make, bad)
        for make in MAKE.values()
        for name, values in {
            "n": (3, 0, 8.0, "8", None, True),
            "samples": (0, 2.0, None),
            "noise": (-0.1, float("nan"), float("inf"), "0.1", None),
            "seed": (-1, 0.5, None, True),
        }.items()
        for bad in values
    ),
    *(("sharpness", cases.attention, bad) for bad in (0, -0.5, float("nan"), "2", None)),
    *(("samples", lambda samples: cases.fourier(4, 4).split(samples), bad) for bad in (0, 4, None)),
    *(("seed", note_targets, bad) for bad in (-1, 0.5, None)),
    *(("n", lambda n: note_targets(0, n), bad) for bad in (3, 8.0, None, True)),
    *(
        ("kernel", cases.convolution, bad)
        for bad in (
            *((), (1.0, 2.0), (0.0, 0.0, 0.0), (1.0,) * 33, (1.0, float("nan"), 1.0)),
            *((1.0, "2", 1.0), ((1.0, 2.0, 3.0),), "abc"),
        )
    ),
]


@pytest.mark.bad_input
@pytest.mark.parametrize(("name", "make", "bad"), BAD_ARGUMENTS)
def test_wrong_arguments_are_named(name, make, bad):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must (be|have) "):
        make(**{name: bad})


@pytest.mark.parametrize("name", MAKE)
def test_the_smallest_values_are_welcome(name):
    assert MAKE[name](4, 1, 0, 0).outputs.shape == (1, 4, 8)
