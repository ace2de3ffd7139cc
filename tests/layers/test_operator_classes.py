"""Which class explains the pairs: members against trusted solvers, and planted classes that must win."""

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch

from helpers.data import cases
from helpers.layers import attend, explain, fit_low_rank, fit_query_key, fit_span, members
from helpers.maths import attention_weights, gaussian, orders

OWN = {  # class → pairs that one of its members made
    "low rank": lambda **options: cases.low_rank(n=32, **options),
    "Toeplitz": lambda **options: cases.convolution(**options),
    "circulant": lambda **options: cases.convolution(circular=True, **options),
    "transform": lambda **options: cases.fourier(**options),
    "attention": lambda **options: cases.attention(**options),
}


def errors(inputs, outputs, clean=None):
    return {name: found.error for name, found in explain(inputs, outputs, clean).items()}


@pytest.mark.parametrize("name", OWN)
def test_a_planted_class_explains_its_pairs_at_its_price_and_no_other_does(name):
    case = OWN[name](samples=64, noise=0.1, seed=1)
    found = errors(case.inputs, case.outputs, case.clean)
    assert min(found, key=found.get) == name
    assert sorted(found.values())[1] > 1.5 * found[name]
    # Against the noisy outputs nothing is nearer than the noise.
    assert errors(case.inputs, case.outputs)[name] == pytest.approx(0.1, rel=0.15)


def test_attention_in_another_order_of_the_tokens_is_explained_by_nothing():
    case = cases.attention(samples=64, seed=1)
    rows = orders(32, seed=5)
    assert min(errors(case.inputs, case.outputs[:, rows], case.clean[:, rows]).values()) > 0.9


def test_of_a_gaussian_operator_only_the_dense_class_makes_something():
    case = cases.random_operator(samples=64)
    found = errors(case.inputs, case.outputs, case.clean)
    dense = found.pop("dense")
    assert dense < 0.1 < 0.7 < min(found.values())


def test_prices_and_the_cap():
    case = cases.random_operator(n=16, samples=8)
    prices = {name: sorted(sizes) for name, sizes in members(case.inputs, case.outputs).items()}
    assert prices == {
        "low rank": [31, 60],
        "Toeplitz": [1, 3, 5, 9, 17, 31],
        "circulant": [1, 3, 5, 9, 16],
        "transform": [16],
        "attention": [15, 28, 48, 64],
        "dense": [256],
    }


def test_members_are_what_their_classes_say():
    case = cases.random_operator(n=16, samples=8)
    found, eye = members(case.inputs, case.outputs), torch.eye(16, dtype=torch.float64)
    taps, circle = (found[name][5](eye) for name in ("Toeplitz", "circulant"))
    x = gaussian(16, seed=3).numpy()
    middle = taps[:, 8].numpy()[6:11]
    np.testing.assert_allclose(taps.numpy() @ x, scipy.signal.convolve(x, middle, "same"))
    np.testing.assert_allclose(circle, scipy.linalg.circulant(circle[:, 0]))
    assert int((circle[:, 0].abs() > 1e-12).sum()) == 5
    assert torch.linalg.matrix_rank(found["low rank"][60](eye)) == 2
    rows = found["transform"][16](eye)
    torch.testing.assert_close(
        rows @ rows.mT, torch.diag(rows.square().sum(1))
    )  # diag(g) times orthogonal


def test_a_span_and_a_rank_are_fitted_as_by_numpy():
    X, Y = gaussian(2, 8, 30, seed=0)
    basis = gaussian(3, 8, 8, seed=1)
    columns = (basis @ X).flatten(1).T.numpy()
    c = np.linalg.lstsq(columns, Y.flatten().numpy(), rcond=None)[0]
    np.testing.assert_allclose(fit_span(basis, X, Y), np.tensordot(c, basis.numpy(), 1))
    dense = np.linalg.lstsq(X.T.numpy(), Y.T.numpy(), rcond=None)[0].T
    np.testing.assert_allclose(fit_low_rank(8, X, Y), dense, atol=1e-12)
    # Rank r adds to the squared residual what it cuts from the spectrum of the predictions.
    added = np.linalg.svd(dense @ X.numpy(), compute_uv=False)[2:]
    cut = fit_low_rank(2, X, Y)
    assert torch.linalg.matrix_rank(cut) == 2
    residual, least = (float((Y - torch.as_tensor(T) @ X).square().sum()) for T in (cut, dense))
    assert residual == pytest.approx(least + (added**2).sum())


def test_a_query_key_matrix_is_found_and_strangers_find_none():
    case = cases.attention(samples=16, noise=0.0, seed=2)
    W = case.query_key
    torch.testing.assert_close(attend(case.inputs, W), case.clean)
    torch.testing.assert_close(
        attend(case.inputs, W),
        attention_weights(case.inputs @ W, case.inputs, scale=1.0) @ case.inputs,
    )
    torch.testing.assert_close(
        fit_query_key(case.inputs, case.clean, steps=8), W, atol=1e-8, rtol=0
    )
    stranger = fit_query_key(case.inputs, case.clean.roll(1, 0))
    assert (stranger - W).norm() > 0.9 * W.norm()


def test_pairs_of_vectors_and_of_single_precision_are_welcome():
    case = cases.convolution(n=12, samples=16, noise=0.0)
    x, y = (part.mT.flatten(0, 1)[:, :, None].float() for part in (case.inputs, case.outputs))
    found = explain(x, y)
    assert found["Toeplitz"].error < 1e-6 < found["circulant"].error


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        (
            torch.ones(8, 8, 2),
            torch.ones(8, 8, 1),
            r"^inputs and outputs must have one shape .*\(8, 8, 1\)",
        ),
        (
            torch.ones(8, 4, 2),
            torch.ones(8, 4, 2),
            r"^inputs and outputs must have one shape .*n ≥ 8",
        ),
        (torch.ones(3, 8, 2), torch.ones(3, 8, 2), r"^inputs must have four samples"),
        (torch.ones(8, 8, 2), torch.zeros(8, 8, 2), r"^outputs must not be all zero"),
        (torch.ones(8, 8), torch.ones(8, 8), r"^inputs must have 3 dimensions"),
        (torch.ones(8, 8, 2), torch.ones(8, 8, 2) / 0, r"^outputs must be finite"),
    ],
)
def test_pairs_that_cannot_be_explained(inputs, outputs, said):
    with pytest.raises(ValueError, match=said):
        explain(inputs, outputs)
