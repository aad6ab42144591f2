"""Quality reports as rich tables."""

from collections.abc import Iterable

from rich.table import Table

from wmdeploy.programs.contract import FULL
from wmdeploy.psnr import IDENTICAL_DB
from wmdeploy.quality.report import HORIZONS, QualityReport

_BASELINES = ("ceiling", "copy", "linear")


def quality_tables(report: QualityReport) -> list[Table]:
    """Single frames, and rollouts where a clip was long enough for one."""
    tables = [_single_frames(report)]
    if report.all.rollouts:
        tables.append(_rollouts(report))
    return tables


def _single_frames(report: QualityReport) -> Table:
    """A column for each group of clips."""
    coded = report.codebook_size is not None
    caption = "next: predicted from the real frames before it. "
    if coded:
        caption += "ceiling: the real frame's latent, decoded. "
    caption += "copy: the frame before. "
    if report.decoder != FULL:
        caption += f"model: with the full decoder; {report.decoder}: with the student. "
    if report.all.encoder is not None:
        caption += "Latents and codes, but for what names the full encoder: the student's. "
    if coded:
        caption += "linear: extrapolated from two latents. "
    caption += (
        "moved: pixels and codes that differ from the frame before. sharpness: there, 1 is as "
        "sharp as real"
    )
    table = Table(
        title=f"{report.model}, on frames outside the training set",
        caption=caption + _codes_note(report),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("")
    for group in report.groups:
        bold = "bold" if group is report.all else ""
        table.add_column(group.name, justify="right", style=bold)

    groups = report.groups
    table.add_row("frames", *(str(g.frames) for g in groups))
    if coded:
        reconstruction = (g.reconstruction.psnr if g.reconstruction else None for g in groups)
        table.add_row("reconstruction, dB", *map(_db, reconstruction))
    table.add_section()
    for who in _predictors(report.all.following):
        table.add_row(f"next, {who}, dB", *(_db(g.following[who].psnr) for g in groups))
    if report.decoder != FULL:
        nearness = [g.against_full for g in groups]
        for what, name in (("", "psnr"), (", worst frame", "worst")):
            values = (_db(getattr(near, name)) if near else "" for near in nearness)
            table.add_row(f"{report.decoder} against full{what}, dB", *values)
    if report.all.encoder is not None:
        for what, name in (("", "codes"), (" where moved", "codes_changed")):
            shares = (_share(getattr(g.encoder, name)) if g.encoder else "" for g in groups)
            table.add_row(f"codes of the full encoder{what}", *shares)
    for who in ("model", "copy"):
        moved = (g.following[who].psnr_changed for g in groups)
        table.add_row(f"moved, {who}, dB", *("" if db is None else _db(db) for db in moved))
    for who in ("model", "copy"):
        table.add_row(f"SSIM, {who}", *(f"{g.following[who].ssim:.3f}" for g in groups))
    sharp = (g.following["model"].sharpness for g in groups)
    table.add_row("sharpness, model", *("" if value is None else f"{value:.2f}" for value in sharp))
    if coded:
        _add_codes(table, report)
    return table


def _add_codes(table: Table, report: QualityReport) -> None:
    """Scores of latents and codes, which the reference family has."""
    groups = report.groups
    table.add_section()
    for who in ("model", "copy", "linear"):
        within = (_share(g.latents[who].within) for g in groups)
        table.add_row(f"latents within 0.1, {who}", *within)
    for who in ("model", "copy", "linear"):
        table.add_row(f"codes right, {who}", *(_share(g.latents[who].codes) for g in groups))
    where = (_share(g.latents["model"].codes_changed) for g in groups)
    table.add_row("codes right where moved, model", *where)
    table.add_section()
    still = (_share(g.static_agreement) for g in groups)
    table.add_row("codes equal where nothing moves", *still)
    table.add_row(
        f"codes used of {report.codebook_size} (perplexity)",
        *(f"{g.codes_used} ({g.perplexity:.0f})" for g in groups),
    )
    deviation = (f"{g.latent_deviation:.2f}" for g in groups)
    table.add_row("standard deviation of latents", *deviation)


def _codes_note(report: QualityReport) -> str:
    """A note on a backend's codes, where some are not the model's."""
    codes = report.codes
    if codes is None or not (codes.tied or codes.wrong):
        return ""
    return f". {report.backend}: {codes}"


def _rollouts(report: QualityReport) -> Table:
    table = Table(
        title=f"rollouts from {report.context} frames, PSNR in dB by horizon",
        caption=f"worst rollout of the model: {report.all.rollouts['model'].worst_clip}",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("clips of")
    table.add_column("frames by")
    for horizon in HORIZONS:
        table.add_column(str(horizon), justify="right")
    for group in report.groups:
        bold = "bold" if group is report.all else ""
        for who in _predictors(group.rollouts):
            psnr = group.rollouts[who].psnr
            table.add_row(group.name, who, *(_db(psnr[n]) for n in HORIZONS), style=bold)
        table.add_section()
    for who in _predictors(report.all.rollouts):
        worst = report.all.rollouts[who].worst
        table.add_row("worst rollout", who, *(_db(worst[n]) for n in HORIZONS))
    return table


def _predictors(labels: Iterable[str]) -> list[str]:
    """Names in the order of tables: the model, a backend, what needs neither."""
    names = list(labels)
    backends = [name for name in names if name not in ("model", *_BASELINES)]
    return [name for name in ("model", *backends, *_BASELINES) if name in names]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _db(value: float | None) -> str:
    return "equal" if value is None or value >= IDENTICAL_DB else f"{value:.2f}"
