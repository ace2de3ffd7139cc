"""A long prefix of a language model's text, kept in less: fewer tokens or fewer bits.

Every key head of every layer keeps something that answers queries as its n keys and values did, with
their mass. Later tokens are attended to exactly, and the two are combined. The model isn't changed.
Queries that a method is fitted to come from readings behind the prefix: passages of it again
("what was said there?"), the same passages without it, as any text that doesn't look back, and, if
asked for, texts that the model itself writes on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from tqdm.auto import tqdm

from helpers.layers import HalfPrecision, Landmarks, Quantised, compress
from helpers.maths import Part, attention_part, combine, generator, integer, one_of, uniform
from helpers.models.transformer import attending_by, check_ids, per_query_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PASSAGE, PASSAGES = 256, 8
"""Tokens of a passage that is read again, and how many at most, spread evenly over the prefix."""

Rows = Float[Tensor, "heads n d"]


@dataclass(frozen=True)
class Kept:
    """What one layer keeps of the prefix."""

    keys: Quantised | HalfPrecision
    values: Quantised | HalfPrecision
    bias: HalfPrecision | None
    """None if every bias is zero."""
    scale: float

    @classmethod
    def of(cls, landmarks: Landmarks, bits: int = 16) -> "Kept":
        """Keys and values in ``bits`` (16, 8, 4 or 2) each, biases in 16."""
        keys, values = (
            HalfPrecision.of(rows) if bits == 16 else Quantised.of(rows, bits)
            for rows in (landmarks.keys, landmarks.values)
        )
        bias = HalfPrecision.of(landmarks.bias) if landmarks.bias.any() else None
        return cls(keys, values, bias, landmarks.scale)

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in (self.keys, self.values, self.bias) if part)

    @cached_property
    def landmarks(self) -> Landmarks:
        keys, values = self.keys.rows(), self.values.rows()
        bias = keys.new_zeros(keys.shape[:-1]) if self.bias is None else self.bias.rows()
        return Landmarks(keys, values, bias, self.scale)


@dataclass(frozen=True)
class Prefix:
    """A prefix as it is kept, and the model that reads on behind it."""

    model: "PreTrainedModel"
    length: int
    """n, tokens of the prefix; the next one has this position."""
    layers: list[Kept | None]
    """None where nothing is kept."""
    next_logits: Float[Tensor, "vocabulary"]
    """What the model says of the first token after the prefix, before anything is left out."""

    @property
    def bytes(self) -> int:
        """What is held of keys, values and biases in all layers."""
        return sum(kept.bytes for kept in self.layers if kept)

    @property
    def tokens(self) -> float:
        """Keys of a key-value head, in the mean."""
        heads = [torch.isfinite(kept.landmarks.bias).sum(-1) for kept in self.layers if kept]
        return float(torch.cat(heads).double().mean()) if heads else 0.0

    def stored_in(self, bits: int) -> "Prefix":
        """The same with its rows in ``bits`` (16, 8, 4 or 2) each."""
        one_of(bits, "bits", (16, 8, 4, 2))
        layers = [kept and Kept.of(kept.landmarks, bits) for kept in self.layers]
        return replace(self, layers=layers)

    def logits(
        self, continuation_ids: Int64[Tensor, "t"], cache: object = None
    ) -> Float[Tensor, "t vocabulary"]:
        """Row i: what follows continuation token i, at its true position behind the prefix.

        ``cache``, of transformers, holds the continuation up to here and grows. ValueError if the
        continuation goes beyond the model's positions.
        """
        ids = _ids(continuation_ids, "continuation_ids", self.model)
        start = self.length + (cache.get_seq_length() if cache else 0)
        _room(self.model, start + len(ids), "continuation_ids")

        def attend(layer, query, key, value, mask, scale):
            later = _attend(query, key, value, mask, scale)
            return _joined(self.layers[layer], query, later)

        with torch.no_grad(), attending_by(self.model, attend):
            places = torch.arange(start, start + len(ids))[None]
            keep = {} if cache is None else {"past_key_values": cache}
            run = self.model(ids[None], position_ids=places, use_cache=cache is not None, **keep)
        return run.logits[0]

    def loss(self, continuation_ids: Int64[Tensor, "t"]) -> float:
        """Mean −ln of the probability of each token of the continuation, in nats."""
        logits = torch.cat([self.next_logits[None], self.logits(continuation_ids)[:-1]])
        return float(torch.nn.functional.cross_entropy(logits, continuation_ids.reshape(-1)))

    def generate(self, count: int) -> Int64[Tensor, "count"]:
        """``count`` tokens that follow, always the likeliest. ValueError beyond the model's positions."""
        from transformers import DynamicCache

        _room(self.model, self.length + integer(count, "count", least=1), "count")
        cache, ids = DynamicCache(), [self.next_logits.argmax()]
        while len(ids) < count:
            ids.append(self.logits(ids[-1][None], cache)[-1].argmax())
        return torch.stack(ids)


@dataclass(frozen=True)
class Layer:
    """What a method sees of one layer: keys and values of the prefix, queries that come behind it."""

    keys: Rows
    values: Rows
    scale: float
    queries: Float[Tensor, "heads m d"]
    """Those of all query heads that a key head serves, one after the other."""
    later: Part
    """Attention of these queries to what is read behind the prefix."""

    def by(
        self, method: str | Callable[..., Landmarks], tokens: int, **options: object
    ) -> Landmarks:
        """A method of ``compress``."""
        parts = self.queries, self.keys, self.values
        return compress(method, *parts, tokens, scale=self.scale, progress=False, **options)


def heavy_keys(layer: Layer, tokens: int, **options: object) -> Landmarks:
    """The keys with the largest total weight."""
    return layer.by("heavy keys", tokens, **options)


def landmarks(layer: Layer, tokens: int, **options: object) -> Landmarks:
    """Fitted to their outputs and mass beside ``layer.later``."""
    return layer.by("landmarks", tokens, later=layer.later, **options)


METHODS: dict[str, Callable[..., Landmarks]] = {
    "heavy keys": heavy_keys,
    "landmarks": landmarks,
    "landmarks without mass": partial(landmarks, mass=False),
}
"""Fewer tokens. "full", "none" and those of BITS are known, too."""
BITS = {"int8": 8, "int4": 4, "int2": 2}


@dataclass(frozen=True)
class ReadPrefix:
    """A prefix that the model has read, with all its keys and values; :meth:`compact` keeps less of it."""

    model: "PreTrainedModel"
    ids: Int64[Tensor, "n"]
    layers: list[tuple[Rows, Rows, float]]
    """Keys, values and the scale s of every layer."""
    next_logits: Float[Tensor, "vocabulary"]
    written: int = 0
    """Texts of PASSAGE tokens that the model writes on behind the prefix, for methods to be fitted to."""
    seed: int = 0
    """Of what it writes."""

    def compact(
        self,
        tokens: int | None = None,
        *,
        method: str = "landmarks",
        seed: int = 0,
        progress: bool = True,
        **options: object,
    ) -> Prefix:
        """As :func:`compact_prefix`, as often as you like after one reading."""
        _check(self.model, len(self.ids), tokens, method, **options)
        if method in METHODS:
            counts = _counts(options.pop("budgets", None), len(self.layers), len(self.ids), tokens)

            def fit(place: int, layer: Layer) -> Kept:
                return Kept.of(METHODS[method](layer, counts[place], seed=seed, **options))

            on_policy = method.startswith("landmarks")
            return self.fitted(fit, on_policy=on_policy, name=method if progress else None)
        layers = [None if method == "none" else _whole(*layer) for layer in self.layers]
        prefix = Prefix(self.model, len(self.ids), layers, self.next_logits)
        return prefix.stored_in(BITS[method]) if method in BITS else prefix

    def fitted(
        self, fit: Callable[[int, Layer], Kept], *, on_policy: bool, name: str | None = None
    ) -> Prefix:
        """The prefix with each layer as ``fit`` makes it from its place and what is seen of it.

        ``on_policy``: its queries are those that the layers below send, compacted already; else those
        of the whole model. A progress bar called ``name`` appears after three seconds.
        """
        bar = tqdm(total=len(self.layers), desc=name, disable=name is None, delay=3, leave=False)

        def keep(place: int, query: Tensor, later: Part) -> Kept:
            keys, values, scale = self.layers[place]
            asked, *parts = (_by_key_head(part, len(keys)) for part in (query, *later))
            bar.update()
            return fit(place, Layer(keys, values, scale, asked, Part(*parts)))

        with bar:
            if on_policy:
                layers = self._read_on(*self.passages, keep)
            else:
                layers = [keep(place, *asked) for place, asked in enumerate(self.questions)]
        return Prefix(self.model, len(self.ids), layers, self.next_logits)

    @cached_property
    def passages(self) -> tuple[Int64[Tensor, "rows t"], Bool[Tensor, "rows"]]:
        """Passages of the prefix, the same again, what the model writes; True for the second, read without it."""
        length = min(PASSAGE, len(self.ids))
        count = min(PASSAGES, -(-len(self.ids) // length))
        starts = torch.linspace(0, len(self.ids) - length, count).long()
        passages = self.ids[starts[:, None] + torch.arange(length)]
        blind = torch.arange(2 * count + self.written) >= count
        blind[2 * count :] = False
        return torch.cat([passages.repeat(2, 1), self._write(length)]), blind

    @torch.no_grad()
    def _write(self, length: int) -> Int64[Tensor, "rows t"]:
        """``written`` texts behind the prefix, each token drawn with the probability that the model gives it."""
        from transformers import DynamicCache

        stream, cache = generator(self.seed, "texts that the model writes"), DynamicCache()
        for place, (keys, values, _) in enumerate(self.layers):
            rows = (
                part.to(self.model.dtype).repeat(self.written, 1, 1, 1) for part in (keys, values)
            )
            cache.update(*rows, place)
        logits = self.next_logits.repeat(self.written, 1)
        ids = logits.new_zeros(self.written, length, dtype=torch.long)
        for k in range(length if self.written else 0):
            chance = uniform(*logits.shape, seed=stream).to(logits)
            # A maximum with Gumbel's noise is such a draw.
            ids[:, k] = (logits - (-chance.log()).log()).argmax(-1)
            logits = self.model(ids[:, k : k + 1], past_key_values=cache).logits[:, -1].float()
        return ids

    @cached_property
    def questions(self) -> list[tuple[Float[Tensor, "rows heads t d"], Part]]:
        """Queries of every layer in both readings of the passages behind the whole prefix, and their later part."""
        asked = []
        self._read_on(*self.passages, lambda _, *question: asked.append(question))
        return asked

    def _read_on(
        self, rows: Tensor, blind: Tensor, keep: Callable[..., Kept | None]
    ) -> list[Kept | None]:
        """Read ``rows`` behind the prefix, every layer with what ``keep`` makes of it, or all of it for None."""
        layers = []

        def attend(place, query, key, value, mask, scale):
            later = _attend(query, key, value, mask, scale)
            layers.append(keep(place, query, later))
            whole = _joined(layers[-1] or _whole(*self.layers[place]), query, later)
            return torch.where(blind[:, None, None, None], later.outputs, whole)

        with torch.no_grad(), attending_by(self.model, attend) as body:
            places = torch.arange(rows.shape[1]) + len(self.ids)
            body(rows, position_ids=places.expand(len(rows), -1), use_cache=False)
        return layers


def read_prefix(
    model: "PreTrainedModel", prefix_ids: Int64[Tensor, "n"], *, written: int = 0, seed: int = 0
) -> ReadPrefix:
    """Let the model read a prefix, once for all ways to compact it. Raises as :func:`compact_prefix`."""
    written = integer(written, "written", least=0)
    _servable(model)
    ids, layers = _ids(prefix_ids, "prefix_ids", model), []
    _room(model, len(ids), "prefix_ids")

    def record(_, query, key, value, mask, scale):
        layers.append((key[0].float(), value[0].float(), scale))
        return _attend(query, key, value, mask, scale).outputs

    with torch.no_grad(), attending_by(model, record):
        run = model(ids[None], use_cache=False, logits_to_keep=1)
    return ReadPrefix(model, ids, layers, run.logits[0, -1].float(), written, seed)


def compact_prefix(
    model: "PreTrainedModel",
    prefix_ids: Int64[Tensor, "n"],
    tokens: int | None = None,
    *,
    written: int = 0,
    seed: int = 0,
    **options: object,
) -> Prefix:
    """Keep a prefix of a text in less, for a decoder of ``transformers`` that rotates by position (RoPE).

    ``tokens`` is how many keys each key-value head keeps in place of n; "full", "none" and bits need none.
    Further options:

    * ``method``: "landmarks" (the default), another of METHODS, "full", "none", "int8", "int4", "int2";
    * ``budgets``: tokens layer by layer;
    * ``written``: so many texts that the model writes on behind the prefix are among the queries;
    * ``seed``, ``progress``, and with landmarks those of :func:`helpers.layers.landmarks.landmarks`:
      ``steps``, ``learning_rate``, ``start``.

    Landmarks see the queries that compacted layers below send, in one reading; heavy keys are those of
    the whole model's queries. ``stored_in`` puts what is kept into fewer bits.

    Raises, before anything is read, ValueError for tokens outside 1 … n, a prefix or continuation beyond
    the model's positions, a model without RoPE, and one whose mask hides the prefix from later tokens
    (sliding windows); TypeError for what is no model and for texts in place of ids.
    """
    _servable(model)
    _check(model, len(_ids(prefix_ids, "prefix_ids", model)), tokens, **options)
    reading = read_prefix(model, prefix_ids, written=written, seed=seed)
    return reading.compact(tokens, seed=seed, **options)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Part:
    """Exact attention of (batch, heads, m, d) to the keys (batch, key heads, n, d) of this reading."""
    keys, values = (per_query_head(rows, query) for rows in (key, value))
    return attention_part(query, keys, values, scale=scale, bias=0.0 if mask is None else mask)


def _joined(kept: Kept | None, query: Tensor, later: Part) -> Float[Tensor, "batch heads m w"]:
    """Outputs of attention to the prefix and to what came after it."""
    if kept is None:
        return later.outputs
    heads = len(kept.landmarks.keys)
    grouped = query.unflatten(1, (heads, -1)).flatten(2, 3).float()
    part = kept.landmarks.attend(grouped)
    part = Part(*(x.unflatten(2, (-1, query.shape[2])).flatten(1, 2) for x in part))
    return combine(part, later).outputs.to(query)


def _by_key_head(rows: Tensor, heads: int) -> Tensor:
    """(batch, heads, m, …) → (key heads, query heads of each · batch · m, …)."""
    return rows.unflatten(1, (heads, -1)).movedim(0, 2).flatten(1, 3).float()


def _whole(keys: Rows, values: Rows, scale: float) -> Kept:
    return Kept.of(Landmarks(keys, values, torch.zeros_like(keys[..., 0]), scale))


def _check(
    model: "PreTrainedModel",
    n: int,
    tokens: int | None,
    method: str = "landmarks",
    **options: object,
) -> None:
    """Refuse what can't be kept, before it costs time."""
    one_of(method, "method", ("full", "none", *BITS, *METHODS))
    known = {"seed", "progress"}
    if method in METHODS:
        integer(tokens, "tokens", least=1, most=n)
        _room(model, n + min(n, PASSAGE), "prefix_ids and a passage that is read behind them")
        known |= {"budgets"}
    if method.startswith("landmarks"):
        known |= {"steps", "learning_rate", "start"}
    if unknown := sorted(set(options) - known):
        raise TypeError(f"method {method!r} knows no option {unknown[0]!r}")


def _counts(budgets: Tensor | None, layers: int, n: int, tokens: int) -> list[int]:
    """Tokens of every layer."""
    if budgets is None:
        return [tokens] * layers
    if budgets.shape != (layers,) or budgets.min() < 1 or budgets.max() > n:
        raise ValueError(
            f"budgets must be {layers} numbers of keys from 1 to {n}, one for each layer"
        )
    return budgets.tolist()


def _ids(ids: object, name: str, model: "PreTrainedModel") -> Int64[Tensor, "t"]:
    """Token ids (t,) or (1, t) of the model's vocabulary."""
    if isinstance(ids, str):
        raise TypeError(
            f"{name} must be token ids, not a text: tokenizer(text, return_tensors='pt').input_ids"
        )
    check_ids(ids, name, model.get_input_embeddings().num_embeddings, None)
    if ids.numel() == 0 or ids.numel() != ids.shape[-1]:
        raise ValueError(
            f"{name} must have shape (t,) or (1, t) and not be empty, not {tuple(ids.shape)}"
        )
    return ids.reshape(-1)


def _servable(model: "PreTrainedModel") -> None:
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        inner = "; pass its .model" if hasattr(model, "model") else ""
        raise TypeError(f"model must be a transformers model, not {type(model).__name__}{inner}")
    config = model.config
    if config.is_encoder_decoder or not hasattr(model.base_model, "rotary_emb"):
        raise ValueError(
            f"model must be a decoder that rotates by position (RoPE), not {type(model).__name__}"
        )
    if not model.can_generate():
        raise ValueError(f"model must predict tokens (…ForCausalLM), not be {type(model).__name__}")
    layer_types = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None) and layer_types is None
    if window or "sliding_attention" in (layer_types or ()):
        raise ValueError(
            "model must let every later token see the prefix, but it has sliding windows"
        )


def _room(model: "PreTrainedModel", end: int, name: str) -> None:
    if end > (most := model.config.max_position_embeddings):
        raise ValueError(f"{name} must end within the model's {most} positions, not at {end}")
