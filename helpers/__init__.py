"""Helpers of *Attention, Factorized*: factorizations, spectra and their diagnostics.

Five wings, imported one way: ``maths`` stands on nothing here; ``data``, ``models`` and ``layers`` stand
on it; ``page`` (claims, figures, explorers, exercises) stands alone. The maths never imports matplotlib
or ipywidgets. Each wing hands its names on: ``from helpers.maths import spectrum``.
"""

__version__ = "2.0.0"
