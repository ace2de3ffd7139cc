"""What somebody is told who writes a claim, an explorer or an exercise and slips."""

import re
from dataclasses import asdict

import pytest
import torch
import yaml

from helpers.page import check, claims, explore, figures

pytestmark = pytest.mark.bad_input
ENTRY = {
    "note": "spectrum",
    "claim": "Two is enough.",
    "kind": "measurement",
    "chapter": 6,
    "verdict": "holds",
    "measure": "two",
    "holds_if": ">= 1",
    "reference": 2.0,
    "tolerance": 0.1,
    "format": ".2f",
    "finding": "It is.",
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Put a text or entries into a ledger of one's own, which ``judge`` then uses."""

    def written(content):
        path = tmp_path / "claims.yml"
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        path.write_text(text, encoding="utf-8")
        entries = claims.ledger.__wrapped__(path)
        monkeypatch.setattr(claims, "ledger", lambda: entries)
        monkeypatch.setattr(claims, "_judged", {})
        monkeypatch.setattr(claims, "display", lambda *args, **kwargs: None)
        return entries

    return written


@pytest.mark.parametrize("rule", [">= 1", "> 1.5", "<= 1e3", "< 2.5e+1", "> -1", ">= .5"])
def test_rules_that_are_understood(write, rule):
    assert write({"X01": {**ENTRY, "holds_if": rule}})["X01"].passes(2.0)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("holds_if", ">=1", "holds_if must be like '>= 0.95', with the space, not '>=1'"),
        ("holds_if", ">= one", "holds_if must be like"),
        ("holds_if", "=> 1", "holds_if must be like"),
        ("holds_if", 1, "holds_if must be like '>= 0.95', with the space, not 1"),
        ("reference", "2", "reference must be a number, not '2'"),
        ("reference", float("nan"), "reference must be a number, not nan"),
        ("reference", float("inf"), "reference must be a number, not inf"),
        ("tolerance", "0.1", "tolerance must be a number ≥ 0, not '0.1'"),
        ("format", ".2q", "format must be like '.2f', not '.2q'"),
        ("format", 2, "format must be like '.2f', not 2"),
        ("chapter", "6", "chapter must be a whole number, not '6'"),
        ("chapter", True, "chapter must be a whole number, not True"),
    ],
)
def test_a_slip_in_an_entry(write, field, value, said):
    with pytest.raises(ValueError, match=f"^X01: {re.escape(said)}"):
        write({"X01": {**ENTRY, field: value}})


def test_an_entry_without_a_test_needs_no_numbers(write):
    tested = ("measure", "holds_if", "reference", "tolerance", "format", "finding")
    entry = {name: value for name, value in ENTRY.items() if name not in tested}
    (claim,) = write({"X01": {**entry, "verdict": claims.UNTESTED}}).values()
    assert {asdict(claim)[name] for name in tested} == {None}
    with pytest.raises(ValueError, match=r"X01 is measured here \(2.5\), but the ledger calls it"):
        claims.judge("X01", 2.5)


def test_a_colon_in_a_claim_is_pointed_at(write):
    with pytest.raises(ValueError, match=r"(?s)^claims.yml must be YAML; quote .*line 2"):
        write("X01:\n  claim: here: it breaks\n")


def test_judging_a_claim_without_an_entry_tells_the_number(write):
    write({"X01": ENTRY})
    with pytest.raises(
        KeyError, match=r"X02 is not in claims.yml: add .* restart .*\(measured: 2.5\)"
    ):
        claims.judge("X02", torch.tensor([2.0, 2.5, 3.0]))


@pytest.mark.parametrize(
    ("measured", "error", "said"),
    [
        ("2", TypeError, "^measured must be a number or a tensor for X01, not '2'"),
        (None, TypeError, "^measured must be a number or a tensor for X01, not None"),
        (torch.tensor([]), ValueError, "^measured must not be empty for X01"),
    ],
)
def test_judging_what_is_no_number(write, measured, error, said):
    write({"X01": ENTRY})
    with pytest.raises(error, match=said):
        claims.judge("X01", measured)


@pytest.mark.parametrize("value", [0.5, 2.5])
def test_whoever_changed_the_experiment_may_go_on(write, value):
    write({"X01": ENTRY})
    with pytest.raises(claims.ClaimError, match="changed the experiment .* go on with the next"):
        claims.judge("X01", value)


def test_the_verdicts_name_all_cells_that_have_not_run(write):
    write(dict.fromkeys(("X01", "X02", "X03"), ENTRY))
    claims.judge("X02", 2.0)
    with pytest.raises(KeyError, match="not judged yet: X01, X03; run the cells above"):
        claims.verdicts(6)
    with pytest.raises(ValueError, match=r"^chapter must have claims in claims.yml, but 7 has"):
        claims.verdicts(7)


def draw(rank):
    return figures.panel("title", "x", "y"), f"rank {1 / rank:g}"


@pytest.mark.parametrize("values", [3, "abc", torch.tensor([1, 2]), {1, 2}])
def test_values_of_an_explorer_are_a_list(values):
    with pytest.raises(TypeError, match="^rank must be a list of values, not "):
        explore.explore(draw, rank=values)


def test_values_in_the_place_of_the_caption():
    with pytest.raises(TypeError, match=r"^caption must be text, not \[1, 2\]"):
        explore.explore(draw, [1, 2], rank=[1])


def test_a_drawing_that_fails_says_where():
    with pytest.raises(ZeroDivisionError) as caught:
        explore.explore(draw, rank=[1, 0])
    assert caught.value.__notes__ == ["The explorer was drawing its state {'rank': 0}."]


# --- exercises --------------------------------------------------------------------------------


def test_no_case_is_no_check():
    with pytest.raises(ValueError, match="^cases must have at least one case"):
        check(lambda x: x, [], hint="")


def test_an_answer_that_works_in_place_spoils_no_case():
    cases = [((torch.ones(2), 1.0), torch.full((2,), 2.0))]
    for _ in range(2):
        assert check(lambda x, step: x.add_(step), cases, hint="").passed
    assert cases[0][0][0].tolist() == [1.0, 1.0]


def test_an_imaginary_part_where_none_belongs_is_an_error():
    cases = [((), torch.tensor([1.0, 2.0]))]
    assert check(lambda: torch.tensor([1.0 + 0j, 2.0]), cases, hint="").passed
    wrong = check(lambda: torch.tensor([1.0 + 3j, 2.0]), cases, hint="")
    assert "off by 3" in wrong.message


@pytest.mark.filterwarnings("error")
def test_an_answer_may_carry_a_gradient():
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    assert check(lambda: weight, [((), weight.detach())], hint="").passed
    assert check(lambda: 2.0, [((), weight)], hint="").passed
