"""Attention against torch's own, and the null models against what they promise."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from helpers.maths import (
    attention,
    attention_weights,
    causal_mask,
    random_attention,
    shuffle_within_rows,
    spectrum,
)

F64 = torch.float64


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("masked", [False, True])
def test_output_is_torchs(masked):
    queries, keys, values = (
        gaussian(2, 3, 6, 4),
        gaussian(2, 3, 6, 4, seed=1),
        gaussian(2, 3, 6, 5, seed=2),
    )
    mask = causal_mask(6) if masked else None
    expected = scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    torch.testing.assert_close(
        attention(queries, keys, values, mask=mask), expected, atol=1e-12, rtol=0
    )


def test_weights_by_hand():
    queries, keys = (
        torch.tensor([[1.0, 1.0]], dtype=F64),
        torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=F64),
    )
    odds = torch.tensor(2 / 2**0.5, dtype=F64).exp()  # the logit is q·k/√d = 2/√2
    expected = torch.stack([1 / (1 + odds), odds / (1 + odds)])[None]
    torch.testing.assert_close(attention_weights(queries, keys), expected, atol=1e-15, rtol=0)
    unscaled = torch.tensor([0.0, 2.0], dtype=F64).softmax(0)[None]
    torch.testing.assert_close(
        attention_weights(queries, keys, scale=1.0), unscaled, atol=1e-15, rtol=0
    )


def test_rows_sum_to_one_and_extremes_do_not_overflow():
    weights = attention_weights(1e4 * gaussian(5, 3), gaussian(7, 3, seed=1))
    assert weights.shape == (5, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, dtype=F64), atol=1e-12, rtol=0)


def test_causal_weights_are_lower_triangular_and_of_full_rank():
    weights = random_attention(20, 8, causal=True)[0]
    assert (weights.triu(1) == 0).all()
    assert (weights.diagonal() > 0).all()
    assert torch.linalg.matrix_rank(weights) == 20


def test_one_mask_row_serves_all_queries():
    mask = torch.tensor([[True, False, True]])
    weights = attention_weights(gaussian(4, 2), gaussian(3, 2, seed=1), mask=mask)
    assert (weights[:, 1] == 0).all()


def test_mask_may_add_batch_dimensions():
    mask = torch.stack([causal_mask(4), torch.ones(4, 4, dtype=torch.bool)])
    weights = attention_weights(gaussian(4, 2), gaussian(4, 2, seed=1), mask=mask)
    assert weights.shape == (2, 4, 4)
    torch.testing.assert_close(
        weights[1], attention_weights(gaussian(4, 2), gaussian(4, 2, seed=1))
    )


def test_gradients_flow():
    inputs = (gaussian(4, 3).requires_grad_(), gaussian(4, 3, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(
        lambda q, k: attention_weights(q, k, mask=causal_mask(4)), inputs
    )


def test_random_attention_is_seeded_and_leaves_the_global_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (random_attention(6, 2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_temperature_divides_the_logits():
    warm, cold = (random_attention(6, 2, temperature=t, seed=1)[0].log() for t in (2.0, 1.0))
    gaps = [
        logs - logs[:, :1] for logs in (warm, cold)
    ]  # differences within a row forget the normaliser
    torch.testing.assert_close(2 * gaps[0], gaps[1], atol=1e-10, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
def test_shuffling_keeps_each_row_and_changes_the_matrix(causal):
    weights = random_attention(30, 4, causal=causal, samples=2, seed=3)
    shuffled = shuffle_within_rows(weights, seed=0, causal=causal)
    assert torch.equal(shuffled.sort(-1).values, weights.sort(-1).values)
    assert not torch.allclose(spectrum(shuffled).singular_values, spectrum(weights).singular_values)
    if causal:
        assert (shuffled.triu(1) == 0).all()


def test_rows_are_shuffled_independently():
    weights = torch.arange(50, dtype=F64).softmax(0).expand(50, 50)
    first, second = shuffle_within_rows(weights, seed=0)[:2]
    assert not torch.equal(first, second)
