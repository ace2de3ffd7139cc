"""Layers that factor, and how they are fitted."""

# fmt: off
from helpers.layers.factorization import (
    DivergenceError, FactorizationLayer, Factors, Fit, SIGMAS, checked_target, fit, fit_result,
    frobenius_norm, gauss_newton_step, project,
)
from helpers.layers.note_recipe import NoteRecipe, descend
from helpers.layers.learned_svd import (
    BLOCKS, CORE_STEPS, DEGREE, FactorizationOperator, excess_error,
)
from helpers.layers.landmarks import (
    CUTOFF, Compression, Landmarks, METHODS, ORACLES, Problem, Seen, compress, constant,
    fitted_values, heavy_keys, k_means, learned, linformer, note, nystrom, nystrom_exact,
    output_rank, performer, segment_means, sparse_low_rank, truncated_svd,
)
from helpers.layers.butterfly import (
    Butterfly, apply_factor, cooley_tukey, learn_blocks, normalised, rank_one_bound, rmse,
)
from helpers.layers.universal import (
    Attention, CLASSES, Choice, Convolution, FLOAT_BITS, LowRank, RealButterfly, SETTLED,
    UniversalLayer, choose_classes,
)
