"""Defaults and constants that the chapters' numbers, sentences and committed results rest on."""

import inspect
import math

import pytest
import torch

from helpers import (
    ablation,
    butterfly,
    cases,
    checks,
    choosing,
    compression,
    decoder,
    diagnostics,
    exercises,
    factorization,
    figures,
    low_rank,
    nulls,
    operator,
    orthogonal,
    pruning,
    spectrum,
    stack,
    summary,
    survey,
    texts,
    training,
    universal,
)

CASE = {"n": 32, "samples": 32, "noise": 0.1, "seed": 0, "width": 8}
CLASSES = ("low rank", "convolution", "attention", "butterfly")
TWICE = {"draws": 199, "seed": 0}
DEFAULTS = {
    ablation.layer_row: {"orthogonal": "signed qr"},
    ablation.overlap: {"rank": 4},
    ablation.watch_recipe: {"seeds": 10},
    butterfly.Butterfly: {"real": False, "seed": 0, "dtype": torch.complex128},
    butterfly.SoftPermutation: {"seed": 0},
    butterfly.fit: {"steps": 1000, "learning_rate": 0.1, "seed": 0, "progress": True},
    butterfly.learn_permutation: {"starts": 8, "seed": 0},
    **{make: {"seed": 0} for make in (butterfly.dft, butterfly.cosine, butterfly.hadamard)},
    butterfly.circular_convolution: {"seed": 0},
    butterfly.random_orthogonal: {"seed": 0},
    cases.note_targets: {"n": 32},
    cases.low_rank: {**CASE, "rank": 4},
    cases.convolution: {**CASE, "kernel": (0.4, 1.0, 0.4), "circular": False},
    cases.fourier: CASE,
    cases.attention: {**CASE, "rank": 4, "sharpness": 2.0},
    cases.random_operator: CASE,
    checks.real_tensor: {"least_dims": 1},
    checks.real_number: {"above": -math.inf, "least": -math.inf, "most": math.inf},
    compression.decoder_prefix: {"prefix": 128},
    compression.timings: {"rank": 64, "repeats": 7, "heads": 4, "width": 64},
    compression.weight_errors: {"heads_at_once": 12},
    decoder.Decoder: {"width": 96, "layers": 4, "heads": 4, "context": 256},
    decoder.load_decoder: {
        "path": decoder.DECODER_FILE,
        "sha256": decoder.DECODER_SHA256,
        "device": "cpu",
        "dtype": torch.float64,
    },
    decoder.truncate_all: {"causal": False},
    decoder.truncate_energy: {"fraction": 0.99, "causal": False},
    decoder.truncation_costs: {"ranks": (4, 8, 16, 32, 64), "causal": False},
    diagnostics.diagnose: TWICE,
    diagnostics.input_dependence: TWICE,
    exercises.check: {"tolerance": 1e-8},
    factorization.FactorizationLayer: {
        "orthogonal": "signed qr",
        "sigma": "free",
        "seed": 0,
        "dtype": torch.float64,
    },
    factorization.descend: {
        "optimizer": "adam",
        "steps": 800,
        "learning_rate": 3e-3,
        "one_cycle": False,
        "scale": False,
        "eliminate": False,
        "progress": True,
    },
    factorization.gauss_newton: {"steps": 1000, "tolerance": 1e-10, "progress": True},
    figures.panel: {"x_label": "", "y_label": "", "size": (3.4, 2.8)},
    low_rank.compress: {"seed": 0, "progress": True},
    low_rank.learned: {"steps": 300, "batch": 512, "learning_rate": 0.1},
    nulls.random_attention: {"temperature": 1.0, "causal": False, "samples": 1, "seed": 0},
    nulls.shuffle_within_rows: {"causal": False},
    operator.FactorizationOperator: {"seed": 0, "dtype": torch.float64},
    operator.train: {"steps": 400},
    operator.trained_operator: {"seed": 0},
    spectrum.Spectrum.energy_rank: {"fraction": 0.99},
    spectrum.Spectrum.nuclear_rank: {"fraction": 0.9},
    stack.Stack: {"classes": CLASSES, "layers": 4, "seed": 0},
    stack.train: {
        "price": 0.02,
        "steps": 300,
        "batch": 32,
        "learning_rate": 1e-2,
        "gate_rate": 0.05,
        "seed": 0,
        "progress": True,
    },
    summary.median_range: {"spec": ".0f"},
    summary.spread: {"spec": ".0f"},
    training.train: {"steps": 1900},
    universal.UniversalLayer: {
        "classes": CLASSES,
        "rank": 4,
        "taps": 9,
        "depthwise": False,
        "heads": 1,
        "price": 32.0,
        "seed": 0,
        "dtype": torch.float64,
    },
    universal.UniversalLayer.description_length: {"share": 1.0},
    universal.UniversalLayer.code_lengths: {"share": 1.0},
    universal.fit: {"steps": 800, "learning_rate": 0.2, "gate_rate": 0.05, "progress": True},
}


@pytest.mark.parametrize("function", DEFAULTS, ids=lambda function: function.__qualname__)
def test_defaults(function):
    # None means "by default something that depends on the other arguments".
    parameters = inspect.signature(function).parameters.values()
    given = {p.name: p.default for p in parameters if p.default not in (p.empty, None)}
    assert given == DEFAULTS[function]
    assert all(type(given[name]) is type(value) for name, value in DEFAULTS[function].items())


MATRICES = (8, 16, 32, 64)
TARGETS = ("Hadamard", "DCT", "convolution", "random orthogonal")
DECODER = {"width": 48, "layers": 2, "heads": 2, "context": 64}
# A change of one of these needs a new run of `make results`.
CONSTANTS = {
    ablation: {"SEEDS": 10},
    butterfly: {
        "SEEDS": 10,
        "SIZES": {"DFT": (*MATRICES, 128, 256, 1024), **dict.fromkeys(TARGETS, MATRICES)},
    },
    cases: {"NOTE_CASES": ("low rank", "convolution", "attention", "Fourier")},
    choosing: {
        "SEEDS": 20,
        "PRICE_SEEDS": 2,
        "PRICES": (2.0, 8.0, 128.0, 512.0),
        "N": 32,
        "WIDTH": 8,
        "TRAINING": 32,
        "NOISE": 0.1,
        "LAYER_SEEDS": 1000,
        "RIGHT": {
            "low rank": ("low rank",),
            "convolution": ("convolution",),
            "circular": ("convolution",),
            "Fourier": ("butterfly",),
            "attention": ("attention",),
            "control": (),
            "low rank + convolution": ("low rank", "convolution"),
            "convolution + attention": ("convolution", "attention"),
        },
    },
    compression: {
        "RANKS": {
            "MiniLM": (16, 32, 64, 128),
            "decoder": (4, 8, 16, 32),
            "Gaussian": (16, 32, 64, 128),
        },
        "DOCUMENTS": (0, 1),
        "SHARPNESS": (0.5, 1.0, 2.0, 4.0),
        "WEIGHTS_RANK": 32,
        "FITTING": (128, 512, 1536, 3584),
        "LENGTHS": (512, 1024, 2048, 4096, 8192, 16384),
        "WARM_UP": 5,
    },
    decoder: {"BYTES": 256, "ROTATION_BASE": 1000.0},
    diagnostics: {"ORDER_FREE": ("low_rank", "row_stochastic", "flatness")},
    factorization: {"SIGMAS": ("free", "absolute", "softplus")},
    low_rank: {"ORACLES": ("truncated svd", "output rank", "sparse + low rank")},
    operator: {
        "BLOCKS": 3,
        "DEGREE": 3,
        "CORE_STEPS": 14,
        "TRAINING_STEPS": 400,
        "BATCH": 64,
        "SIZES": (16, 32),
        "SEEDS": 10,
    },
    orthogonal: {"SQUARE": ("cayley", "exponential")},
    pruning: {
        "SEEDS": 10,
        "SHAPE": DECODER,
        "NARROW": {**DECODER, "width": 32},
        "RANK": 12,
        "STEPS": 800,
        "PRUNE_AT": 200,
        "EVERY": 50,
        "LEARNING_RATE": 4e-3,
        "BATCH": 8,
    },
    stack: {
        "SEEDS": 10,
        "PRICE": 0.02,
        "TOKENS": 64,
        "WIDTH": 16,
        "LAYERS": 4,
        "SIZES": {"rank": 8, "taps": 63, "depthwise": True, "heads": 4},
    },
    survey: {"LENGTHS": (64, 128, 256, 512)},
    texts: {
        "TEXT_KINDS": ("prose", "code", "repeated", "random tokens"),
        "TEXTS_PER_KIND": 10,
        "FIRST_WORD_PIECE": 999,
        "VOCABULARY_SIZE": 30522,
    },
    training: {
        "STEPS": 1900,
        "TOKENS_PER_STEP": 512,
        "SHORT_WINDOW": 64,
        "SHORT_SHARE": 0.8,
        "LEARNING_RATE": 4e-3,
        "WARM_UP": 100,
        "SEEDS": 10,
        "LOSS_WINDOWS": 64,
        "HEAD_WINDOWS": 8,
    },
    universal: {"SETTLED": 10.0, "FLOAT_BITS": 32.0, "CLASSES": CLASSES},
}


@pytest.mark.parametrize("module", CONSTANTS, ids=lambda module: module.__name__)
def test_constants(module):
    assert {name: getattr(module, name) for name in CONSTANTS[module]} == CONSTANTS[module]
