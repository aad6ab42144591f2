"""Export and bench a model in every layout, precision, kind of weights, decoder, backend and batch.

    result = sweep(SweepOptions("models/pong", Path("sweep"), BenchOptions(...)))

Everything lies in one folder: bundles, and a report for each. Run again, what is there and fits is
kept. Ends with the rows that no other row beats in latency, memory and quality together.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product, starmap
from pathlib import Path

import msgspec

from wmdeploy.benchmarks.bench.options import BenchOptions
from wmdeploy.benchmarks.bench.run import bench
from wmdeploy.benchmarks.report import Report, read_json
from wmdeploy.benchmarks.sweep.budget import Limit, missed
from wmdeploy.bundle import Bundle
from wmdeploy.clips.footage import clip_digest
from wmdeploy.errors import WmdeployError
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families import find_family
from wmdeploy.files import check_inside, sha256, write_document
from wmdeploy.manifest import MANIFEST_FILE, Precision, Weights
from wmdeploy.programs.contract import FULL
from wmdeploy.progress import Progress, silent
from wmdeploy.psnr import IDENTICAL_DB

_COMPARED = ("frame", "memory", "psnr")


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What to sweep; `bench` has all that is not swept, its bundle is replaced.

    Attributes:
        model: as `ExportOptions.source`; family as there.
        layouts: empty: all of the family.
        decoders: "full", or a student's name; empty: all that the model has.
        output: folder for bundles and reports.
    """

    model: str
    output: Path
    bench: BenchOptions
    layouts: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    weights: tuple[Weights, ...] = ("float", "int8")
    decoders: tuple[str, ...] = ()
    seed: int = 0
    family: str | None = None


@dataclass(frozen=True)
class Kind:
    """What one bundle of a sweep is, and the decoder that renders."""

    layout: str
    precision: Precision
    weights: Weights
    decoder: str = FULL

    @property
    def bundle(self) -> str:
        """The name of the bundle's folder."""
        parts = (self.layout, self.precision, *([] if self.weights == "float" else [self.weights]))
        return "-".join(parts)

    @property
    def report(self) -> str:
        """The name of its report, without suffix."""
        return self.bundle if self.decoder == FULL else f"{self.bundle}-{self.decoder}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One way to run the model.

    Attributes:
        figures: frame and imagine in ms (of all the batch's sessions together), memory in MB, psnr
            of the worst frame in dB beside PyTorch with the full decoder, whichever this cell's is,
            codes that agree in percent; None where it is not known.
        verdict: of its bench, which compares with PyTorch with the same decoder.
        best: no other cell of the same batch size that passes is at least as good in frame, memory
            and psnr, and better in one.
    """

    layout: str
    precision: Precision
    weights: Weights
    decoder: str
    backend: str
    batch: int
    figures: dict[str, float | None]
    verdict: str
    reason: str | None
    best: bool = False


@dataclass(frozen=True)
class Sweep:
    cells: list[Cell]
    skipped: dict[str, str] = field(default_factory=dict)  # backend or bundle: why


def sweep(
    options: SweepOptions,
    progress: Progress = silent,
    remarks: list[str] | None = None,
) -> Sweep:
    """Run what is not there yet.

    Args:
        remarks: gets those of `export_bundle`, again for each bundle.

    Raises:
        BackendError, ClipError, CheckpointError: nothing can be run with these options.
        WmdeployError: the folder cannot be written, or holds a link where a report would lie; the
            model has no such layout or decoder.
    """
    cells: list[Cell] = []
    skipped: dict[str, str] = {}
    known = find_family(options.model, options.family).layouts
    if wrong := [name for name in options.layouts if name not in known]:
        raise WmdeployError(f"layout: got {wrong[0]!r}, expected one of {', '.join(known)}")
    layouts = options.layouts or known
    kinds = list(starmap(Kind, product(layouts, options.precisions, options.weights)))
    for made in (name for kind in kinds for name in (kind.bundle, f"{kind.report}.json")):
        check_inside(options.output / made, options.output)
    for kind in kinds:
        try:
            bundle = _bundle(options, kind, progress, remarks)
        except WmdeployError as error:
            # one precision may be out of a model's reach; with none left there is nothing to show
            skipped[kind.bundle] = str(error)
            continue
        programs = bundle.manifest.programs
        for decoder in options.decoders or programs.decoders():
            programs.rendering(decoder)  # refuses one that there is not
            shown = dataclasses.replace(kind, decoder=decoder)
            check_inside(options.output / f"{shown.report}.json", options.output)
            try:
                report = _report(options, shown, bundle, progress)
            except WmdeployError as error:
                skipped[shown.report] = str(error)
                continue
            cells += cells_of(report, shown)
            for row in report.rows:
                if row.verdict == "skipped":
                    skipped[row.backend] = row.reason or ""
                elif row.is_frame and not row.is_timed:
                    skipped[f"{shown.report}, {row.backend}"] = f"failed: {row.reason}"
    if not cells:
        raise WmdeployError(
            "sweep: nothing could be run: " + "; ".join(dict.fromkeys(skipped.values()))
        )
    return Sweep(with_best(cells), skipped)


def _bundle(
    options: SweepOptions, kind: Kind, progress: Progress, remarks: list[str] | None
) -> Bundle:
    export = ExportOptions(
        source=options.model,
        output=options.output / kind.bundle,
        clip=options.bench.clips[0],
        layout=kind.layout,
        precision=kind.precision,
        weights=kind.weights,
        max_batch=max(8, *options.bench.batches),
        seed=options.seed,
        family=options.family,
        read=options.bench.read,
    )
    return export_bundle(export, _named(progress, kind.bundle), remarks)[0]


def _report(options: SweepOptions, kind: Kind, bundle: Bundle, progress: Progress) -> Report:
    settings = dataclasses.replace(options.bench.settings, decoder=kind.decoder)
    chosen = dataclasses.replace(options.bench, bundle=bundle.path, settings=settings)
    path = options.output / f"{kind.report}.json"
    options_sha256 = _options_sha256(chosen, bundle)
    if path.is_file():
        report = read_json(path)
        if report.options_sha256 == options_sha256:
            return report
    report = bench(chosen, _named(progress, kind.report))
    report = dataclasses.replace(report, options_sha256=options_sha256)
    write_document(report, path)
    return report


def _named(progress: Progress, name: str) -> Progress:
    """The same, each task by the name of what it is done for."""

    def named(task: str, done: int, total: int, detail: str = "") -> None:
        progress(f"{name}: {task}", done, total, detail)

    return named


def _options_sha256(chosen: BenchOptions, bundle: Bundle) -> str:
    """Of all that decides what a report says; another machine is another folder."""
    decisive = dataclasses.asdict(dataclasses.replace(chosen, bundle=Path(), clips=()))
    decisive |= {
        "bundle": sha256(bundle.path / MANIFEST_FILE),
        "clips": [clip_digest(clip) for clip in chosen.clips],
    }
    document = msgspec.json.encode(decisive, enc_hook=str, order="sorted")
    return hashlib.sha256(document).hexdigest()


def cells_of(report: Report, kind: Kind) -> list[Cell]:
    """The cells of a report; backends without times have none.

    The baseline is timed with the full decoder, so it has none in a student's report.
    """
    full = kind.decoder == FULL
    frames = [row for row in report.rows if row.stage == "frame" and row.p50_ms is not None]
    imagine = {(r.backend, r.batch): r.p50_ms for r in report.rows if r.stage == "imagine"}
    parity = {row.backend: row.parity for row in frames if row.batch == 1}
    cells = []
    for row in frames:
        if row.backend == report.baseline and not full:
            continue
        row_parity = parity.get(row.backend)
        agreement = row_parity.code_agreement if row_parity else 1.0  # the baseline's
        worst: float | None = IDENTICAL_DB  # the baseline is what others are compared with
        if row_parity is not None:
            by_horizon = row_parity.worst_frame_psnr_db or {}
            worst = min(by_horizon.values(), default=None) if full else row_parity.full_worst_db
        figures: dict[str, float | None] = {
            "frame": row.p50_ms,
            "imagine": imagine.get((row.backend, row.batch)),
            "memory": row.memory_mb,
            "psnr": worst,
            "codes": 100 * agreement if agreement is not None else None,
        }
        cells.append(
            Cell(
                layout=kind.layout,
                precision=kind.precision,
                weights=kind.weights,
                decoder=kind.decoder,
                backend=row.backend,
                batch=row.batch,
                figures=figures,
                verdict=row.verdict,
                reason=row.reason,
            )
        )
    return cells


def with_best(cells: Sequence[Cell]) -> list[Cell]:
    """The same cells, the Pareto set of each batch size marked."""
    return [
        dataclasses.replace(
            cell,
            best=cell.verdict == "pass" and not any(_beats(other, cell) for other in cells),
        )
        for cell in cells
    ]


def recommended(cells: Sequence[Cell], limits: tuple[Limit, ...]) -> Cell | None:
    """Of the cells that pass and keep the budget the one with the most frames per second."""
    kept = [c for c in cells if c.verdict == "pass" and not missed(limits, c.figures)]
    return min(kept, key=lambda cell: (cell.figures["frame"] or 0) / cell.batch, default=None)


def nearest(cells: Sequence[Cell], limits: tuple[Limit, ...]) -> tuple[Cell, list[str]]:
    """The cell that misses the fewest terms, the fastest of several, and those."""

    def distance(cell: Cell) -> tuple[bool, int, float]:
        wrong = cell.verdict != "pass"
        return wrong, len(missed(limits, cell.figures)), cell.figures["frame"] or 0

    cell = min(cells, key=distance)
    return cell, missed(limits, cell.figures)


def _beats(one: Cell, other: Cell) -> bool:
    if one.verdict != "pass" or one.batch != other.batch:
        return False
    pairs = [(_lower_is_better(one, name), _lower_is_better(other, name)) for name in _COMPARED]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _lower_is_better(cell: Cell, figure: str) -> float:
    value = cell.figures[figure]
    if value is None:
        return float("inf")
    return -value if figure == "psnr" else value
