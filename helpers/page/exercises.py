"""What a reader enters: a guess before the answer, and answers to exercises, which are checked."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from IPython.display import HTML, display
from torch import Tensor


@dataclass(frozen=True)
class Feedback:
    """Whether an answer passed, and what to tell its author."""

    passed: bool
    message: str
    hint: str = ""
    """Stays folded, and comes after an attempt only."""

    def _repr_html_(self) -> str:
        state = "passed" if self.passed else "open"
        hint = html.escape(self.hint)
        fold = f"<details><summary>Hint</summary>{hint}</details>" if hint else ""
        return f'<div class="af-feedback af-{state}">{html.escape(self.message)}{fold}</div>'

    def __repr__(self) -> str:
        return f"{self.message} Hint: {self.hint}" if self.hint else self.message


def guess(
    question: str, answer: float, told: str, *, least: int = 1, most: int, choice: bool = False
) -> None:
    """Ask for a whole number of ``least`` … ``most`` before ``told``, which stays folded, gives the answer.

    A page compares the guess with ``answer`` when the fold opens, as a size or as a ``choice`` that is right or
    not; without scripts, and in JupyterLab, the reader does. Tests let the answer move as far as a number of its size is printed.
    """
    kind = " data-choice" if choice else ""
    display(
        HTML(
            f'<div class="af-guess" data-answer="{answer:g}"{kind}><label>{html.escape(question)} '
            f'<input type="number" min="{least}" max="{most}" inputmode="numeric" autocomplete="off"></label>'
            "<details><summary>Compare</summary><output><span></span> "
            f"{html.escape(told)}</output></details></div>"
        )
    )


def check(
    answer: Callable[..., object],
    cases: Sequence[tuple[tuple[object, ...], object]],
    *,
    hint: str,
    tolerance: float = 1e-8,
) -> Feedback:
    """Call ``answer`` on each case ``(arguments, expected)`` and compare within ``tolerance``.

    The comparison is absolute, entry by entry; expected tensors also fix the shape. An answer
    that raises, has the wrong shape or the wrong value gets a message that says which case
    failed and what was expected, and ``hint``; no answer yet gets no hint. Tensors are handed over as copies, so an
    answer that works in place spoils no case.

    Raises ValueError if there are no cases.
    """
    if not cases:
        raise ValueError("cases must have at least one case, or every answer would be correct")
    for number, (arguments, expected) in enumerate(cases, start=1):
        try:
            got = answer(*(a.clone() if isinstance(a, Tensor) else a for a in arguments))
        except KeyboardInterrupt:  # an answer without an end has been stopped
            raise
        except BaseException as error:  # whatever a reader writes must not stop the notebook
            problem = f"case {number} raised {type(error).__name__}{_said(error)}"
            return Feedback(False, f"Not yet: {problem}.", hint)
        if got is None or got is ...:
            return Feedback(False, "Not yet: replace the dots by your answer.")
        problem = _difference(got, expected, tolerance)
        if problem:
            return Feedback(False, f"Not yet: in case {number} {problem}.", hint)
    agree = "the case agrees" if len(cases) == 1 else f"all {len(cases)} cases agree"
    return Feedback(True, f"Correct: {agree} within {tolerance:g}.")


def _said(error: BaseException) -> str:
    try:
        return f": {error}"
    except Exception:  # its own __str__ may be part of what went wrong
        return ""


def _difference(got: object, expected: object, tolerance: float) -> str | None:
    try:
        # One complex side makes both complex: a right real part with a wrong imaginary one is wrong.
        is_complex = any(torch.as_tensor(side).is_complex() for side in (got, expected))
        dtype = torch.complex128 if is_complex else torch.float64
        tensor = torch.as_tensor(got, dtype=dtype).detach().to("cpu").to_dense()
        shape = tuple(tensor.shape)
    except Exception:  # a text, a tensor without values, whatever can't be compared
        kind = type(got).__name__
        return f"the function returned a {kind}, which is no number or tensor of numbers"
    expected = torch.as_tensor(expected, dtype=dtype).detach()
    if shape != expected.shape:
        return f"the shape is {shape}, expected {tuple(expected.shape)}"
    # Two infinities of the same sign are equal, though their difference is no number.
    error = torch.where(tensor == expected, 0, tensor - expected).abs()
    worst = float(error.max()) if error.numel() else 0.0
    if not worst <= tolerance:
        return f"the answer is off by {worst:.3g}{_values(tensor, expected)}"
    return None


def _values(got: Tensor, expected: Tensor) -> str:
    if got.ndim or got.is_complex():
        return ""
    return f" ({float(got):.6g}, expected {float(expected):.6g})"
