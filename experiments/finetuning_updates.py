"""Of what rank is the update of a full fine-tuning, and what does a LoRA of each rank reach? (half an hour on one core).

Both language models of the book learn from eight modules of Python's standard library and are judged
by two others. All matrices inside their blocks are trained, embeddings and norms are not. LoRA (Hu et
al. 2022) trains W + BA with A of a few rows, drawn at random, and B of as few columns, 0 at first.
"""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.utils import parametrize

from experiments.decoder import Decoder, encode, load_decoder
from experiments.store import Experiment
from helpers.data import long_ids
from helpers.maths import gaussian, generator, integers, spectrum, truncate
from helpers.models import smollm

RANKS = (1, 4, 16)
METHODS = ("full", *(f"LoRA {rank}" for rank in RANKS))
SEEDS = 10
TRAINED_ON, JUDGED_ON = range(8), (8, 9)
TEXT = 2048


@dataclass(frozen=True)
class Setting:
    """Adam's peak rate, for all of W and for LoRA, with its schedule and batches."""

    rate: float
    lora_rate: float
    steps: int
    batch: int
    context: int


SETTINGS = {
    "decoder": Setting(rate=1e-3, lora_rate=7e-3, steps=300, batch=4, context=256),
    "SmolLM2": Setting(rate=5e-5, lora_rate=1e-3, steps=40, batch=2, context=256),
}


class LowRankUpdate(nn.Module):
    """W → W + BA."""

    def __init__(self, weight: Float[Tensor, "out in"], rank: int, stream) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.B = nn.Parameter(torch.zeros(rows, rank))
        self.A = nn.Parameter(gaussian(rank, columns, seed=stream).float() / columns**0.5)

    def forward(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        return weight + self.B @ self.A


def matrices(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """(module, name of its weight) for every matrix inside the blocks of a model."""
    blocks = model.blocks if isinstance(model, Decoder) else model.model.layers
    return [
        (module, name)
        for module in blocks.modules()
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim == 2
    ]


def loaded(name: str) -> tuple[nn.Module, Int64[Tensor, "tokens"], Int64[Tensor, "texts n"]]:
    """A copy of a model in float32, the tokens it learns from and those that it is judged by."""
    language = smollm()
    texts = [long_ids("code", i, TEXT, language.tokenizer) for i in (*TRAINED_ON, *JUDGED_ON)]
    if name == "decoder":
        model = load_decoder().float()
        texts = [encode(language.tokenizer.decode(ids))[:6000] for ids in texts]
    else:
        model = copy.deepcopy(language.model)
    context = SETTINGS[name].context
    judged = torch.stack([ids[: 8 * context] for ids in texts[len(TRAINED_ON) :]])
    return model, torch.cat(texts[: len(TRAINED_ON)]), judged.reshape(-1, context)


def loss(model: nn.Module, batch: Int64[Tensor, "texts n"]) -> Float[Tensor, ""]:
    """Mean −ln of the probability given to each next token."""
    logits = model(batch[:, :-1])
    logits = logits if isinstance(logits, Tensor) else logits.logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def train(model: nn.Module, tokens: Tensor, setting: Setting, rate: float, stream) -> None:
    """Adam on the parameters that ask for gradients; the rate rises for a tenth of the steps, then falls to 0."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(trained, rate, betas=(0.9, 0.95))
    cycle = torch.optim.lr_scheduler.OneCycleLR
    schedule = cycle(optimizer, rate, total_steps=setting.steps, pct_start=0.1)
    for _ in range(setting.steps):
        starts = integers(len(tokens) - setting.context, setting.batch, 1, seed=stream)
        optimizer.zero_grad()
        loss(model, tokens[starts + torch.arange(setting.context)]).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()


def run(model: str, method: str, seed: int) -> dict[str, object]:
    """Loss before and after; after a full fine-tuning the rank of the updates, and the loss with these cut to RANKS.

    Ranks are shares of the full rank, medians over the matrices; "null" are Gaussian matrices of their shapes.
    """
    name, setting, stream = model, SETTINGS[model], generator(seed, "fine-tuning")
    net, tokens, judged = loaded(name)
    net.eval().requires_grad_(False)
    places = matrices(net)
    before = [getattr(module, weight).clone() for module, weight in places]
    row: dict[str, object] = {"before": float(loss(net, judged))}
    rate = setting.rate
    for module, weight in places:
        if method == "full":
            getattr(module, weight).requires_grad_(True)
        else:
            rank = int(method.split()[1])
            rate = (
                setting.lora_rate / rank**0.5
            )  # as the sum over the rank's terms grows (Kalajdzievski 2023)
            update = LowRankUpdate(getattr(module, weight), rank, stream)
            parametrize.register_parametrization(module, weight, update)
    train(net, tokens, setting, rate, stream)
    with torch.no_grad():
        row["after"] = float(loss(net, judged))
        if method == "full":
            after = [getattr(module, weight) for module, weight in places]
            updates = [new - old for new, old in zip(after, before, strict=True)]
            row |= shares(updates, "update")
            row |= shares([gaussian(*u.shape, seed=stream).float() for u in updates], "null")
            row["cut"] = []
            for rank in RANKS:
                for (module, weight), old, update in zip(places, before, updates, strict=True):
                    getattr(module, weight).copy_(old + truncate(update, rank))
                row["cut"].append(float(loss(net, judged)))
    return row


def shares(found: list[Tensor], name: str) -> dict[str, Tensor]:
    """k₉₉ and effective rank of matrices over their full rank, in the median."""
    spectra = [(spectrum(matrix.double()), min(matrix.shape)) for matrix in found]
    k99 = torch.tensor([float(s.energy_rank(0.99)) / full for s, full in spectra])
    effective = torch.tensor([float(s.effective_rank) / full for s, full in spectra])
    return {f"{name} k99": k99.median(), f"{name} effective": effective.median()}


EXPERIMENT = Experiment(
    name="finetuning_updates",
    measure=run,
    jobs=[
        {"model": model, "method": method, "seed": seed}
        for model, seeds in (("decoder", SEEDS), ("SmolLM2", 1))
        for method in METHODS
        for seed in range(seeds)
    ],
    settings={name: vars(setting) for name, setting in SETTINGS.items()},
)


def load_updates() -> dict[tuple[str, str], dict[str, Tensor]]:
    """(model, method) → what :func:`run` measured by name, the seeds along the first axis."""
    rows: dict = {}
    for job, row in EXPERIMENT.load():
        rows.setdefault((job["model"], job["method"]), []).append(row)
    return {
        place: {name: torch.tensor([row[name] for row in found]) for name in found[0]}
        for place, found in rows.items()
    }
