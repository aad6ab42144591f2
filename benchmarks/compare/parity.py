"""How parity changed between two reports.

There is no noise to allow for: on one machine, with the same versions, a rollout gives the same
bits each time. The tolerances are for what a new version of a library may round otherwise. Where
rounding changed what a model drew, its free rollout goes another way, and is not compared further.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from operator import itemgetter

import numpy as np

from wmdeploy.benchmarks.compare.change import Change, Status
from wmdeploy.benchmarks.report import Curve, Key, OutputParity, Report, Row
from wmdeploy.benchmarks.stages import find_stage

DB_DROP = 1.0
EXACT_DB = 100.0  # above it frames differ in a few pixels by one level, if at all
AGREEMENT_DROP = 1e-3
ERROR_GROWTH = 2.0
LEAST_ERROR = 1e-6  # about float32's own rounding


def parity_changes(
    old: Report, new: Report, before: dict[Key, Row], after: dict[Key, Row], same: bool
) -> list[Change]:
    """Changes of the worst frames, codes and stage errors of backends that both reports have.

    Args:
        same: whether the hardware is; another one's kernels round otherwise, so that there only
            verdicts can be held against each other and these are information.
    """
    changes: list[Change] = []
    drawn = {c.backend for c in (*old.curves, *new.curves) if c.first_draw is not None}
    for key in (key for key in before if key in after and key[2] == 1):
        (name, stage, _), a, b = key, before[key].parity, after[key].parity
        if a is None or b is None or not find_stage(stage).errors:
            continue
        free = name not in drawn or not find_stage(stage).session
        if free and a.max_abs is not None and b.max_abs is not None:
            changes.append(_error(stage, name, a.max_abs, b.max_abs))
        if a.code_agreement is not None and b.code_agreement is not None:
            pair = a.code_agreement, b.code_agreement
            changes.append(_agreement(stage, name, "codes equal", *pair))
        was, now = a.worst_frame_psnr_db or {}, b.worst_frame_psnr_db or {}
        pairs = [(h, was[h], now[h]) for h in was if h in now and free]
        changes += _worst(name, "worst frame", [(f"to {h}", x, y) for h, x, y in pairs])
        changes += _outputs(name, a.outputs, b.outputs)
    changes += _curves(old.curves, new.curves)
    return changes if same else [_as_information(change) for change in changes]


def _curves(old: list[Curve], new: list[Curve]) -> list[Change]:
    """Clip by clip, so that a clip that got worse shows although another is worse still."""
    changes: list[Change] = []
    for name in dict.fromkeys(curve.backend for curve in old):
        pairs = [
            (a, b) for a, b in zip(_of(old, name), _of(new, name), strict=False) if a.clip == b.clip
        ]
        for what in ("free", "forced"):
            points = []
            for a, b in pairs:
                was, now = (_worst_so_far(_frames(curve, what)) for curve in (a, b))
                both = zip(was, now, strict=False)
                points += [(f"{a.clip} to {h}", x, y) for h, (x, y) in enumerate(both, 1)]
            changes += _worst(name, f"worst frame, {what}", points)
        for a, b in pairs:
            if a.code_agreement is not None and b.code_agreement is not None:
                pair = a.code_agreement, b.code_agreement
                changes.append(_agreement("", name, f"codes equal, {a.clip}", *pair))
                changes.append(_imagined(name, a, b))
    return changes


def _outputs(
    name: str, old: Mapping[str, OutputParity], new: Mapping[str, OutputParity]
) -> list[Change]:
    """Named outputs that both reports have, such as logits and rewards."""
    changes = []
    for output, a, b in ((output, old[output], new[output]) for output in old if output in new):
        if a.agreement is not None and b.agreement is not None:
            changes.append(_agreement("frame", name, f"{output} equal", a.agreement, b.agreement))
        for what, was, now in (
            ("max error", a.relative, b.relative),
            ("variation", a.variation, b.variation),
        ):
            if was is not None and now is not None:
                changes.append(_error("frame", name, was, now, f"{output}, {what}"))
    return changes


def _of(curves: list[Curve], backend: str) -> Iterable[Curve]:
    return (curve for curve in curves if curve.backend == backend)


def _frames(curve: Curve, what: str) -> list[float]:
    """The dB of free frames up to the first that another draw decides, or of forced ones."""
    if what == "forced":
        return curve.forced_db
    first = curve.first_draw
    return curve.free_db if first is None else curve.free_db[: max(0, first - 1)]


def _worst_so_far(db: list[float]) -> list[float]:
    return [float(value) for value in np.minimum.accumulate(db)] if db else []


def _worst(name: str, what: str, points: list[tuple[str, float, float]]) -> list[Change]:
    """One change of all points (where, old dB, new dB): the one that moved the most."""
    drops = [(x - y if min(x, y) < EXACT_DB else 0.0, where, x, y) for where, x, y in points]
    if not drops:
        return []
    drops.reverse()  # of equals the last
    loss, gain = max(drops, key=itemgetter(0)), min(drops, key=itemgetter(0))
    status: Status = "unchanged"
    shown = loss
    if loss[0] > DB_DROP:
        status = "regression"
    elif gain[0] < -DB_DROP:
        status, shown = "improvement", gain
    drop, where, x, y = shown
    return [
        Change(
            stage="frame",
            backend=name,
            batch=None,
            what=f"{what} ({where})",
            old=f"{x:.1f} dB",
            new=f"{y:.1f} dB",
            change=f"{y - x:+.1f} dB",
            status=status,
            noise=f"{DB_DROP:.0f} dB",
            size=abs(drop),
        )
    ]


def _agreement(stage: str, name: str, what: str, old: float, new: float) -> Change:
    status: Status = "unchanged"
    if abs(new - old) > AGREEMENT_DROP:
        status = "regression" if new < old else "improvement"
    return Change(
        stage=stage,
        backend=name,
        batch=None,
        what=what,
        old=f"{old:.3%}",
        new=f"{new:.3%}",
        change=f"{100 * (new - old):+.3f} points",
        status=status,
        noise=f"{100 * AGREEMENT_DROP:.1f} points",
        size=abs(new - old),
    )


def _error(stage: str, name: str, old: float, new: float, what: str = "max error") -> Change:
    status: Status = "unchanged"
    small, large = sorted((old, new))
    if large > ERROR_GROWTH * small and large > LEAST_ERROR:
        status = "regression" if new > old else "improvement"
    change = f"{new / old:.2f} times" if old > 0 else ""
    return Change(
        stage=stage,
        backend=name,
        batch=None,
        what=what,
        old=f"{old:.2g}",
        new=f"{new:.2g}",
        change=change,
        status=status,
        noise=f"{ERROR_GROWTH:.0f} times",
        size=large,
    )


def _imagined(name: str, old: Curve, new: Curve) -> Change:
    """Codes of imagined frames flip one by one: where the first does is information; dB decides."""
    was, now = (curve.first_difference for curve in (old, new))
    return Change(
        stage="frame",
        backend=name,
        batch=None,
        what=f"first other code, {old.clip}",
        old=_horizon(was),
        new=_horizon(now),
        change="",
        status="unchanged" if was == now else "information",
    )


def _horizon(value: int | None) -> str:
    return "none" if value is None else f"horizon {value}"


def _as_information(change: Change) -> Change:
    if change.status == "unchanged":
        return change
    return dataclasses.replace(change, status="information")
