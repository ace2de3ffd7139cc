"""Layers that factor, and how they are fitted."""

# fmt: off
from helpers.layers.factorization import (
    DivergenceError, FactorizationLayer, Factors, Fit, fit, gauss_newton_step,
)
from helpers.layers.landmarks import Landmarks, METHODS, Problem, compress
from helpers.layers.stored import GROUP, HalfPrecision, Quantised
from helpers.layers.butterfly import (
    Butterfly, ORDERS, apply_factor, cooley_tukey, factorize, normalised, rank_one_bound,
)
from helpers.layers.universal import CLASSES, FLOAT_BITS, SETTLED, UniversalLayer, choose_classes
from helpers.layers.operator_classes import (
    Explained, attend, explain, fit_low_rank, fit_query_key, fit_span, members, relative_error,
)
from helpers.layers.fitting import one_cycle, update, with_gradients
