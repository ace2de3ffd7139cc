"""Rows of keys or values in less room: float16, or a few bits a number."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

GROUP = 32
"""Neighbouring numbers of a row that share one scale and one offset, if bits are saved."""

Rows = Float[Tensor, "*batch n d"]


@dataclass(frozen=True)
class Quantised:
    """Rows as whole numbers of 1 to 8 bits, several in a byte, equal steps between a group's extremes."""

    codes: Tensor
    low: Tensor
    step: Tensor
    bits: int
    width: int

    @staticmethod
    def of(rows: Rows, bits: int) -> "Quantised":
        missing = -rows.shape[-1] % GROUP
        padded = torch.cat([rows, rows[..., -1:].expand(*rows.shape[:-1], missing)], -1)
        groups = padded.unflatten(-1, (-1, GROUP))
        low, high = (end.half() for end in groups.aminmax(dim=-1, keepdim=True))
        step = ((high.float() - low.float()) / (2**bits - 1)).clamp(min=1e-6).half()
        codes = ((groups - low.float()) / step.float()).round().clamp(0, 2**bits - 1).byte()
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
        packed = (codes.unflatten(-1, (-1, len(shifts))) << shifts).sum(-1, dtype=torch.uint8)
        return Quantised(packed, low, step, bits, rows.shape[-1])

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in (self.codes, self.low, self.step))

    def rows(self) -> Rows:
        shifts = torch.arange(0, 8, self.bits, dtype=torch.uint8)
        codes = (self.codes[..., None] >> shifts) & (2**self.bits - 1)
        groups = codes.flatten(-2).float() * self.step.float() + self.low.float()
        return groups.flatten(-2)[..., : self.width]


@dataclass(frozen=True)
class HalfPrecision:
    """Rows in float16."""

    halves: Tensor

    @staticmethod
    def of(rows: Rows) -> "HalfPrecision":
        return HalfPrecision(rows.half())

    @property
    def bytes(self) -> int:
        return self.halves.nbytes

    def rows(self) -> Rows:
        return self.halves.float()
