"""Codes of a backend beside PyTorch's: which are equal, which tie, which are wrong."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

FEW_TIES = 3  # that may come by chance where PyTorch itself has none


@dataclass(frozen=True, kw_only=True)
class CodeCount:
    """Codes of a backend beside those of PyTorch in float32, for the same frames.

    Attributes:
        codes: how many were compared.
        tied: how many are others, and tie.
        wrong: how many are others, and further off than rounding explains.
        unsteady: how many PyTorch itself chooses otherwise if only its rounding changes, on the
            frames where a code is another one.
        tie_margin: how much further off the chosen vectors are, the most of all ties, relative to
            the squared distance of PyTorch's choice; 0 without ties.
        wrong_margin: the same of the wrong code that is furthest off; the largest float if it is no
            index of the codebook.
        rounding: what rounding explains there, relative likewise; without wrong codes, the most
            that it explains of a tie.
    """

    codes: int
    tied: int = 0
    wrong: int = 0
    unsteady: int = 0
    tie_margin: float = 0.0
    wrong_margin: float = 0.0
    rounding: float = 0.0

    @property
    def agreement(self) -> float:
        """The share of codes that are equal, or tie no more often than rounding explains.

        That is twice as often as in PyTorch if its own rounding changes, and `FEW_TIES` more; ties
        beyond that count as wrong codes do, so that a fault cannot hide in many small steps.
        """
        explained = min(self.tied, 2 * self.unsteady + FEW_TIES)
        return 1 - (self.tied + self.wrong - explained) / self.codes

    def __str__(self) -> str:
        """Such as "1 of 2,560 codes tied (distances equal to 2.4e-06)"."""
        parts = []
        if self.wrong:
            parts.append(
                f"{self.wrong:,} of {self.codes:,} codes wrong (distances differ by up to "
                f"{self.wrong_margin:.1e}, rounding explains {self.rounding:.1e})"
            )
        if self.tied:
            parts.append(
                f"{self.tied:,} of {self.codes:,} codes tied "
                f"(distances equal to {self.tie_margin:.1e})"
            )
        return ", ".join(parts) or f"{self.codes:,} of {self.codes:,} codes equal"


def add_counts(counts: Iterable[CodeCount]) -> CodeCount:
    """Of several clips together."""
    parts = [CodeCount(codes=0), *counts]
    return CodeCount(
        codes=sum(part.codes for part in parts),
        tied=sum(part.tied for part in parts),
        wrong=sum(part.wrong for part in parts),
        unsteady=sum(part.unsteady for part in parts),
        tie_margin=max(part.tie_margin for part in parts),
        wrong_margin=max(part.wrong_margin for part in parts),
        rounding=max(parts, key=lambda part: (part.wrong_margin, part.rounding)).rounding,
    )


@dataclass(frozen=True)
class Ties:
    """`tied`: (T, N) bool, codes that differ and tie; `count`: those, and all others."""

    tied: np.ndarray
    count: CodeCount
