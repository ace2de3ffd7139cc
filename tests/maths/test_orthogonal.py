"""The maps to orthonormal columns: what each promises, against matrices known by hand."""

import math

import pytest
import torch

from helpers.maths import MAPS, cayley, gaussian, lapack_qr, signed_qr

F64 = torch.float64
SHAPES = [(1, 1), (5, 5), (7, 3), (6, 1), (2, 3, 6, 4), (3, 4, 4)]
EVERY_MAP_AND_SHAPE = [
    (name, shape) for name in MAPS for shape in SHAPES if name != "cayley" or shape[-1] == shape[-2]
]


def normal(*shape, seed=0):
    return gaussian(*shape, seed=seed)


def rotation(angle: float) -> torch.Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=F64)


def defect(Q: torch.Tensor) -> float:
    """max |QᵀQ − I|."""
    return float((Q.mT @ Q - torch.eye(Q.shape[-1], dtype=Q.dtype)).abs().max())


@pytest.mark.parametrize(("name", "shape"), EVERY_MAP_AND_SHAPE)
def test_columns_are_orthonormal_and_gradients_flow(name, shape):
    raw = normal(*shape, seed=7)
    Q = MAPS[name](raw)
    assert Q.shape == shape
    assert defect(Q) < 1e-13
    assert torch.autograd.gradcheck(MAPS[name], raw.requires_grad_())


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("scale", [1e-300, 1e-100, 1e3])
def test_columns_are_orthonormal_for_badly_scaled_input(name, scale):
    assert defect(MAPS[name](scale * normal(6, 6))) < 1e-12


@pytest.mark.parametrize("name", MAPS)
def test_a_batch_is_mapped_one_by_one(name):
    raw = normal(3, 5, 5, seed=2)
    one_by_one = torch.stack([MAPS[name](matrix) for matrix in raw])
    torch.testing.assert_close(MAPS[name](raw), one_by_one, atol=1e-13, rtol=0)
    torch.testing.assert_close(torch.vmap(MAPS[name])(raw), one_by_one, atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", MAPS)
def test_float32_stays_float32_even_in_autocast(name):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Q = MAPS[name](normal(4, 4).float())
    assert Q.dtype == torch.float32
    assert defect(Q) < 1e-5


# QR


@pytest.mark.parametrize("map_", [lapack_qr, signed_qr])
def test_qr_spans_what_the_input_spans_column_by_column(map_):
    raw = normal(6, 4)
    R = map_(raw).mT @ raw
    torch.testing.assert_close(R, R.triu(), atol=1e-14, rtol=0)
    torch.testing.assert_close(map_(raw) @ R, raw, atol=1e-14, rtol=0)


def test_signed_qr_is_gram_schmidt():
    raw, columns = normal(5, 4, seed=3), []
    for column in raw.T:
        for earlier in columns:
            column = column - (earlier @ column) * earlier
        columns.append(column / column.norm())
    torch.testing.assert_close(signed_qr(raw), torch.stack(columns, 1), atol=1e-13, rtol=0)


@pytest.mark.parametrize(("n", "sign"), [(31, 1), (32, -1), (2, -1), (3, 1)])
def test_lapacks_determinant_has_the_sign_of_n_minus_one_reflections(n, sign):
    determinants = torch.linalg.det(lapack_qr(normal(50, n, n, seed=n)))
    torch.testing.assert_close(determinants, torch.full((50,), float(sign), dtype=F64))


@pytest.mark.parametrize("n", [31, 32])
def test_signed_qrs_determinant_has_the_sign_of_the_inputs(n):
    raw = normal(50, n, n, seed=n)
    determinants = torch.linalg.det(signed_qr(raw))
    torch.testing.assert_close(determinants, torch.linalg.det(raw).sign())
    assert 10 < (determinants > 0).sum() < 40  # Gaussian input has both


def test_signed_qr_is_continuous_where_lapacks_flips():
    # The first column turns through the direction e₁, where the reflector's sign convention jumps.
    raw, step = normal(4, 4, seed=1), 1e-6
    below, above = raw.clone(), raw.clone()
    below[0, 0], above[0, 0] = -step, step
    difference = [(map_(above) - map_(below)).abs().amax(0) for map_ in (lapack_qr, signed_qr)]
    assert difference[0].max() > 0.1
    assert difference[1].max() < 100 * step


# Cayley


@pytest.mark.parametrize("n", [5, 8])
def test_the_cayley_map_gives_rotations(n):
    determinants = torch.linalg.det(cayley(3 * normal(20, n, n)))
    torch.testing.assert_close(determinants, torch.ones(20, dtype=F64))


def test_the_cayley_map_ignores_the_symmetric_part():
    raw = normal(5, 5)
    torch.testing.assert_close(cayley(raw + raw.T), torch.eye(5, dtype=F64), atol=1e-14, rtol=0)
    torch.testing.assert_close(cayley(raw + 7 * (raw + raw.T)), cayley(raw), atol=1e-13, rtol=0)
    torch.testing.assert_close(cayley(raw.T), cayley(raw).T, atol=1e-14, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 0.3, -1.2, 2.0])
def test_plane_rotations_by_hand(angle):
    # The Cayley map turns by −2 arctan a for A = [[0, −a], [a, 0]].
    generator = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64)
    turned = cayley(math.tan(angle / 2) * generator)
    torch.testing.assert_close(turned, rotation(-angle), atol=1e-14, rtol=0)
