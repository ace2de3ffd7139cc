"""What a reader is told about an answer."""

import pytest
import torch

from helpers.page import check


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        (5, 4.0, "Not yet: in case 1 the answer is off by 1 (5, expected 4). Hint."),
        (2j, 1j, "Not yet: in case 1 the answer is off by 1. Hint."),
        (
            torch.ones(2),
            torch.tensor([1.0, 3.0]),
            "Not yet: in case 1 the answer is off by 2. Hint.",
        ),
        (
            torch.ones(3),
            torch.ones(2),
            "Not yet: in case 1 the shape is (3,), expected (2,). Hint.",
        ),
        ([1, 2], torch.tensor([1.0, 2.0]), "Correct: the case agrees within 1e-08."),
        (4.0 + 1e-9, 4, "Correct: the case agrees within 1e-08."),
    ],
)
def test_the_whole_message(answer, expected, said):
    feedback = check(lambda: answer, [((), expected)], hint="Hint.")
    assert feedback.message == repr(feedback) == said
    assert feedback.passed == said.startswith("Correct")


def test_cases_are_counted_and_the_tolerance_is_met_exactly():
    cases = [((1,), 1.0), ((2,), 2.0)]
    assert check(lambda x: x + 0.5, cases, hint="", tolerance=0.5).message == (
        "Correct: all 2 cases agree within 0.5."
    )
    wrong = check(lambda x: 1.0, cases, hint="Look.")
    assert wrong.message == "Not yet: in case 2 the answer is off by 1 (1, expected 2). Look."
    raised = check(lambda x: x / (x - 1), cases, hint="Look.")
    assert raised.message == ("Not yet: case 1 raised ZeroDivisionError: division by zero. Look.")


@pytest.mark.parametrize(("passed", "state"), [(True, "passed"), (False, "open")])
def test_feedback_is_escaped_html(passed, state):
    answer = 1.0 if passed else 2.0
    shown = check(lambda: answer, [((), 1.0)], hint="a < b")._repr_html_()
    assert shown.startswith(f'<div class="af-feedback af-{state}">')
    assert ("a &lt; b" in shown) != passed
