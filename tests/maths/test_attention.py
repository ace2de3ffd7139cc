"""Attention against torch's own, and the null models against what they promise."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from helpers.maths import (
    attention,
    attention_part,
    attention_weights,
    causal_mask,
    combine,
    gaussian,
    random_attention,
    shuffle_within_rows,
    spectrum,
)

F64 = torch.float64


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize(
    "mask",
    [
        None,
        causal_mask(6),
        torch.tensor([[True, False, True, True, False, True]]),  # one row serves all queries
        torch.stack([causal_mask(6), causal_mask(6).T]).unsqueeze(1),  # one mask for each batch
    ],
)
def test_output_is_torchs(mask, scale):
    queries, keys = gaussian(2, 2, 3, 6, 4, seed=0)
    values = gaussian(2, 3, 6, 5, seed=1)
    expected = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    output = attention(queries, keys, values, mask=mask, scale=scale)
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=0)


def test_weights_by_hand():
    queries = torch.tensor([[1.0, 1.0]], dtype=F64)
    keys = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=F64)
    odds = torch.tensor(2 / 2**0.5, dtype=F64).exp()  # the logit is q·k/√d = 2/√2
    expected = torch.stack([1 / (1 + odds), odds / (1 + odds)])[None]
    torch.testing.assert_close(attention_weights(queries, keys), expected, atol=1e-15, rtol=0)


def test_rows_sum_to_one_and_saturated_ones_do_not_overflow():
    weights = attention_weights(1e4 * gaussian(5, 3, seed=0), gaussian(7, 3, seed=1))
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, dtype=F64), atol=1e-12, rtol=0)


def test_causal_weights_are_lower_triangular_and_of_full_rank():
    weights = random_attention(20, 8, causal=True)[0]
    assert torch.equal(weights, weights.tril())
    assert torch.linalg.matrix_rank(weights) == 20


def test_gradients_flow():
    inputs = tuple(part.requires_grad_() for part in gaussian(2, 4, 3, seed=0))
    mask = causal_mask(4)
    assert torch.autograd.gradcheck(lambda q, k: attention_weights(q, k, mask=mask), inputs)


def test_autocast_does_not_lower_the_precision():
    queries, keys, values = gaussian(3, 16, 8, seed=0).float()
    expected = attention(queries, keys, values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attention(queries, keys, values), expected)
        assert (queries @ keys.T).dtype == torch.bfloat16  # so autocast is at work


def test_random_attention_follows_its_seed_and_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    first, again, other = (random_attention(6, 2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_temperature_divides_the_logits():
    warm, cold = (random_attention(6, 2, temperature=t, seed=1)[0].log() for t in (2.0, 1.0))
    # Differences within a row forget the normaliser.
    torch.testing.assert_close(2 * warm.diff(), cold.diff(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
def test_shuffling_keeps_what_a_row_holds_and_changes_what_rows_share(causal):
    weights = random_attention(30, 4, causal=causal, samples=2, seed=3)
    shuffled = shuffle_within_rows(weights, seed=0, causal=causal)
    assert torch.equal(shuffled.sort(-1).values, weights.sort(-1).values)
    assert not torch.allclose(spectrum(shuffled).singular_values, spectrum(weights).singular_values)
    if causal:
        assert torch.equal(shuffled, shuffled.tril())


def test_rows_are_shuffled_independently():
    weights = torch.arange(50, dtype=F64).softmax(0).expand(50, 50)
    first, second = shuffle_within_rows(weights, seed=0)[:2]
    assert not torch.equal(first, second)


def test_parts_combine_to_attention_over_all_keys():
    queries, keys, values = gaussian(3, 2, 12, 5, seed=0)
    cut = [slice(0, 4), slice(4, 5), slice(5, 12)]
    parts = [attention_part(queries, keys[:, c], values[:, c], scale=0.3) for c in cut]
    whole = combine(combine(parts[0], parts[1]), parts[2])
    together = attention_part(queries, keys, values, scale=0.3)
    torch.testing.assert_close(whole.outputs, attention(queries, keys, values, scale=0.3))
    torch.testing.assert_close(whole.log_mass, together.log_mass)
    masses = torch.logsumexp(0.3 * queries @ keys.mT, -1)
    torch.testing.assert_close(whole.log_mass, masses)


def test_blocks_of_a_causal_text():
    """Each block attends to all earlier ones, and within itself under a mask."""
    queries, keys, values = gaussian(3, 12, 5, seed=1)
    outputs = []
    for block in (slice(0, 5), slice(5, 12)):
        hidden = torch.where(causal_mask(block.stop - block.start), 0, float("-inf"))
        now = attention_part(
            queries[block], keys[block], values[block], scale=0.4, bias=hidden.double()
        )
        before = slice(0, block.start)
        earlier = attention_part(queries[block], keys[before], values[before], scale=0.4)
        outputs.append(combine(earlier, now).outputs)
    expected = attention(queries, keys, values, mask=causal_mask(12), scale=0.4)
    torch.testing.assert_close(torch.cat(outputs), expected)


def test_a_query_that_sees_nothing_has_no_mass_and_no_gradient():
    queries, keys, values = (part.requires_grad_() for part in gaussian(3, 4, 5, seed=2))
    hidden = torch.zeros(4, 4).double()
    hidden[1] = float("-inf")
    nothing = attention_part(queries, keys, values, scale=0.5, bias=hidden)
    assert nothing.log_mass.isneginf().tolist() == [False, True, False, False]
    assert (nothing.outputs[1] == 0).all()
    for other in (nothing, attention_part(queries, keys, values, scale=0.5)):
        joined = combine(nothing, other)
        slopes = torch.autograd.grad(
            joined.outputs.sum(), [queries, keys, values], retain_graph=True
        )
        assert all(slope.isfinite().all() for slope in slopes)
    torch.testing.assert_close(joined.outputs[1], other.outputs[1])
