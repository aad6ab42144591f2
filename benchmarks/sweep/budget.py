"""A budget such as "frame<33ms, memory<2GB, psnr>40": what a product can afford."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wmdeploy.errors import WmdeployError

# figure -> its unit here, and what else may be written, as a multiple of it
FIGURES = {
    "frame": ("ms", {"ms": 1.0, "s": 1e3}),
    "imagine": ("ms", {"ms": 1.0, "s": 1e3}),
    "memory": ("MB", {"MB": 1.0, "GB": 1e3}),
    "psnr": ("dB", {"dB": 1.0}),
    "codes": ("%", {"%": 1.0}),
}
_TERM = re.compile(r"\s*(?P<figure>\w+)\s*(?P<sign>[<>]=?)\s*(?P<number>[\d.]+)\s*(?P<unit>\S*)\s*")
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Limit:
    """One term; `bound` is in the figure's unit of `FIGURES`."""

    figure: str
    sign: str
    bound: float

    def holds(self, value: float | None) -> bool:
        """Whether a value is within it; one that is not known is not."""
        return value is not None and _SIGNS[self.sign](value, self.bound)

    def __str__(self) -> str:
        unit = FIGURES[self.figure][0]
        return f"{self.figure} {self.sign} {self.bound:g} {unit}"


def parse_budget(text: str) -> tuple[Limit, ...]:
    """Read a budget.

    Raises:
        WmdeployError: a term, a figure or a unit is unknown.
    """
    limits = []
    for term in text.split(","):
        match = _TERM.fullmatch(term)
        number = None if match is None else _number(match["number"])
        if match is None or number is None:
            raise WmdeployError(
                f"budget: got {term.strip()!r}, expected terms such as frame<33ms, memory<2GB, "
                "psnr>40"
            )
        figure, sign, unit = match["figure"], match["sign"], match["unit"]
        if figure not in FIGURES:
            choices = ", ".join(FIGURES)
            raise WmdeployError(f"budget: got the figure {figure!r}, expected one of {choices}")
        own, units = FIGURES[figure]
        if (unit or own) not in units:
            choices = " or ".join(units)
            raise WmdeployError(f"budget: got {unit!r} for {figure}, expected {choices}")
        limits.append(Limit(figure, sign, number * units[unit or own]))
    return tuple(limits)


def missed(limits: tuple[Limit, ...], figures: Mapping[str, float | None]) -> list[str]:
    """The terms that some figures do not keep, in words."""
    return [
        f"{limit} (is {_shown(figures.get(limit.figure))})"
        for limit in limits
        if not limit.holds(figures.get(limit.figure))
    ]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
