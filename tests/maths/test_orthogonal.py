"""QR with signs: what it promises, against matrices known by hand and against LAPACK's."""

import pytest
import torch

from helpers.maths import gaussian, signed_qr

F64 = torch.float64


def defect(Q: torch.Tensor) -> float:
    """max |QᵀQ − I|."""
    return float((Q.mT @ Q - torch.eye(Q.shape[-1], dtype=Q.dtype)).abs().max())


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (7, 3), (6, 1), (2, 3, 6, 4), (3, 4, 4)])
def test_columns_are_orthonormal_and_gradients_flow(shape):
    raw = gaussian(*shape, seed=7)
    Q = signed_qr(raw)
    assert Q.shape == shape
    assert defect(Q) < 1e-13
    assert torch.autograd.gradcheck(signed_qr, raw.requires_grad_())


@pytest.mark.parametrize("scale", [1e-300, 1e-100, 1e3])
def test_columns_are_orthonormal_for_badly_scaled_input(scale):
    assert defect(signed_qr(scale * gaussian(6, 6, seed=0))) < 1e-12


def test_a_batch_is_mapped_one_by_one():
    raw = gaussian(3, 5, 5, seed=2)
    one_by_one = torch.stack([signed_qr(matrix) for matrix in raw])
    torch.testing.assert_close(signed_qr(raw), one_by_one, atol=1e-13, rtol=0)
    torch.testing.assert_close(torch.vmap(signed_qr)(raw), one_by_one, atol=1e-13, rtol=0)


def test_float32_stays_float32_even_in_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Q = signed_qr(gaussian(4, 4, seed=0).float())
    assert Q.dtype == torch.float32
    assert defect(Q) < 1e-5


def test_signed_qr_is_gram_schmidt():
    raw, columns = gaussian(5, 4, seed=3), []
    for column in raw.T:
        for earlier in columns:
            column = column - (earlier @ column) * earlier
        columns.append(column / column.norm())
    torch.testing.assert_close(signed_qr(raw), torch.stack(columns, 1), atol=1e-13, rtol=0)


@pytest.mark.parametrize("n", [31, 32])
def test_its_determinant_has_the_sign_of_the_inputs(n):
    raw = gaussian(50, n, n, seed=n)
    determinants = torch.linalg.det(signed_qr(raw))
    torch.testing.assert_close(determinants, torch.linalg.det(raw).sign())
    assert 10 < (determinants > 0).sum() < 40  # Gaussian input has both


def test_it_is_continuous_where_lapacks_flips():
    # The first column turns through the direction e₁, where the reflector's sign convention jumps.
    raw, step = gaussian(4, 4, seed=1), 1e-6
    below, above = raw.clone(), raw.clone()
    below[0, 0], above[0, 0] = -step, step
    lapacks = (torch.linalg.qr(above).Q - torch.linalg.qr(below).Q).abs()
    ours = (signed_qr(above) - signed_qr(below)).abs()
    assert lapacks.max() > 0.1
    assert ours.max() < 100 * step
