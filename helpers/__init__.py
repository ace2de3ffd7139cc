"""Helpers of *Attention, Factorized*: factorizations, spectra and their diagnostics.

Imports point one way: maths (``checks``, ``spectrum``, ``attention``, ``nulls``), then data
(``texts``, ``models``, ``decoder``), then what draws or judges (``figures``, ``explore``,
``claims``, ``exercises``). The maths never imports matplotlib or ipywidgets.
"""
