"""Whether two reports measured the same thing, and what else is not the same about them.

It does not look at a single figure: that is `wmdeploy.benchmarks.compare.run`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wmdeploy.benchmarks.report import (
    Report,
    baseline_of,
    ceilings_of,
    flatten,
    hardware_of,
    section,
)
from wmdeploy.errors import WmdeployError

LONGEST = 60  # characters of a value that a message shows
INTERVALS_SINCE = 3  # the first schema whose speed-ups have intervals
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
    hardware = differing(hardware_of(old), hardware_of(new))
    before, after = _conditions(old), _conditions(new)
    if not hardware:  # on another processor, another number is what one would choose
        _add_common(before, after, _threads(old), _threads(new), "threads of ")
    was, now = (flatten(section(report.environment, "settings")) for report in (old, new))
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
    if packages := differing(section(old.environment, "packages"),
                              section(new.environment, "packages")):  # fmt: skip
        notes.append(f"other packages: {packages}; a new torch moves the baseline of every ratio")
    sources = [section(r.bundle, "recipe").get("source") for r in (old, new)]
    if sources[0] != sources[1]:
        notes.append(
            f"the models come from {_short(sources[0])} and {_short(sources[1])}: parity is of "
            "their own weights"
        )
    for which, report in zip(names, (old, new), strict=True):
        if report.schema < INTERVALS_SINCE:
            notes.append(
                f"{which} has schema {report.schema}, without intervals: its noise is estimated "
                "from its samples, taken one backend after the other, so drift is not in it"
            )
    return Common(not hardware, notes)


def _conditions(report: Report) -> dict[str, Any]:
    """What must be equal, by the name that a message gives it."""
    bundle = report.bundle
    recipe = section(bundle, "recipe")
    clips = bundle.get("clips") or bundle.get("clip")
    return {
        **flatten(section(bundle, "model"), "model."),
        "layout": recipe.get("layout"),
        "precision": recipe.get("precision"),
        "clips": clips if isinstance(clips, list) else [clips],
        "context": bundle.get("context"),
        "horizon": bundle.get("horizon"),
        "refill": bundle.get("refill"),
        "baseline": baseline_of(report),
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
    before, after = ceilings_of(old), ceilings_of(new)
    for device in before.keys() & after.keys():
        for name, unit in (
            ("bandwidth_gb_s", "GB/s"),
            ("gflop_s", "GFLOP/s"),
            ("gemm_gflop_s", "GFLOP/s of a product"),  # in older reports
        ):
            a, b = before[device].get(name), after[device].get(name)
            if not (isinstance(a, int | float) and isinstance(b, int | float) and min(a, b) > 0):
                continue
            if max(a, b) > CEILING_TOLERANCE * min(a, b):
                notes.append(
                    f"the machine itself went from {a:.0f} to {b:.0f} {unit} ({device}); "
                    "that moves absolute times, and a little the ratios"
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
