"""Whether two reports measured the same thing, and what else is not the same about them.

It does not look at a single figure: that is `wmdeploy.benchmarks.compare.run`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wmdeploy.benchmarks.report import Report, flatten
from wmdeploy.errors import WmdeployError

LONGEST = 60  # characters of a value that a message shows
CEILING_TOLERANCE = 1.2  # the larger over the smaller


@dataclass(frozen=True)
class Common:
    """What two reports that may be compared have in common.

    Attributes:
        same_hardware: processor, cores and GPU; without it only ratios compare.
        notes: what a reader should know beside the figures.
    """

    same_hardware: bool
    notes: list[str]


def check_comparable(old: Report, new: Report, names: tuple[str, str] = ("OLD", "NEW")) -> Common:
    """Refuse two reports of different things.

    Args:
        names: of the reports, for messages.

    Raises:
        WmdeployError: model, recipe, clips, context, horizon, refill or settings differ, or a
            report has no row.
    """
    for which, report in zip(names, (old, new), strict=True):
        if not report.rows:
            raise WmdeployError(f"{which} has no rows; give reports of wmdeploy bench --json")
    hardware = differing(old.environment.hardware, new.environment.hardware)
    before, after = _conditions(old), _conditions(new)
    if not hardware:  # on another processor, another number is what one would choose
        _add_common(before, after, _threads(old), _threads(new), "threads of ")
    was, now = (vars(report.environment.settings) for report in (old, new))
    _add_common(before, after, was, now, "settings.")
    unlike = _unlike(before, after)
    if unlike:
        more = f" and {len(unlike) - 3} more" if len(unlike) > 3 else ""
        raise WmdeployError(
            f"{' and '.join(names)} measured different things: {', '.join(unlike[:3])}{more}; "
            "compare runs of the same model with the same options"
        )
    notes = []
    if hardware:
        notes.append(
            f"other hardware: {hardware}; only ratios to the baseline and parity are compared, "
            "times and memory are information"
        )
    else:
        notes += _ceiling_notes(old, new)
    if packages := differing(old.environment.packages, new.environment.packages):
        notes.append(f"other packages: {packages}; a new torch moves the baseline of every ratio")
    sources = [report.bundle.recipe.source for report in (old, new)]
    if sources[0] != sources[1]:
        notes.append(
            f"the models come from {_short(sources[0])} and {_short(sources[1])}: parity is of "
            "their own weights"
        )
    return Common(not hardware, notes)


def _conditions(report: Report) -> dict[str, Any]:
    """What must be equal, by the name that a message gives it."""
    bundle = report.bundle
    return {
        **flatten(bundle.model, "model."),
        "layout": bundle.recipe.layout,
        "precision": bundle.recipe.types,
        "clips": bundle.clips,
        "context": bundle.context,
        "horizon": bundle.horizon,
        "refill": bundle.refill,
        "baseline": report.baseline,
    }


def _threads(report: Report) -> dict[str, Any]:
    return {row.backend: row.threads for row in report.rows if row.threads is not None}


def _add_common(
    before: dict[str, Any],
    after: dict[str, Any],
    old: dict[str, Any],
    new: dict[str, Any],
    prefix: str,
) -> None:
    """Add what both have a value for: an older version had fewer settings, or did not tell."""
    for name in (name for name in old if name in new):
        before[f"{prefix}{name}"], after[f"{prefix}{name}"] = old[name], new[name]


def _ceiling_notes(old: Report, new: Report) -> list[str]:
    """Equal names do not make equal machines: a virtual one's neighbours may be busy."""
    notes = []
    before, after = old.environment.ceilings, new.environment.ceilings
    for device in before.keys() & after.keys():
        for name, unit in (("bandwidth_gb_s", "GB/s"), ("gflop_s", "GFLOP/s")):
            a, b = getattr(before[device], name), getattr(after[device], name)
            if min(a, b) > 0 and max(a, b) > CEILING_TOLERANCE * min(a, b):
                notes.append(
                    f"the machine itself went from {a:.0f} to {b:.0f} {unit} ({device}); "
                    "that moves absolute times, and the ratios a little"
                )
    return notes


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Names whose values are not the same, with both; empty if all are."""
    return ", ".join(_unlike(before, after))


def _unlike(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} ({_short(before.get(name))} and {_short(after.get(name))})"
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]


def _short(value: object) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = ", ".join(value)
    text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
