"""The claim ledger: what is claimed, how it was tested, and what came out.

``book/claims.yml`` holds one entry per claim, in the form of ``book/claims.schema.json``. A notebook
calls :func:`judge` with what it has measured; the ledger page is made from the same file.
"""

import functools
import html
import json
import operator
import re
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import yaml
from IPython.display import HTML, display
from torch import Tensor

from helpers.page.numbers import median, median_range, printed, spread

LEDGER = Path(__file__).parents[2] / "book" / "claims.yml"
NOTES = ("factorization", "spectrum", "softmax-QK")
KINDS = ("theorem", "measurement", "citation")
PASSING = ("holds", "holds with a correction")
UNTESTED = "not yet tested"
VERDICTS = (*PASSING, "fails", "not testable as stated", UNTESTED)
SYMBOLS = dict(zip(VERDICTS, "✓✎✗?…", strict=True))
ON_PURPOSE = "If you have changed the experiment on purpose, go on with the next cell."
COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
RULES = dict(zip(COMPARISONS, ("at least", "at most", "above", "below"), strict=True))


class ClaimError(AssertionError):
    """A measured value or a verdict is not what the ledger says."""


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger. Texts are MyST Markdown; numbers are in the unit of ``measure``.

    What a proof or a cited work decides has no ``measure``, and none of the numbers.
    """

    id: str
    note: str
    words: str
    """How the note says it."""
    since: int
    """The edition since which the verdict stands."""
    claim: str
    kind: str
    chapter: int
    verdict: str
    measure: str | None = None
    holds_if: str | None = None
    reference: float | None = None
    tolerance: float | None = None
    format: str | None = None
    finding: str | None = None

    def agrees(self, value: float) -> bool:
        """Whether the decision rule ``holds_if``, e.g. ">= 0.95", gives the verdict at ``value``."""
        if self.holds_if is None:
            return True
        comparison, bound = self.holds_if.split()
        return COMPARISONS[comparison](value, float(bound)) == (self.verdict in PASSING)

    def rule(self) -> str:
        """``holds_if`` in words and in the unit of the number: "at least 95%" for ">= 0.95" and ".0%"."""
        comparison, bound = self.holds_if.split()
        return f"{RULES[comparison]} {self.exact(float(bound))}"

    def exact(self, value: float) -> str:
        """A number of the entry with all its digits: ``format`` rounds, and a rounded rule may decide otherwise."""
        if self.format.endswith("%"):
            return f"{100 * value:g}%".replace("-", "−")
        return re.sub(r"e-0?(\d+)", r"e−\1", f"{value:g}").replace("-", "−")


@functools.cache
def ledger(path: Path = LEDGER) -> dict[str, Claim]:
    """All claims by id, in the file's order.

    Raises yaml.YAMLError for what is no YAML (quote a text with ': ' in it), ValueError for a
    malformed entry.
    """
    with path.open(encoding="utf-8") as file:
        entries = yaml.safe_load(file)
    schema = json.loads(LEDGER.with_suffix(".schema.json").read_text(encoding="utf-8"))
    for error in jsonschema.Draft202012Validator(schema).iter_errors(entries):
        place = ", ".join(str(part) for part in error.absolute_path)
        raise ValueError(f"{path.name}: {place}: {error.message}")
    claims = {id_: Claim(id_, **entry) for id_, entry in entries.items()}
    for claim in claims.values():
        if claim.measure and not claim.agrees(claim.reference):
            raise ValueError(
                f"{claim.id}: reference {claim.reference} contradicts {claim.verdict!r}"
            )
    return claims


def judge(id_: str, measured: Tensor | float | None = None) -> None:
    """Hold what was measured against the ledger, show the verdict, bind the number for prose.

    ``measured`` is a number, or a tensor of repetitions (seeds, texts), of which the median counts
    and the smallest and largest are the spread; nothing for a claim that has no ``measure``. The
    number is glued as ``id_``, the spread as ``id_ + "_spread"``, both with the ledger's tolerance.

    Raises ClaimError if the number leaves reference ± tolerance or lies on the other side of the
    decision rule; KeyError for an id that the ledger lacks; ValueError for a claim that the
    ledger calls untested, for NaN and no entries.
    """
    value = None if measured is None else median(measured)
    if id_ not in ledger():
        raise KeyError(f"{id_} is not in {LEDGER.name}: add it and restart the kernel ({value=})")
    claim = ledger()[id_]
    if claim.verdict == UNTESTED:
        raise ValueError(f"{id_} is judged here ({value=}), but the ledger calls it {UNTESTED!r}")
    if (value is None) != (claim.measure is None) or value != value:
        raise ValueError(f"measured must be the ledger's {claim.measure!r} for {id_}, not {value}")
    number = ""
    if value is not None:
        _hold_against(claim, value)
        bind(id_, value, claim.format, tolerance=claim.tolerance)
        number = printed(value, claim.format, claim.tolerance)
        if isinstance(measured, Tensor) and measured.numel() > 1:
            bind(f"{id_}_spread", spread(measured, claim.format, claim.tolerance))
            number = median_range(measured, claim.format, claim.tolerance)
    display(HTML(card(claim, number)))


def _hold_against(claim: Claim, value: float) -> None:
    if not claim.agrees(value):
        said = f"rule {claim.holds_if}: not the ledger's verdict {claim.verdict!r}"
    elif abs(value - claim.reference) > claim.tolerance:
        said = f"ledger {claim.reference:g} ± {claim.tolerance:g}"
    else:
        return
    raise ClaimError(f"{claim.id}: measured {value:.6g}, {said}. {ON_PURPOSE}")


def card(claim: Claim, number: str) -> str:
    """The verdict as a small HTML card, with the id that the ledger page links to."""
    lines = [
        f"<strong>{claim.id} {SYMBOLS[claim.verdict]} {claim.verdict}</strong>",
        f"<span>{_plain(claim.claim)}</span>",
    ]
    within = ""
    if claim.measure:
        rule = f", holds if {claim.rule()}" if claim.holds_if else ""
        number = f"{_plain(claim.measure)} = <b>{html.escape(number)}</b>{rule}"
        lines.append(f"<span>Measured: {number}</span>")
        within = f' data-tolerance="{claim.tolerance:g}"'
    classes = f"af-claim af-{claim.verdict.replace(' ', '-')}"
    return f'<div class="{classes}" id="claim-{claim.id}"{within}>{"<br>".join(lines)}</div>'


def bind(
    name: str, value: Tensor | float | str, spec: str = "", *, tolerance: float | None = None
) -> None:
    """Glue a number under ``name``: prose shows it with {glue:text}, and tests compare it.

    A tensor is bound by its median, in the format ``spec``; a string as it is. On another machine
    the number may move by ``tolerance``; without one, by one unit of its last printed digit.
    """
    about: dict[str, object] = {"name": name, "mime_prefix": "application/papermill.record/"}
    metadata: dict[str, object] = {"scrapbook": about}
    if not isinstance(value, str):
        metadata["value"] = float(f"{median(value):.6g}")  # beyond these digits is noise
        value = printed(median(value), spec, tolerance)
    tolerance = getattr(value, "tolerance", None) if tolerance is None else tolerance
    if tolerance is not None:
        metadata["tolerance"] = tolerance
    record = {"application/papermill.record/text/plain": repr(str(value))}
    display(record, raw=True, metadata=metadata)


def _plain(markdown: str) -> str:
    """The text of a claim for HTML outside Markdown: math stays for MathJax, roles go."""
    text = re.sub(r"\{[a-z:]+\}`([^`]*)`", r"\1", markdown)
    return html.escape(re.sub(r"[*`]", "", text))
