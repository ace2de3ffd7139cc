"""What a reader is told about an answer, and that nothing a reader writes is an error."""

import sys

import pytest
import torch

from helpers.page import check, exercises, guess

HINT = "Look."


class UnspeakableError(Exception):
    def __str__(self):
        raise ValueError("not even this")


def raising(error):
    raise error


def feedback(answer, expected):
    """Of an answer that does ``answer()``, or returns it if it can't be called."""
    return check(answer if callable(answer) else lambda: answer, [((), expected)], hint=HINT)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (4.0 + 1e-9, 4),
        ([1, 2], torch.tensor([1.0, 2.0])),
        (torch.tensor([1 + 2j, 3.0]), torch.tensor([1 + 2j, 3.0])),
        (torch.tensor([1.0 + 0j, 2.0]), torch.tensor([1.0, 2.0])),
        (torch.eye(2).to_sparse(), torch.eye(2)),
        (torch.ones(2).bfloat16(), torch.ones(2)),
        (torch.ones(2, requires_grad=True), torch.ones(2)),
        (2.0, torch.tensor(2.0, requires_grad=True)),
        (torch.empty(0), torch.empty(0)),
        (float("inf"), torch.inf),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_right_answer_passes_however_it_is_given(answer, expected):
    assert feedback(answer, expected).message == "Correct: the case agrees within 1e-08."


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        (5, 4.0, "in case 1 the answer is off by 1 (5, expected 4)"),
        (4 + 1e-6, 4.0, "in case 1 the answer is off by 1e-06 (4, expected 4)"),
        (2j, 1j, "in case 1 the answer is off by 1"),
        (torch.tensor([1 + 3j, 2]), torch.tensor([1.0, 2]), "in case 1 the answer is off by 3"),
        (torch.tensor([1.0, 2]), torch.tensor([1 + 3j, 2]), "in case 1 the answer is off by 3"),
        (torch.ones(2), torch.tensor([1.0, 3.0]), "in case 1 the answer is off by 2"),
        (float("nan"), 1.0, "in case 1 the answer is off by nan (nan, expected 1)"),
        (torch.ones(3), torch.ones(2), "in case 1 the shape is (3,), expected (2,)"),
        (
            "four",
            4.0,
            "in case 1 the function returned a str, which is no number or tensor of numbers",
        ),
        (
            torch.ones(2, device="meta"),
            torch.ones(2),
            "in case 1 the function returned a Tensor, which is no number or tensor of numbers",
        ),
        (lambda: 1 / 0, 1.0, "case 1 raised ZeroDivisionError: division by zero"),
        (lambda: sys.exit("enough"), 1.0, "case 1 raised SystemExit: enough"),
        (lambda: raising(GeneratorExit()), 1.0, "case 1 raised GeneratorExit: "),
        (lambda: raising(UnspeakableError()), 1.0, "case 1 raised UnspeakableError"),
    ],
)
def test_a_wrong_answer_gets_a_reason_and_the_hint(answer, expected, said):
    told = feedback(answer, expected)
    assert not told.passed
    assert told.message == f"Not yet: {said}."
    assert repr(told) == f"Not yet: {said}. Hint: {HINT}"


@pytest.mark.parametrize("answer", [None, ...])
def test_no_answer_yet_gets_no_hint(answer):
    told = feedback(answer, 1.0)
    assert repr(told) == told.message == "Not yet: replace the dots by your answer."
    assert HINT not in told._repr_html_()


def test_a_guess_is_asked_for_before_the_answer_is_told(monkeypatch):
    shown = []
    monkeypatch.setattr(exercises, "display", shown.append)
    guess("How many < 9?", 208, "Measured: 208 & more.", most=1024)
    page = shown[0].data
    assert "How many &lt; 9?" in page.partition("<details>")[0]
    assert "208" not in page.partition("<details>")[0].replace('data-answer="208"', "")
    assert "Measured: 208 &amp; more." in page.partition("<details>")[2]


def test_an_answer_without_an_end_can_be_stopped():
    with pytest.raises(KeyboardInterrupt):
        feedback(lambda: raising(KeyboardInterrupt()), 1.0)


def test_cases_are_counted_and_the_tolerance_is_met_exactly():
    cases = [((1,), 1.0), ((2,), 2.0)]
    right = check(lambda x: x + 0.5, cases, hint=HINT, tolerance=0.5)
    assert right.message == "Correct: all 2 cases agree within 0.5."
    wrong = check(lambda x: 1.0, cases, hint=HINT)
    assert wrong.message == "Not yet: in case 2 the answer is off by 1 (1, expected 2)."


def test_an_answer_that_works_in_place_spoils_no_case():
    cases = [((torch.ones(2), 1.0), torch.full((2,), 2.0))]
    for _ in range(2):
        assert check(lambda x, step: x.add_(step), cases, hint=HINT).passed


def test_no_case_is_no_check():
    with pytest.raises(ValueError, match="^cases must have at least one case"):
        check(lambda x: x, [], hint=HINT)


@pytest.mark.parametrize(("answer", "state"), [(1.0, "passed"), (2.0, "open")])
def test_feedback_is_escaped_html(answer, state):
    shown = check(lambda: answer, [((), 1.0)], hint="a < b")._repr_html_()
    assert shown.startswith(f'<div class="af-feedback af-{state}">')
    folded = "<details><summary>Hint</summary>a &lt; b</details>"
    assert (folded in shown) == (state == "open")
