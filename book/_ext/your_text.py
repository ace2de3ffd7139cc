"""The model of the page that computes: MiniLM's weights as scripts that the page loads after a click.

A script is what a browser loads from a file as well as from a server. Each hands its part, in base64, to
minilm.js: a layer, the vocabulary, or the embeddings of 64 neighbouring words. A matrix is rounded to 16-bit
integers in units of its own, one for each row and each column. float16 takes as many bytes and is ten times
coarser: too coarse for singular values to 1e-3. LICENSE says whose weights they are.
"""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import numpy as np
import safetensors.numpy
from docutils import nodes
from sphinx.application import Sphinx

from helpers.models.files import read_verified
from helpers.models.minilm import MINILM_SHA256, minilm_folder

PAGE = "book/your_text"
FOLDER = "_static/minilm"  # minilm.js looks there
MOST_TOKENS = 64
WORDS_PER_FILE = 64
LARGEST = 2**15 - 1

Weights = dict[str, np.ndarray]

# In the order in which minilm.js reads them.
LAYER = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)


def rounded(matrix: np.ndarray) -> bytes:
    """Units of the columns and of the rows as float32, then the matrix in these units as 16-bit integers.

    The columns are brought to one size first; then the largest entry of each row gets all the bits.
    """
    columns = np.sqrt(np.mean(matrix**2, axis=0, dtype=np.float32))
    matrix = matrix / columns
    rows = np.abs(matrix).max(1) / np.float32(LARGEST)
    whole = np.rint(matrix / rows[:, None])
    return b"".join(part.tobytes() for part in (columns, rows, whole.astype("<i2")))


def linear(weights: Weights, name: str) -> bytes:
    """A matrix with its bias, or the gain and the bias of a layer norm."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"].astype("<f4").tobytes()
    return bias + (weight.astype("<f4").tobytes() if weight.ndim == 1 else rounded(weight))


def parts(weights: Weights, tokenizer: dict) -> dict[str, str | bytes]:
    """What each file holds, by its name."""
    layers = 1 + max(int(name.split(".")[2]) for name in weights if ".layer." in name)
    words = weights["embeddings.word_embeddings.weight"]
    places = weights["embeddings.position_embeddings.weight"][:MOST_TOKENS]
    places = places + weights["embeddings.token_type_embeddings.weight"][0]
    vocabulary = tokenizer["model"]["vocab"]
    held: dict[str, str | bytes] = {
        "vocabulary": "\n".join(sorted(vocabulary, key=vocabulary.__getitem__)),
        "places": rounded(places) + linear(weights, "embeddings.LayerNorm"),
    }
    for layer in range(layers):
        # Of the last one only the attention is seen.
        needed = LAYER if layer < layers - 1 else LAYER[:2]
        names = (f"encoder.layer.{layer}.{name}" for name in needed)
        held[f"layer-{layer}"] = b"".join(linear(weights, name) for name in names)
    for first in range(0, len(words), WORDS_PER_FILE):
        rows = words[first : first + WORDS_PER_FILE]
        held[f"words-{first // WORDS_PER_FILE}"] = rounded(rows)
    return held


def write_model(app: Sphinx, exception: Exception | None) -> None:
    """Write the scripts into the site, if the page is in it."""
    if exception is not None or app.builder.name != "html" or PAGE not in app.env.found_docs:
        return
    files = {
        name: read_verified(minilm_folder() / name, MINILM_SHA256[name])
        for name in ("model.safetensors", "tokenizer.json")
    }
    weights = safetensors.numpy.load(files["model.safetensors"])
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts(weights, json.loads(files["tokenizer.json"])).items():
        text = part if isinstance(part, str) else b64encode(part).decode()
        script = f"MiniLM.receive({json.dumps(name)}, {json.dumps(text)});\n"
        (folder / f"{name}.js").write_text(script, "ascii")


def add_scripts(
    app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None
) -> None:
    """Only the page that computes loads what computes."""
    if page == PAGE:
        app.add_js_file("minilm.js")
        app.add_js_file("your_text.js")


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("build-finished", write_model)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
