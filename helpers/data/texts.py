"""The forty texts on which chapter 1 measures attention: ten of each kind."""

import gzip
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Int64
from torch import Tensor

from helpers.maths import integer, integers, one_of, unicode_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT_KINDS = ("prose", "code", "repeated", "random tokens")
TEXTS_PER_KIND = 10

# Word pieces of MiniLM's uncased English vocabulary: special and unused ids lie below 999.
FIRST_WORD_PIECE, VOCABULARY_SIZE = 999, 30522

DATA = Path(__file__).parent
_SENTENCE = re.compile(r"(?:^|(?<=\. ))[A-Z][^.]{60,140}\.(?= |$)")


def text(kind: str, index: int) -> str | Int64[Tensor, "pieces"]:
    """Text number ``index`` (0 … 9) of a kind; each fills MiniLM's window of 512 word pieces.

    * ``"prose"``: paragraphs of Python's documentation (``pydoc_data.topics``);
    * ``"code"``: source of Python's standard library;
    * ``"repeated"``: one sentence of prose text ``index``, over and over;
    * ``"random tokens"``: 510 word-piece ids, uniform and independent, drawn with seed ``index``.

    The last kind is ids, not a string: decoding them and tokenising the string again would not
    give the same word pieces.

    Raises ValueError for an unknown ``kind`` or an ``index`` out of range, TypeError for an
    ``index`` that is not an integer.
    """
    one_of(kind, "kind", TEXT_KINDS)
    index = integer(index, "index", least=0, most=TEXTS_PER_KIND - 1)
    if kind == "random tokens":
        return random_word_pieces(510, seed=index)
    if kind == "repeated":
        # 60 copies of at least 60 characters: more than 512 word pieces of any English sentence.
        return " ".join([first_sentence(text("prose", index))] * 60)
    return (DATA / "texts" / f"{kind}_{index}.txt").read_text(encoding="utf-8")


LONG_KINDS = ("prose", "code", "lists", "random tokens")


def long_ids(
    kind: str, index: int, n: int, tokenizer: "PreTrainedTokenizerBase"
) -> Int64[Tensor, "n"]:
    """The first ``n`` tokens (2,048 at least, of prose three times as many) of long text ``index`` (0 … 9) of a kind.

    * ``"prose"``: a stretch of Python's documentation (:func:`training_text`), tables and examples included;
    * ``"code"``: source of Python's standard library;
    * ``"lists"``: a list of Unicode characters and their names, one a line;
    * ``"random tokens"``: ids of the tokenizer, uniform and independent, drawn with seed ``index``.

    Raises as :func:`text`, and ValueError for a text of less than ``n`` tokens.
    """
    one_of(kind, "kind", LONG_KINDS)
    index = integer(index, "index", least=0, most=TEXTS_PER_KIND - 1)
    n = integer(n, "n", least=1)
    if kind == "random tokens":
        return integers(len(tokenizer), n, seed=index, stream="random tokens")
    if kind == "prose":
        start = index * (len(training_text()) // TEXTS_PER_KIND)
        string = training_text()[start : start + 28_000].partition("\n\n")[2]
    else:
        string = json.loads(gzip.decompress((DATA / "long.json.gz").read_bytes()))[kind][index]
    ids = tokenizer(string, return_tensors="pt").input_ids[0]
    if len(ids) < n:
        raise ValueError(f"n must be at most {len(ids)}, the tokens of {kind} {index}, not {n}")
    return ids[:n]


def dialogue() -> str:
    """A conversation on an island, written for this book: some 1,600 tokens of SmolLM2."""
    return (DATA / "texts" / "dialogue.txt").read_text(encoding="utf-8")


def random_word_pieces(count: int, *, seed: int) -> Int64[Tensor, "count"]:
    """``count`` ids drawn uniformly from MiniLM's ordinary word pieces (999 … 30521)."""
    count = integer(count, "count", least=1)
    low, stream = FIRST_WORD_PIECE, "random word pieces"
    return integers(VOCABULARY_SIZE, count, low=low, seed=seed, stream=stream)


def first_sentence(prose: str) -> str:
    """The first whole sentence of 60 to 140 characters; ValueError if there is none."""
    match = _SENTENCE.search(" ".join(unicode_text(prose, "prose").split()))
    if match is None:
        raise ValueError(f"prose must hold a sentence of 60 to 140 characters: {prose[:60]!r}…")
    return match.group()


def heldout_text() -> str:
    """Documentation text that the committed decoders were not trained on."""
    return (DATA / "heldout.txt").read_text(encoding="utf-8")


def training_text() -> str:
    """Documentation text for training: no paragraph of it stands in :func:`heldout_text`."""
    return gzip.decompress((DATA / "training.txt.gz").read_bytes()).decode("utf-8")
