"""Fine-tuning in full and by LoRA: what is trained, of what rank it is, and what the stored rows hold."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from experiments import finetuning_updates
from experiments.decoder import Decoder
from experiments.finetuning_updates import (
    METHODS,
    RANKS,
    SEEDS,
    LowRankUpdate,
    load_updates,
    matrices,
    run,
    shares,
)
from helpers.maths import gaussian, generator
from helpers.models import smollm


def test_every_matrix_of_a_block_is_trained_and_nothing_else():
    decoder = Decoder(seed=0, width=16, layers=2, heads=2)
    found = [getattr(module, name) for module, name in matrices(decoder)]
    assert len(found) == 2 * 6
    assert all(weight.ndim == 2 for weight in found)
    assert not any(weight is decoder.embedding.weight for weight in found)
    assert len(matrices(smollm().model)) == 30 * 7


def test_a_low_rank_update_starts_at_nothing_and_stays_of_its_rank():
    layer = nn.Linear(12, 8, bias=False).requires_grad_(False)
    before = layer.weight.clone()
    update = LowRankUpdate(layer.weight, 3, generator(0, "test"))
    parametrize.register_parametrization(layer, "weight", update)
    assert torch.equal(layer.weight, before)
    optimizer = torch.optim.Adam([w for w in layer.parameters() if w.requires_grad], 0.1)
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.ones(2, 12)).square().sum().backward()
        optimizer.step()
    change = layer.weight - before
    assert change.abs().max() > 0.1
    assert torch.linalg.matrix_rank(change, rtol=1e-4) <= 3


def test_shares_of_known_matrices():
    one = torch.outer(torch.ones(8), torch.arange(1.0, 6))
    found = shares([one, torch.eye(5)[:, :4], one], "update")
    assert float(found["update k99"]) == pytest.approx(1 / 5)
    assert float(shares([torch.eye(6)], "x")["x effective"]) == pytest.approx(1)
    assert float(shares([gaussian(64, 64, seed=0)], "x")["x k99"]) > 0.7


def test_stored_rows_cover_every_method():
    rows = load_updates()
    assert set(rows) == {(model, method) for model in ("decoder", "SmolLM2") for method in METHODS}
    for (model, method), row in rows.items():
        assert len(row["after"]) == (SEEDS if model == "decoder" else 1)
        assert (row["after"] < row["before"]).all(), "fine-tuning helps"
        if method == "full":
            assert row["cut"].shape[-1] == len(RANKS)
            assert (row["cut"].diff(dim=-1) < 0).all(), "more rank, less loss"


def test_fewer_steps_learn_less(monkeypatch):
    settings = finetuning_updates.SETTINGS
    short = finetuning_updates.Setting(**{**vars(settings["decoder"]), "steps": 5})
    monkeypatch.setitem(settings, "decoder", short)
    row, stored = run("decoder", "LoRA 1", 0), load_updates()["decoder", "LoRA 1"]
    assert row["before"] == pytest.approx(float(stored["before"][0]), abs=1e-3)
    assert row["before"] > row["after"] > float(stored["after"][0])
