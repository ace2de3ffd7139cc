"""The ledger: what an entry may say, what judging shows, and what it refuses."""

import re
from dataclasses import asdict

import pytest
import torch
import yaml

from helpers.page import claims

ENTRY = {
    "note": "spectrum",
    "words": "The note's words.",
    "since": 1,
    "claim": "Five is `enough` for $\\le 6$.",
    "kind": "measurement",
    "chapter": 6,
    "verdict": "holds",
    "measure": "five",
    "holds_if": "<= 6",
    "reference": 5.0,
    "tolerance": 0.1,
    "format": ".1f",
    "finding": "It is.",
}
NUMBERS = ("measure", "holds_if", "reference", "tolerance", "format")
PROVEN = {k: v for k, v in ENTRY.items() if k not in NUMBERS} | {"kind": "theorem"}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Put a text or entries into a ledger of one's own, which ``judge`` then uses."""

    def written(content):
        path = tmp_path / "claims.yml"
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        path.write_text(text, encoding="utf-8")
        entries = claims.ledger.__wrapped__(path)
        monkeypatch.setattr(claims, "ledger", lambda: entries)
        return entries

    return written


@pytest.fixture
def shown(monkeypatch):
    """What is displayed: cards as HTML, bound numbers as (name, text, metadata)."""
    found = []

    def display(data, *, raw=False, metadata=None):
        (text,) = data.values() if raw else [data.data]
        found.append((metadata["scrapbook"]["name"], text, metadata) if raw else text)

    monkeypatch.setattr(claims, "display", display)
    return found


def test_judging_binds_the_median_and_the_spread_with_their_tolerance_and_shows_a_card(
    write, shown
):
    write({"X01": ENTRY})
    claims.judge("X01", torch.tensor([4.9, 5.04, 5.1], dtype=torch.float64))
    value, spread, card = shown
    assert value[:2] == ("X01", "'5.0'")
    assert (value[2]["value"], value[2]["tolerance"]) == (5.04, 0.1)
    assert spread[:2] == ("X01_spread", "'4.9 to 5.1'")
    assert spread[2]["tolerance"] == 0.1
    assert card == (
        '<div class="af-claim af-holds" id="claim-X01" data-tolerance="0.1">'
        "<strong>X01 ✓ holds</strong><br><span>Five is enough for $\\le 6$.</span><br>"
        "<span>Measured: five = <b>5.0 (4.9 to 5.1)</b>, holds if at most 6</span></div>"
    )


def test_what_is_proven_has_no_number(write, shown):
    write({"X01": PROVEN})
    claims.judge("X01")
    assert shown == [
        '<div class="af-claim af-holds" id="claim-X01"><strong>X01 ✓ holds</strong><br>'
        "<span>Five is enough for $\\le 6$.</span></div>"
    ]
    with pytest.raises(ValueError, match="measured must be the ledger's None for X01, not 5.0"):
        claims.judge("X01", 5.0)


@pytest.mark.parametrize(
    ("change", "value", "said"),
    [
        ({}, 5.11, r"ledger 5 ± 0.1\. If you have changed the experiment on purpose, go on"),
        ({}, 4.89, "ledger 5 ± 0.1"),
        ({"tolerance": 2}, 6.5, "rule <= 6: not the ledger's verdict 'holds'"),
        (
            {"verdict": "fails", "holds_if": "< 4"},
            3.9,
            "rule < 4: not the ledger's verdict 'fails'",
        ),
        (
            {"holds_if": "> -1e3", "tolerance": 1e4},
            -1001.0,
            "rule > -1e3: not the ledger's verdict",
        ),
    ],
)
def test_a_number_that_moved_or_crossed_its_rule(write, change, value, said):
    write({"X01": {**ENTRY, **change}})
    with pytest.raises(claims.ClaimError, match=said):
        claims.judge("X01", value)


@pytest.mark.parametrize(
    ("rule", "form", "words"),
    [
        (">= 0.95", ".0%", "at least 95%"),
        (">= 3.5", ".0f", "at least 3.5"),  # rounded, it would decide otherwise
        ("<= 1e-6", ".2f", "at most 1e−6"),
        ("<= -0.9", ".2f", "at most −0.9"),
        ("< 2", ".1f", "below 2"),
        ("> 1", "g", "above 1"),
    ],
)
def test_a_rule_is_put_into_words(rule, form, words):
    claim = claims.Claim(**{**ENTRY, "id": "X01", "holds_if": rule, "format": form})
    assert claim.rule() == words


@pytest.mark.bad_input
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy, of a mean of nothing
@pytest.mark.parametrize(
    ("measured", "error", "said"),
    [
        (None, ValueError, "^measured must be the ledger's 'five' for X01, not None"),
        (float("nan"), ValueError, "^measured must be the ledger's 'five' for X01, not nan"),
        (torch.tensor([]), ValueError, "^measured must be the ledger's 'five' for X01, not nan"),
    ],
)
def test_what_is_no_number(write, measured, error, said):
    write({"X01": ENTRY})
    with pytest.raises(error, match=said):
        claims.judge("X01", measured)


def test_what_the_ledger_lacks_or_calls_untested(write):
    untested = {k: v for k, v in PROVEN.items() if k != "finding"} | {"verdict": claims.UNTESTED}
    (claim,) = write({"X01": untested}).values()
    assert {asdict(claim)[name] for name in NUMBERS} == {None}
    with pytest.raises(
        ValueError, match=r"X01 is judged here \(value=2.5\), but the ledger calls it"
    ):
        claims.judge("X01", 2.5)
    with pytest.raises(KeyError, match=r"X02 is not in claims.yml: add .* restart .*value=2.5"):
        claims.judge("X02", torch.tensor([2.0, 2.5, 3.0]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"holds_if": "<=6"}, "X01, holds_if: '<=6' does not match"),
        ({"holds_if": "<= six"}, "X01, holds_if: '<= six' does not match"),
        ({"holds_if": "=> 6"}, "X01, holds_if: '=> 6' does not match"),
        ({"reference": "5"}, "X01, reference: '5' is not of type 'number'"),
        ({"tolerance": -1}, "X01, tolerance: -1 is less than the minimum of 0"),
        ({"format": ".2q"}, "X01, format: '.2q' does not match"),
        ({"chapter": "6"}, "X01, chapter: '6' is not of type 'integer'"),
        ({"chapter": True}, "X01, chapter: True is not of type 'integer'"),
        ({"verdict": "true"}, "X01, verdict: 'true' is not one of"),
        ({"kind": "guess"}, "X01, kind: 'guess' is not one of"),
        ({"note": "mine"}, "X01, note: 'mine' is not one of"),
        ({"finding": None}, "X01, finding: None is not of type 'string'"),
        ({"by": "me"}, r"X01: Additional properties are not allowed \('by' was unexpected\)"),
        ({"verdict": "not yet tested"}, "X01: False schema does not allow .(five|It is.)"),
        ({"verdict": "not testable as stated"}, "X01: False schema does not allow .<= 6"),
        ({"verdict": "fails"}, "^X01: reference 5.0 contradicts 'fails'"),
        ({"reference": 7.0}, "^X01: reference 7.0 contradicts 'holds'"),
    ],
)
def test_a_slip_in_an_entry(write, change, said):
    with pytest.raises(ValueError, match=said):
        write({"X01": {**ENTRY, **change}})


@pytest.mark.parametrize(
    "field", ["finding", "measure", "reference", "tolerance", "format", "holds_if"]
)
def test_a_measurement_has_all_its_fields(write, field):
    with pytest.raises(
        ValueError, match=f"claims.yml: X01: .*'{field}' is a (required|dependency)"
    ):
        write({"X01": {k: v for k, v in ENTRY.items() if k != field}})


@pytest.mark.parametrize("rule", [">= 1", "> 1.5", "<= 1e3", "< 2.5e+1", "> -1", ">= .5"])
def test_rules_that_are_understood(write, rule):
    assert write({"X01": {**ENTRY, "holds_if": rule}})["X01"].agrees(5.0)


def test_a_colon_in_a_claim_is_pointed_at(write):
    with pytest.raises(yaml.YAMLError, match=r'(?s)claims.yml", line 2'):
        write("X01:\n  claim: here: it breaks\n")


def test_the_ledger_has_all_claims_of_the_three_notes():
    notes = (("F", 32), ("S", 14), ("Q", 10))
    wanted = [f"{letter}{i:02}" for letter, last in notes for i in range(1, last + 1)]
    assert list(claims.ledger()) == wanted


def test_the_schema_allows_what_the_code_knows():
    schema = yaml.safe_load(claims.LEDGER.with_suffix(".schema.json").read_text("utf-8"))
    fields = schema["additionalProperties"]["properties"]
    assert tuple(fields["verdict"]["enum"]) == claims.VERDICTS
    assert tuple(fields["kind"]["enum"]) == claims.KINDS
    assert tuple(fields["note"]["enum"]) == claims.NOTES
    assert all(re.search(fields["holds_if"]["pattern"], f"{c} 1") for c in claims.COMPARISONS)
