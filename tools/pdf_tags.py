"""The structure tree of a PDF, which tells a screen reader what is a heading, a table, a formula.

Chromium makes an element of every box of the page, each letter of a formula included: nine tenths
of the tree say nothing.
"""

from __future__ import annotations

from pypdf import PdfReader
from pypdf.generic import (
    ArrayObject,
    DictionaryObject,
    IndirectObject,
    NameObject,
    NumberObject,
    PdfObject,
    TextStringObject,
)

TEX = "\\("  # begins the text alternative of a formula


def fold(reader: PdfReader) -> None:
    """Put the children of elements that say nothing in their place, and tag formulas as formulas.

    The objects of ``reader`` change; a writer that is cloned from it then takes only what is left.
    """
    root = reader.trailer["/Root"]["/StructTreeRoot"]
    heirs: dict[int, IndirectObject] = {}  # element that is left out → the one that holds it
    _fold_below(reader.trailer["/Root"]["/StructTreeRoot"].indirect_reference, heirs)
    numbers = root["/ParentTree"]["/Nums"]  # number of a page or link, its elements, and so on
    for place, entry in enumerate(numbers):
        if place % 2 == 0:
            continue
        elements = entry if isinstance(entry, IndirectObject) else None
        if elements is not None and not isinstance(elements.get_object(), ArrayObject):
            numbers[place] = _heir(elements, heirs)
            continue
        array = entry.get_object()
        array[:] = [_heir(element, heirs) for element in array]


def _heir(element: PdfObject, heirs: dict[int, IndirectObject]) -> PdfObject:
    while isinstance(element, IndirectObject) and element.idnum in heirs:
        element = heirs[element.idnum]
    return element


def _children(element: DictionaryObject) -> list[PdfObject]:
    """What is in an element, elements as references and marked content as numbers."""
    if "/K" not in element:
        return []
    below = element.raw_get("/K")
    resolved = below.get_object()
    return list(resolved) if isinstance(resolved, ArrayObject) else [below]


def _is_element(child: PdfObject) -> bool:
    return isinstance(child, IndirectObject) and "/S" in child.get_object()


def _fold_below(reference: IndirectObject, heirs: dict[int, IndirectObject]) -> None:
    element = reference.get_object()
    kept = ArrayObject()
    for child in _children(element):
        if not _is_element(child):
            kept.append(child)
            continue
        _fold_below(child, heirs)
        inner = child.get_object()
        if inner["/S"] != "/NonStruct":
            kept.append(child)
            continue
        heirs[child.idnum] = reference
        for grandchild in _children(inner):
            kept.append(_adopt(grandchild, inner, reference))
    if kept:
        element[NameObject("/K")] = kept
    if element.get("/S") == "/Figure" and element.get("/Alt", "").startswith(TEX):
        element[NameObject("/S")] = NameObject("/Formula")
        element[NameObject("/Alt")] = TextStringObject(element["/Alt"].removeprefix(TEX))


def _adopt(child: PdfObject, parent: DictionaryObject, new_parent: IndirectObject) -> PdfObject:
    """``child`` of ``parent`` as a child of ``new_parent``."""
    element = new_parent.get_object()
    if isinstance(child, NumberObject):
        # Marked content is numbered page by page; an element names one page for all its numbers.
        page = parent.raw_get("/Pg")
        if element.setdefault(NameObject("/Pg"), page) == page:
            return child
        return DictionaryObject(
            {
                NameObject("/Type"): NameObject("/MCR"),
                NameObject("/Pg"): page,
                NameObject("/MCID"): child,
            }
        )
    if _is_element(child):
        child.get_object()[NameObject("/P")] = new_parent
    return child
