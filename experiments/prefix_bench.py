"""Chapter 4's bench: a prefix of SmolLM2's text kept in less, by every method (three hours on one core).

In each prefix of 1,024 or 4,096 tokens stand eight sentences about eight people. Three tasks follow: the next
256 tokens, a passage of the prefix again, and the end of each of these sentences.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import lru_cache, partial

import torch
from jaxtyping import Int64
from torch import Tensor

from experiments import prefix_rivals
from experiments.store import Experiment
from helpers.data import dialogue, long_ids
from helpers.maths import integers
from helpers.models import Prefix, ReadPrefix, read_prefix, smollm

NEXT = 256
PREFIXES = {
    "dialogue": ("dialogue", 0),
    "prose 3": ("prose", 3),
    "prose 0": ("prose", 0),
    "lists 0": ("lists", 0),
    "code 0": ("code", 0),
    "prose 6": ("prose", 6),
    "lists 1": ("lists", 1),
    "code 1": ("code", 1),
}
"""Name → kind and number of the text."""
LONG = {"prose 1, 4,096": ("prose", 1), "prose 5, 4,096": ("prose", 5)}
"""The same for longer prefixes."""
N, LONG_N = 1024, 4096
CHOICES = 4
FACTS = {
    "Nora plays the {}": ("violin", "flute", "drum", "guitar"),
    "Omar lives in {}": ("Rome", "Cairo", "Oslo", "Lima"),
    "Lena drives a {} car": ("red", "green", "blue", "white"),
    "Hugo works as a {}": ("baker", "nurse", "lawyer", "farmer"),
    "Ines was born in {}": ("April", "June", "August", "October"),
    "Karl is afraid of {}": ("snakes", "dogs", "spiders", "horses"),
    "Rosa collects old {}": ("coins", "books", "clocks", "stamps"),
    "Emil drinks only {}": ("tea", "milk", "coffee", "water"),
}
"""Eight sentences and what may stand in each; every prefix has its own choice."""
CONTINUED, WRITTEN = ("dialogue", "prose 0"), 32
"""Prefixes for which the model's own continuation is kept, and its tokens."""
SHARES = (4, 8, 16, 32)
"""n/e: how many times fewer keys are kept."""

Arm = dict[str, object]


def _arms() -> dict[str, Arm]:
    """Name → what is done: a method, the share of keys, and options."""
    arms: dict[str, Arm] = {
        name: {"method": name} for name in ("full", "none", "int8", "int4", "int2")
    }
    kept = {
        "window": SHARES,
        "heavy keys": SHARES,
        "expected attention": (8, 16),
        "k-means": (8, 16),
        "landmarks without mass": (16,),
        "landmarks": SHARES,
        "svd": (2, 4),
    }
    for method, shares in kept.items():
        arms |= {f"{method}, n/{share}": {"method": method, "share": share} for share in shares}
    arms |= {f"landmarks, n/4, int{bits}": {"bits": bits} for bits in (8, 4)}
    writing = {"method": "landmarks", "written": 4}
    for share in (8, 16):
        arms[f"landmarks + writing, n/{share}"] = writing | {"share": share}
    return arms | {"landmarks + layer 19, n/16": writing | {"share": 16, "half of": RECALLS}}


RECALLS = 19
"""The layer that costs most on a passage again (prefix_heads). Half of its keys are kept, fewer in the others."""
ARMS = _arms()
"""With "+ writing" and "+ layer 19" landmarks are fitted to four texts that the model itself writes on, too."""
OURS = {"method": "landmarks", "share": 16}
ABLATION: dict[str, Arm] = {
    "as the full model asks": {"method": "as the full model asks", "share": 16},
    "the heaviest keys first": {"method": "the heaviest keys first", "share": 16},
    "no gradient steps": OURS | {"steps": 0},
    "budgets by head": OURS | {"by head": True},
    "asked for the passages only": {"method": "asked for the passages only", "share": 16},
    "budgets by head, and writing": OURS | {"by head": True, "written": 4},
    "the window without its sinks": {"method": "window without its sinks", "share": 16},
}
"""One thing changed in "landmarks, n/16", or in "window, n/16" (Xiao et al. 2024)."""
RIVALS: dict[str, Callable[[ReadPrefix, int], Prefix]] = {
    "window": prefix_rivals.window,
    "window without its sinks": partial(prefix_rivals.window, sinks=0),
    "expected attention": prefix_rivals.expected_attention,
    "k-means": prefix_rivals.k_means,
    "svd": prefix_rivals.fewer_dimensions,
    "as the full model asks": prefix_rivals.as_the_full_model_asks,
    "the heaviest keys first": prefix_rivals.from_heavy_keys,
    "asked for the passages only": prefix_rivals.asked_for_passages_only,
}
"""Methods that the helpers don't have."""
ABLATED = ("dialogue", "prose 0", "lists 0", "code 0")
HELD = 0.9
"""Share of a head's weight whose number of keys its budget is proportional to."""
LONG_ARMS = [
    *(name for name in ARMS if "," not in name),
    *(f"{method}, n/{share}" for method in ("window", "heavy keys") for share in (8, 16)),
    *("expected attention, n/16", "landmarks, n/16"),
]
"""For prefixes of LONG, where fitting takes ten minutes."""
ONCE = ("prose 1, 4,096", "budgets by head, and writing")
"""A job of ABLATION on one of them."""


def text_ids(name: str) -> tuple[Int64[Tensor, "n"], Int64[Tensor, "next"], list[int]]:
    """The prefix with the eight sentences in it, what follows it, and which choice stands in each."""
    kind, index = (PREFIXES | LONG)[name]
    tokenizer = smollm().tokenizer
    right = integers(CHOICES, len(FACTS), seed=index, stream=name).tolist()
    facts = [
        tokenizer(f"\n{fact.format(choices[place])}.\n", return_tensors="pt").input_ids[0]
        for (fact, choices), place in zip(FACTS.items(), right, strict=True)
    ]
    plain = (LONG_N if name in LONG else N) - sum(len(fact) for fact in facts)
    if kind == "dialogue":
        ids = tokenizer(dialogue(), return_tensors="pt").input_ids[0][: plain + NEXT]
    else:
        ids = long_ids(kind, index, plain + NEXT, tokenizer)
    pieces = ids[:plain].tensor_split(len(facts) + 1)
    mixed = [part for pair in zip(pieces, facts, strict=False) for part in pair] + [pieces[-1]]
    return torch.cat(mixed), ids[plain:], right


def answer(prefix: Prefix, fact: str, choices: tuple[str, ...]) -> int:
    """Which choice is the likeliest, by its first token, when the sentence begins again."""
    tokenizer = smollm().tokenizer
    begun = tokenizer("\n" + fact.split(" {}")[0], return_tensors="pt").input_ids[0]
    tokens = [tokenizer(f" {choice}").input_ids[0] for choice in choices]
    return int(prefix.logits(begun)[-1, tokens].argmax())


@lru_cache(maxsize=1)
def read(name: str) -> tuple[ReadPrefix, dict[str, Tensor], dict[str, Tensor], list]:
    """A prefix as it was read, the continuations by task, the full model's logits on them, the questions."""
    prefix, following, right = text_ids(name)
    half = len(prefix) // 2
    tasks = {"next": following, "recall": prefix[half - NEXT // 2 : half + NEXT // 2]}
    reading = read_prefix(smollm().model, prefix)
    full = reading.compact(method="full")
    exact = {task: full.logits(ids) for task, ids in tasks.items()}
    return reading, tasks, exact, right


def scores(prefix: Prefix, name: str) -> dict[str, float]:
    """Loss and KL(full ‖ kept) on both texts, share of right answers, seconds for each of ten new tokens."""
    _, tasks, exact, right = read(name)
    found = {}
    for task, ids in tasks.items():
        logits = prefix.logits(ids)
        predicted = torch.cat([prefix.next_logits[None], logits[:-1]])
        found[task] = float(torch.nn.functional.cross_entropy(predicted, ids))
        full = exact[task].log_softmax(-1)
        found[f"{task}, KL"] = float((full.exp() * (full - logits.log_softmax(-1))).sum(-1).mean())
    given = [answer(prefix, *fact) for fact in FACTS.items()]
    found["answers"] = sum(a == b for a, b in zip(given, right, strict=True)) / len(right)
    count = WRITTEN if name in CONTINUED else 10
    start = time.perf_counter()
    written = smollm().tokenizer.decode(prefix.generate(count))
    found["seconds per token"] = (time.perf_counter() - start) / count
    return found | ({"text": written} if name in CONTINUED else {})


@lru_cache(maxsize=len(ARMS))
def compacted(name: str, arm: str) -> Prefix:
    """The prefix as an arm keeps it."""
    if arm.endswith(("int8", "int4")) and "," in arm:  # what was fitted, in fewer bits
        whole, _, bits = arm.rpartition(", int")
        return compacted(name, whole).stored_in(int(bits))
    options = dict((ARMS | ABLATION)[arm])
    method, share = options.pop("method"), options.pop("share", None)
    reading = read(name)[0]
    tokens = None if share is None else len(reading.ids) // share
    if written := options.pop("written", 0):
        reading = replace(reading, written=written)
    if method in RIVALS:
        return RIVALS[method](reading, tokens)
    if options.pop("by head", False):
        return prefix_rivals.with_budgets(reading, by_head(reading, tokens))
    if layer := options.pop("half of", 0):
        options["budgets"] = half_of(layer, reading, tokens)
    return reading.compact(tokens, method=method, progress=False, **options)


def by_head(reading: ReadPrefix, tokens: int) -> Int64[Tensor, "layers heads"]:
    """Budgets of ``tokens`` in the mean, in proportion to how many keys hold HELD of the queries' weight.

    No head gets less than a sixteenth of the mean.
    """
    needed = []
    for (keys, _, scale), (queries, _) in zip(reading.layers, reading.questions, strict=True):
        asked = queries.unflatten(1, (len(keys), -1)).movedim(0, 2).flatten(1, 3)[:, ::8]
        weight = torch.softmax(scale * asked @ keys.mT, -1).mean(1)
        held = weight.sort(-1, descending=True).values.cumsum(-1)
        needed.append((held < HELD).sum(-1) + 1.0)
    shares = torch.stack(needed)
    shares = shares.clamp(min=shares.mean() / 16)
    return (tokens * shares / shares.mean()).long().clamp(1, len(reading.ids))


def half_of(layer: int, reading: ReadPrefix, tokens: int) -> Int64[Tensor, "layers"]:
    """Half of all keys in one layer, counted from 1, and so few in the others that ``tokens`` is the mean."""
    layers, half = len(reading.layers), len(reading.ids) // 2
    budgets = torch.full((layers,), (tokens * layers - half) // (layers - 1))
    budgets[layer - 1] = half
    return budgets


def run(name: str, arm: str) -> dict[str, float]:
    start = time.perf_counter()
    read(name)
    start = time.perf_counter()
    prefix = compacted(name, arm)
    seconds = time.perf_counter() - start
    held = {"bytes": prefix.bytes, "tokens": prefix.tokens, "seconds": seconds}
    return scores(prefix, name) | held


EXPERIMENT = Experiment(
    name="prefix_bench",
    measure=run,
    jobs=[
        *({"name": name, "arm": arm} for name in PREFIXES for arm in ARMS),
        *({"name": name, "arm": arm} for name in ABLATED for arm in ABLATION),
        *({"name": name, "arm": arm} for name in LONG for arm in LONG_ARMS),
        dict(zip(("name", "arm"), ONCE, strict=True)),
    ],
    settings={"n": N, "next": NEXT, "facts": FACTS, "written": WRITTEN},
)


def load_prefixes(
    names: Collection[str] = tuple(PREFIXES),
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by prefix and arm; ``names`` may be those of LONG."""
    found: dict[str, dict] = {name: {} for name in names}
    for job, row in EXPERIMENT.load():
        if job["name"] in found:
            found[str(job["name"])][str(job["arm"])] = row
    return found
