"""A training step of chapter 5's small decoders, whole and pruned."""

from __future__ import annotations

import pytest
import torch

from experiments.decoder import Decoder
from experiments.early_pruning import ARMS, LEARNING_RATE, prune, texts, train_step
from helpers.maths import generator

STEPS, ROUNDS = 5, 40


@pytest.mark.parametrize("arm", ARMS)
def test_training_step(measure, arm):
    """Five steps a round; the size is that of the window."""
    shape, _, keep = ARMS[arm]
    decoder, (tokens, _) = Decoder(seed=0, **shape), texts()
    if keep is not None:
        prune(decoder, keep(0))
    optimizer = torch.optim.Adam(decoder.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95))
    stream = generator(0, "batches")

    def five_steps() -> None:
        for _ in range(STEPS):
            train_step(decoder, optimizer, tokens, stream)

    measure("training step", arm, shape["context"], five_steps, [()] * ROUNDS)
