"""Compare the outputs of notebooks by value: a pytest plugin on top of nbval, which runs the cells.

Other processors use other kernels, so last digits differ. What is compared, and nothing is masked:

- text exactly, but for the spaces that pad a number;
- a number in a text within one unit of its last printed digit, but a lone digit, which is a count,
  exactly; where the output states a tolerance (``claims.bind`` and ``claims.judge`` in the metadata,
  a table's cell or a card as the attribute ``data-tolerance``), within that and the unit that
  rounding can add;
- a figure by the data that it carries (``figures.figure_data``), not by its drawing: a point may
  move by the share of its axis that the data state.

``--moved FILE`` appends every number that moved to FILE, one JSON object per line.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass

import pytest
from nbval.plugin import IPyNbCell

SHADES = 64  # figures.HEAT_COLOURS; an import here would come before the hook of tests/conftest.py
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
# Digits that are glued to a letter (k99, float32) are a name, hence text. So that a column may be
# padded, the spaces before a number belong to it. 10⁻³ is a number too: its last digit is the exponent.
NUMBER = re.compile(
    r" *(?P<number>(?:(?<![\w.)\]])[-−+])?(?<![\w.])"
    r"(?:10(?P<power>⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
    r"|(?P<digits>(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.(?P<decimals>\d*))?(?<=[\d.]))(?<!(?<!\d)\.)"
    r"(?:e(?P<e>[-−+]?\d+)|\s?[·×]\s?10(?P<ten>⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+))?))"
    r"(?!(?!j\b)\w)(?P<percent>\s?%)?"
)
TOLERANT = re.compile(r'<(\w+)[^>]* data-tolerance="([^"]+)"[^>]*>.*?</\1>', re.DOTALL)


@dataclass(frozen=True)
class Pair:
    """One value of a notebook: as committed, as it came out now, and how far it may move."""

    where: str
    was: object
    now: object
    moved: float
    """In the unit of the value; infinite for a text that isn't the same."""
    allowed: float

    @property
    def outside(self) -> bool:
        return not self.moved <= self.allowed * (1 + 1e-9)

    def __str__(self) -> str:
        limit = f", allowed ±{self.allowed:g}" if math.isfinite(self.moved) else ""
        return f"{self.where}: was {self.was!r}, is {self.now!r}{limit}"


def number(match: re.Match[str]) -> tuple[float, float]:
    """The value of a match of NUMBER and one unit of its last printed digit."""
    sign = -1 if match["number"][0] in "-−" else 1
    if match["power"]:
        return sign * float(match["power"].translate(SUPERSCRIPTS)), 1.0
    power = (match["e"] or match["ten"] or "0").translate(SUPERSCRIPTS).replace("−", "-")
    value = float(f"{match['digits'].replace(',', '')}e{power}")
    return sign * value, 10.0 ** (int(power) - len(match["decimals"] or ""))


def allowed_move(match: re.Match[str], tolerance: float | None) -> float:
    """How far a printed number may move; ``tolerance`` is of the number before it was printed."""
    unit = number(match)[1]
    if tolerance is None:
        return 0.0 if re.fullmatch(r"[-−+]?\d", match[0].strip()) else unit
    scaled = tolerance * (100 if match["percent"] else 1)
    # Two rounded numbers can differ by one unit more than what they were before.
    return scaled + unit if scaled else 0.0


def text_pairs(where: str, was: str, now: str, tolerance: float | None = None) -> Iterator[Pair]:
    """The numbers of a text one by one; the text itself if something else differs."""
    if NUMBER.sub("#", was) != NUMBER.sub("#", now):
        yield Pair(where, *_first_difference(was, now), math.inf, 0)
        return
    within = [(match.span(), float(match[2])) for match in TOLERANT.finditer(was)]
    for a, b in zip(NUMBER.finditer(was), NUMBER.finditer(now), strict=True):
        stated = next((t for (start, end), t in within if start <= a.start() < end), tolerance)
        moved = abs(number(b)[0] - number(a)[0])
        place = f"{where}, in “…{was[max(0, a.start() - 30) : a.end() + 10]}…”".replace("\n", " ")
        yield Pair(place, a["number"], b["number"], moved, allowed_move(a, stated))


def value_pair(where: str, printed: str, about: dict, about_now: dict) -> Pair:
    """What ``claims.bind`` has bound, before it was printed."""
    was, now = about["value"], about_now["value"]
    allowed = about.get("tolerance")
    if allowed is None:
        match = NUMBER.search(printed)
        allowed = number(match)[1] / (100 if match["percent"] else 1)
    return Pair(where, was, now, abs(now - was), allowed)


def _first_difference(was: str, now: str) -> tuple[str, str]:
    """What differs first in two long texts, with a little around it."""
    at = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), 0)
    return tuple(text[max(0, at - 40) : at + 80] for text in (was, now))


def figure_pairs(where: str, was: list[str], now: list[str]) -> Iterator[Pair]:
    """What two figures show: places, limits and colours in shares of their axis, words as text."""
    old, new = ([json.loads(line) for line in lines] for lines in (was, now))
    shape, shape_now = ([_shape(part) for part in parts] for parts in (old, new))
    if shape != shape_now:
        first = _first_difference(str(shape), str(shape_now))
        yield Pair(f"{where}, what is drawn", *first, math.inf, 0)
        return
    tolerance = old[0]["tolerance"] if old else 0
    for part, part_now in zip(old, new, strict=True):
        name = next(iter(part))
        for key, value in part.items():
            place = f"{where}, {name} “{part[name]}”, {key}"
            if key not in SHARES:
                yield from text_pairs(place, _words(value), _words(part_now[key]))
                continue
            shares, step = SHARES[key]
            shown = zip(shares(value, part), shares(part_now[key], part), strict=True)
            for position, (a, b) in enumerate(shown):
                moved = math.inf if (a is None) != (b is None) else abs((a or 0) - (b or 0))
                yield Pair(f"{place} {position}", a, b, moved, tolerance + step)


def _words(value: object) -> str:
    return "\n".join(value) if isinstance(value, list) else str(value)


def _shape(part: dict) -> list[str]:
    """The fields of a part, and how many places it has."""
    return [f"{key} {len(value)}" if key in SHARES else key for key, value in part.items()]


def _places(places: list[int | None], part: dict) -> list[float | None]:
    return [None if place is None else place / 1000 for place in places]


def _limits(limits: list[float], part: dict) -> list[float]:
    """Both ends of an axis, in units of the committed axis and along its scale."""
    along = math.log10 if "log" in part["axis"] else float
    low, high = map(along, part["limits"])
    return [(along(limit) - low) / (high - low) for limit in limits]


def _shades(shades: str, part: dict) -> list[float | None]:
    return [None if c == " " else (ord(c) - ord("0")) / SHADES for c in shades]


# How a field of figure_data is read as shares of an axis, and the step that its rounding can add.
SHARES = {"places": (_places, 0.001), "limits": (_limits, 0), "shades": (_shades, 1 / SHADES)}


def values(outputs: list[dict]) -> dict[str, list[tuple[str, dict]]]:
    """Kind of value → values in their order, each with the metadata of its output."""
    found = defaultdict(list)
    for output in outputs:
        metadata = output.get("metadata", {})
        stream = {output["name"]: output["text"]} if output["output_type"] == "stream" else output
        for kind, value in output.get("data", stream).items():
            if "figure" in metadata:
                value = re.sub("<svg.*?</svg>", "<svg/>", value, flags=re.DOTALL)
            found[kind].append((str(value), metadata))
    return found


def pairs(was: list[dict], now: list[dict], skipped: Container[str] = ()) -> Iterator[Pair]:
    """Everything that two lists of outputs show, value by value."""
    old, new = values(was), values(now)
    for kind in dict.fromkeys((*old, *new)):
        if kind in skipped:
            continue
        if len(old[kind]) != len(new[kind]):
            counts = (f"{len(found[kind])} outputs" for found in (old, new))
            yield Pair(kind, *counts, math.inf, 0)
            continue
        for position, ((a, about), (b, about_now)) in enumerate(
            zip(old[kind], new[kind], strict=True)
        ):
            name = about.get("scrapbook", {}).get("name") or f"{kind} {position}"
            yield from text_pairs(name, a, b, about.get("tolerance"))
            if kind == "text/html":
                yield from figure_pairs(name, *(m.get("figure", []) for m in (about, about_now)))
            if "value" in about and "value" in about_now:
                yield value_pair(name, a, about, about_now)


def compare_outputs(
    cell: IPyNbCell, test: list[dict], ref: list[dict], skip_compare: Container[str] = ()
) -> bool:
    """In place of nbval's comparison for equality: the same arguments, the same effects."""
    found = list(pairs(ref, test, skip_compare or cell.parent.skip_compare))
    if file := cell.config.option.moved:
        lines = [{"cell": cell.nodeid, **asdict(pair)} for pair in found if pair.moved]
        with open(file, "a", encoding="utf-8") as out:
            out.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    cell.comparison_traceback = [str(pair) for pair in found if pair.outside]
    return not cell.comparison_traceback


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--moved", metavar="FILE", help="append every number that moved to FILE")


def pytest_configure() -> None:
    IPyNbCell.compare_outputs = compare_outputs
    # A bar appears after some seconds only, so whether it is printed hangs on how busy the machine is.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # those of transformers
