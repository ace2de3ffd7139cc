"""Chapter 4's bench: a prefix of SmolLM2's text kept in less, by every method (an hour and a half on one core).

In each prefix of 1,024 tokens stand eight sentences about eight people. Three tasks follow: the next
256 tokens, a passage of the prefix again, and the end of each of these sentences.
"""

import time
from functools import lru_cache

import torch
from jaxtyping import Int64
from torch import Tensor

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
}
"""Name → kind and number of the text."""
N = 1024
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
    return arms


ARMS = _arms()


def text_ids(name: str) -> tuple[Int64[Tensor, "n"], Int64[Tensor, "next"], list[int]]:
    """The prefix with the eight sentences in it, what follows it, and which choice stands in each."""
    kind, index = PREFIXES[name]
    tokenizer = smollm().tokenizer
    right = integers(CHOICES, len(FACTS), seed=index, stream=name).tolist()
    facts = [
        tokenizer(f"\n{fact.format(choices[place])}.\n", return_tensors="pt").input_ids[0]
        for (fact, choices), place in zip(FACTS.items(), right, strict=True)
    ]
    plain = N - sum(len(fact) for fact in facts)
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
def compacted(name: str, arm: str, seed: int = 0) -> Prefix:
    """The prefix as an arm keeps it."""
    if arm.endswith(("int8", "int4")) and "," in arm:  # what was fitted, in fewer bits
        whole, _, bits = arm.rpartition(", int")
        return compacted(name, whole, seed=seed).stored_in(int(bits))
    options = dict(ARMS[arm])
    reading = read(name)[0]
    share = options.pop("share", None)
    tokens = None if share is None else N // share
    return reading.compact(tokens, seed=seed, progress=False, **options)


def run(name: str, arm: str) -> dict[str, float]:
    start = time.perf_counter()
    read(name)
    start = time.perf_counter()
    prefix = compacted(name, arm, seed=0)
    seconds = time.perf_counter() - start
    held = {"bytes": prefix.bytes, "tokens": prefix.tokens, "seconds": seconds}
    return scores(prefix, name) | held


EXPERIMENT = Experiment(
    name="prefix_bench",
    measure=run,
    jobs=[{"name": name, "arm": arm} for name in PREFIXES for arm in ARMS],
    settings={"n": N, "next": NEXT, "facts": FACTS, "written": WRITTEN},
)


def load_prefixes() -> dict[str, dict[str, dict[str, float]]]:
    """Scores by prefix and arm."""
    found: dict[str, dict] = {}
    for job, row in EXPERIMENT.load():
        found.setdefault(str(job["name"]), {})[str(job["arm"])] = row
    return found
