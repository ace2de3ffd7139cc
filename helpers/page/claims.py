"""The claim ledger: what is claimed, how it was tested, and what came out.

``book/claims.yml`` holds one entry per claim. A notebook calls :func:`judge` with what it has
measured; the ledger page is made from the same file.
"""

import functools
import html
import math
import operator
import re
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

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
RULE = re.compile(r"(>=|<=|>|<) [-+]?[0-9.]+(e[-+]?[0-9]+)?")
ON_PURPOSE = "If you have changed the experiment on purpose, go on with the next cell."
COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


class ClaimError(AssertionError):
    """A measured value or a verdict is not what the ledger says."""


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger. Texts are MyST Markdown; numbers are in the unit of ``measure``."""

    id: str
    note: str
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

    def __post_init__(self) -> None:
        for name, allowed in (("note", NOTES), ("kind", KINDS), ("verdict", VERDICTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{self.id}: {name} must be one of {allowed}, not {getattr(self, name)!r}"
                )
        tested = self.verdict != UNTESTED
        for name in ("measure", "reference", "tolerance", "format", "finding"):
            if (getattr(self, name) is not None) != tested:
                raise ValueError(
                    f"{self.id}: {name} must be given exactly when the claim is tested"
                )
        if (self.holds_if is not None) != (self.verdict in (*PASSING, "fails")):
            raise ValueError(
                f"{self.id}: holds_if must be given exactly when the verdict is yes or no"
            )
        self._check_values(tested)
        if self.holds_if is not None and self.passes(self.reference) != (self.verdict in PASSING):
            raise ValueError(f"{self.id}: reference {self.reference} contradicts {self.verdict!r}")

    def _check_values(self, tested: bool) -> None:
        """What YAML lets through: a quoted number, a rule without its space, an unknown format."""
        if isinstance(self.chapter, bool) or not isinstance(self.chapter, int):
            raise ValueError(f"{self.id}: chapter must be a whole number, not {self.chapter!r}")
        if not tested:
            return
        if not (isinstance(self.tolerance, int | float) and self.tolerance >= 0):
            raise ValueError(f"{self.id}: tolerance must be a number ≥ 0, not {self.tolerance!r}")
        if not (isinstance(self.reference, int | float) and math.isfinite(self.reference)):
            raise ValueError(f"{self.id}: reference must be a number, not {self.reference!r}")
        if self.holds_if is not None and not RULE.fullmatch(str(self.holds_if)):
            raise ValueError(
                f"{self.id}: holds_if must be like '>= 0.95', with the space, not {self.holds_if!r}"
            )
        try:
            format(self.reference, self.format)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.id}: format must be like '.2f', not {self.format!r}"
            ) from error

    def passes(self, value: float) -> bool:
        """Whether ``value`` satisfies the decision rule ``holds_if``, e.g. ">= 0.95"."""
        comparison, bound = self.holds_if.split()
        return COMPARISONS[comparison](value, float(bound))


@functools.cache
def ledger(path: Path = LEDGER) -> dict[str, Claim]:
    """All claims by id, in the file's order. Raises ValueError for a malformed file or entry."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(
            f"{path.name} must be YAML; quote a text with ': ' in it. {error}"
        ) from error
    claims = {}
    for id_, entry in entries.items():
        try:
            claims[id_] = Claim(id=id_, **entry)
        except TypeError as error:
            raise ValueError(f"{path.name}: {id_}: {error}") from error
    return claims


def judge(id_: str, measured: Tensor | float) -> None:
    """Hold what was measured against the ledger, show the verdict, bind the number for prose.

    ``measured`` is a number, or a tensor of repetitions (seeds, texts), of which the median counts
    and the smallest and largest are the spread. The number is glued as ``id_``, the spread as
    ``id_ + "_spread"``.

    Raises ClaimError if the number leaves reference ± tolerance or lies on the other side of the
    decision rule; KeyError for an id that the ledger lacks; ValueError for a claim that the
    ledger calls untested, for an empty tensor and for NaN; TypeError for what is no number.
    """
    if not isinstance(measured, Tensor | Real):
        raise TypeError(f"measured must be a number or a tensor for {id_}, not {measured!r}")
    if isinstance(measured, Tensor) and measured.numel() == 0:
        raise ValueError(f"measured must not be empty for {id_}")
    value = median(measured)
    if id_ not in ledger():
        raise KeyError(
            f"{id_} is not in {LEDGER.name}: add it and restart the kernel (measured: {value:.6g})"
        )
    claim = ledger()[id_]
    if claim.verdict == UNTESTED:
        raise ValueError(
            f"{id_} is measured here ({value:.6g}), but the ledger calls it {UNTESTED!r}"
        )
    if value != value:
        raise ValueError(f"measured must be a number for {id_}, not NaN")
    if claim.holds_if and claim.passes(value) != (claim.verdict in PASSING):
        raise ClaimError(
            f"{id_}: measured {value:.6g}, rule {claim.holds_if}: "
            f"not the ledger's verdict {claim.verdict!r}. {ON_PURPOSE}"
        )
    if abs(value - claim.reference) > claim.tolerance:
        raise ClaimError(
            f"{id_}: measured {value:.6g}, ledger {claim.reference:g} ± {claim.tolerance:g}. "
            f"{ON_PURPOSE}"
        )
    bind(id_, value, claim.format, tolerance=claim.tolerance)
    number = printed(value, claim.format, claim.tolerance)
    if isinstance(measured, Tensor) and measured.numel() > 1:
        bind(f"{id_}_spread", spread(measured, claim.format, claim.tolerance))
        number = median_range(measured, claim.format, claim.tolerance)
    _judged[id_] = number
    display(HTML(card(claim, number)))


_judged: dict[str, str] = {}


def verdicts(chapter: int) -> list[list[str]]:
    """Rows (claim, verdict, measured, rule) of a chapter, with the numbers that ``judge`` has shown.

    Raises KeyError if some of the chapter's claims have not been judged in this session, ValueError
    for a chapter without claims.
    """
    of_chapter = [claim for claim in ledger().values() if claim.chapter == chapter]
    if not of_chapter:
        raise ValueError(f"chapter must have claims in {LEDGER.name}, but {chapter!r} has none")
    missing = [claim.id for claim in of_chapter if claim.id not in _judged]
    if missing:
        raise KeyError(f"not judged yet: {', '.join(missing)}; run the cells above that judge them")
    return [
        [c.id, f"{SYMBOLS[c.verdict]} {c.verdict}", _judged[c.id], _rule(c)] for c in of_chapter
    ]


def card(claim: Claim, number: str) -> str:
    """The verdict as a small HTML card, with the id that the ledger page links to."""
    rule = f", holds if {_rule(claim)}" if claim.holds_if else ""
    lines = (
        f"<strong>{claim.id} {SYMBOLS[claim.verdict]} {claim.verdict}</strong>",
        f"<span>{_plain(claim.claim)}</span>",
        f"<span>Measured: {_plain(claim.measure)} = <b>{html.escape(number)}</b>{html.escape(rule)}</span>",
    )
    kind = claim.verdict.replace(" ", "-")
    return (
        f'<div class="af-claim af-{kind}" id="claim-{claim.id}" data-tolerance="{claim.tolerance:g}">'
        f"{'<br>'.join(lines)}</div>"
    )


def bind(
    name: str,
    value: Tensor | float | str,
    spec: str = "",
    *,
    tolerance: float | None = None,
) -> None:
    """Glue a number under ``name``: prose shows it with {glue:text}, and tests compare it.

    A tensor is bound by its median, in the format ``spec``; a string as it is. On another machine
    the number may move by ``tolerance``; without one, by one unit of its last printed digit.
    """
    metadata: dict[str, object] = {
        "scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}
    }
    if isinstance(value, str):
        text = value
        tolerance = getattr(value, "tolerance", None) if tolerance is None else tolerance
    else:
        metadata["value"] = float(f"{median(value):.6g}")
        text = printed(median(value), spec)
    if tolerance is not None:
        metadata["tolerance"] = tolerance
    record = {"application/papermill.record/text/plain": repr(str(text))}
    display(record, raw=True, metadata=metadata)


def _rule(claim: Claim) -> str:
    return (claim.holds_if or "–").replace("<=", "≤").replace(">=", "≥").replace(" -", " −")


def _plain(markdown: str) -> str:
    """The text of a claim for HTML outside Markdown: math stays for MathJax, roles go."""
    text = re.sub(r"\{[a-z:]+\}`([^`]*)`", r"\1", markdown)
    return html.escape(re.sub(r"[*`]", "", text))
