"""Linear algebra and attention: what the other wings stand on."""

# fmt: off
from helpers.maths.checks import (
    integer, is_true, one_of, own_precision, real_number, real_tensor, square_matrices, unicode_text,
)
from helpers.maths.draws import Seed, gaussian, generator, integers, orders, uniform
from helpers.maths.matrices import bit_reversal, hartley, power_of_two
from helpers.maths.attention import (
    Part, attention, attention_part, attention_weights, causal_mask, combine,
)
from helpers.maths.spectrum import (
    Spectrum, distance_to_rank_one, frobenius_norm, spectrum, truncate, unit_scale,
)
from helpers.maths.orthogonal import signed_qr
from helpers.maths.nulls import random_attention, shuffle_within_rows
from helpers.maths.structure import (
    Reading, bandwidth, circulant_distance, diagnose, flatness,
    low_rank_distance, row_stochastic_distance,
    sinusoid_overlap, sinusoidal_rows, sinusoidal_vectors, toeplitz_distance,
)
