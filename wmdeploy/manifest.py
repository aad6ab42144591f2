"""The manifest of a bundle: what is in `manifest.json`, and the checks that it makes sense.

It says everything that running the graphs takes; nothing here knows a model family, torch or ONNX.
"""

import dataclasses
import re
import tarfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from wmdeploy.documents import unknown_setting
from wmdeploy.errors import BundleError
from wmdeploy.files import read_document, refuse_pointer, staged_file
from wmdeploy.programs.check import find_fault
from wmdeploy.programs.contract import (
    BATCH,
    PROGRAMS,
    RESERVED_NAMES,
    Call,
    Noise,
    Programs,
    TensorSpec,
)

MANIFEST_FILE = "manifest.json"
STARTS_FILE = "starts.npz"
MOST_STARTS = 64
LONGEST_START = 16  # frames of a start, where a model takes so many
SCHEMA = 2
LARGEST_TENSOR = 2**32  # bytes of one tensor at batch 1; a damaged manifest could claim anything
Precision = Literal["fp32", "fp16"]  # of what is computed
Weights = Literal["float", "int8"]  # of large linear layers; float: as they are computed
Exactness = Literal["fp32", "fp16", "int8"]  # what tolerances go by, see `exactness`


def exactness(precision: Precision, weights: Weights) -> Exactness:
    """The coarser of both: of the weights where those are integers."""
    return precision if weights == "float" else weights


def types_in_words(precision: Precision, weights: Weights) -> str:
    """ "fp32", or "fp32 with int8 weights"."""
    return precision if weights == "float" else f"{precision} with {weights} weights"


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far one output is from PyTorch float32 on real frames, and how far it may be.

    `max_abs` and `mean_abs` are in the tensor's own unit; `relative` is max_abs over the largest
    absolute value of the reference, for pixels the root mean square error of the worst frame over
    255 (1e-3 is 60 dB of PSNR); `agreement` is the share of equal integers (codes), of which `tied`
    are others within rounding and `wrong` beyond it (see `wmdeploy.families.reference.ties`).
    """

    max_abs: float
    mean_abs: float
    relative: float
    agreement: float | None
    tolerance: float
    tied: int | None = None
    wrong: int | None = None


@dataclass(frozen=True, kw_only=True)
class GraphRecord:
    """One ONNX graph; `flops` and `weight_bytes` are what one frame of one session costs."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weight_bytes: int
    flops: int
    parity: dict[str, Parity]


@dataclass(frozen=True)
class FileRecord:
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides what an export makes; the same recipe gives the same bundle.

    `source` and `clip` (the frames that the graphs were verified on) are hashes, not paths; behind
    that of `clip` stand the options that it was read with, if there were any. `weights` says how
    those of large linear layers are stored, but for `float_layers`, which stay as they are.
    """

    source: str
    layout: str
    precision: Precision
    max_batch: int
    opset: int
    slim: bool
    clip: str
    tools: dict[str, str]
    weights: Weights = "float"
    float_layers: tuple[str, ...] = ()

    @property
    def exactness(self) -> Exactness:
        return exactness(self.precision, self.weights)

    @property
    def types(self) -> str:
        return types_in_words(self.precision, self.weights)


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """One serialized TensorRT engine, and all that must fit before it is deserialised.

    Attributes:
        graph: the graph that it was built from.
        flavour, version: "tensorrt" or "tensorrt-rtx", and the version that built it.
        architectures: GPUs that it runs on, such as "sm_89".
        precision: of the graph; the plan computes in exactly the graph's types.
        batches: least, tuned-for and largest batch of its optimisation profile.
        workspace_gib, opt_level: the builder's limit (None: its default) and effort.
        onnx_sha256: of the graph and its weights, see `Bundle.graph_digest`.
        file, sha256, bytes: the plan, below the bundle's directory.
        weight_bytes, activation_bytes: on the device, as the builder said; activations are of the
            largest batch. None if it did not say.
        system, driver: where it was built; driver is None on a machine without a GPU.
    """

    graph: str
    flavour: str
    version: str
    architectures: tuple[str, ...]
    precision: Precision
    batches: tuple[int, int, int]
    workspace_gib: float | None
    opt_level: int
    onnx_sha256: str
    file: str
    sha256: str
    bytes: int
    weight_bytes: int | None
    activation_bytes: int | None
    build_seconds: float
    system: str
    driver: str | None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How well a model predicts frames that it was not trained on, as its training measured it.

    Attributes:
        frames: that it was trained on.
        next_db, next_copy_db: PSNR in dB of the next frame, and of the last one in its place.
        later_db, later_copy_db: of the frame at `horizon` of a rollout, likewise.
    """

    frames: int
    next_db: float
    next_copy_db: float
    horizon: int
    later_db: float
    later_copy_db: float

    def lines(self) -> tuple[tuple[str, str], ...]:
        """For people: what, and how well."""
        ours = (self.next_db, self.later_db)
        theirs = (self.next_copy_db, self.later_copy_db)
        names = ("Next frame", f"Frame {self.horizon} of a rollout")
        return (
            ("Trained on", f"{self.frames:,} frames"),
            *(
                (name, f"{one:.1f} dB; copying the last real one: {other:.1f} dB")
                for name, one, other in zip(names, ours, theirs, strict=True)
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Play:
    """What a bundle is played as; known where it was exported with a recorded clip.

    Attributes:
        game: as `wmdeploy record` takes it.
        actions: what each is, by number: "NOOP", "UPFIRE".
        fps, frame_skip: frames per second as recorded, and emulator frames for each.
        starts, context: how many contexts `STARTS_FILE` has, one behind the other, and the frames
            of each.
        prediction: None of a model that was not trained here.
    """

    game: str
    actions: tuple[str, ...]
    fps: float
    frame_skip: int
    starts: int
    context: int
    prediction: Prediction | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle is.

    Attributes:
        model: the sizes of the model, by part and name.
        files: those of the export.
        plans: added by `wmdeploy build-engine`.
        other_layout: another layout of the family, for comparison; None if it has no other.
        other_layout_weight_bytes: what each graph's weights would take there.
        family: of the model, see `wmdeploy.families.find`.
        programs: what a session runs.
        play: see `Play`; None where nobody knows.
    """

    schema: int
    recipe: Recipe
    family: str
    model: dict[str, Any]
    programs: Programs
    graphs: dict[str, GraphRecord]
    files: dict[str, FileRecord]
    plans: tuple[PlanRecord, ...] = ()
    other_layout: str | None = None
    other_layout_weight_bytes: dict[str, int] = field(default_factory=dict)
    play: Play | None = None


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle at `path`, once it has been found to make sense in itself.

    Raises:
        BundleError: there is none, it is of another schema, damaged, or names a path that leaves
            the bundle.
    """
    file = path / MANIFEST_FILE
    if advice := not_the_folder(path):
        raise BundleError(advice)
    refuse_pointer(file, BundleError)
    if not file.is_file():
        raise BundleError(
            f"{path}: no {MANIFEST_FILE} there; expected a bundle, as `wmdeploy export` writes it"
            + bundle_inside(path)
        )
    try:
        document = msgspec.json.decode(read_document(file))
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise BundleError(
                f"{file}: got schema {schema}, expected {SCHEMA}; "
                "upgrade wmdeploy, or export the model again with this version"
            )
        manifest = msgspec.convert(document, Manifest)
        if name := _unknown_in_programs(document["programs"]):
            raise BundleError(
                f'{file}: the programs have "{name}", which this version of wmdeploy does not '
                "know; export the model again, or use the version that made the bundle"
            )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{file}: damaged ({error}); export the model again") from error
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({error.strerror})") from error
    for name in (*manifest.files, *(plan.file for plan in manifest.plans)):
        parts = PurePosixPath(name)
        odd = "\\" in name or not name.isprintable() or len(name) > 200
        if parts.is_absolute() or ".." in parts.parts or not parts.parts or odd:
            raise BundleError(f"{file}: the path {name!r} leaves the bundle; refused")
    _check_sizes(manifest, path)
    if manifest.play is not None:
        if not is_playable(manifest.play, manifest.programs) or STARTS_FILE not in manifest.files:
            raise BundleError(f"{path}: the manifest's play is of no game; export again")
    if fault := find_fault(manifest.programs, manifest.graphs):
        raise BundleError(
            f"{path}: {fault}; the manifest was altered, or is of another version: export again"
        )
    return manifest


def is_playable(play: Play, programs: Programs) -> bool:
    """Whether it has numbers and names that a game of the model has."""
    return (
        all(re.fullmatch(r"[A-Za-z0-9_ ]{1,40}", word) for word in (play.game, *play.actions))
        and len(play.actions) == programs.num_actions
        and 0 < play.fps <= 1000
        and 1 <= play.frame_skip <= 60
        and 1 <= play.starts <= MOST_STARTS
        and max(1, programs.least) <= play.context <= 1024
    )


def start_length(programs: Programs) -> int:
    """Real frames that a dream begins with."""
    return max(programs.least, min(LONGEST_START, programs.context))


def _unknown_in_programs(document: dict[str, Any]) -> str | None:
    """A field of the programs, or of one of their parts, that this version does not know."""
    parts: list[tuple[dict[str, Any], type]] = [(document, Programs)]
    programs = [
        *(document.get(name, ()) for name in PROGRAMS),
        *document.get("renders", {}).values(),
    ]
    parts += [(call, Call) for calls in programs for call in calls]
    parts += [(noise, Noise) for noise in document.get("noise", {}).values()]
    parts += [
        (t, TensorSpec) for kind in ("state", "records", "outputs") for t in document.get(kind, ())
    ]
    return next(filter(None, (unknown_setting(*part) for part in parts)), None)


def not_the_folder(path: Path) -> str | None:
    """What to give instead of one file of a bundle, or of a packed one; None for anything else."""
    if not path.is_file():
        return None
    if path.name == MANIFEST_FILE or path.name.endswith((".onnx", ".data", ".plan")):
        folder = path.absolute().parent
        return f"{path}: is one file of a bundle; give the bundle's folder: {folder}"
    with suppress(Exception):  # of a damaged archive; its reader in earnest says what is wrong
        names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
        packed = any(PurePosixPath(name).name == MANIFEST_FILE for name in names)
        if packed or tarfile.is_tarfile(path):
            return f"{path}: is a packed folder; unpack it, and give the bundle's folder"
    return None


def bundle_inside(path: Path) -> str:
    """For a message: the bundle in a folder that is none itself; "" if there is none."""
    inner = sorted(path.glob(f"*/{MANIFEST_FILE}"))
    return f"; it holds a bundle, give that: {inner[0].parent}" if inner else ""


def check_changeable(directory: Path) -> None:
    """Refuse to change a bundle in the cache of a download, where names are links to shared files.

    Raises:
        BundleError: its manifest is a link.
    """
    if (directory / MANIFEST_FILE).is_symlink():
        raise BundleError(
            f"{directory / MANIFEST_FILE}: is a link, and wmdeploy does not write through links; "
            "work on a copy without links (cp -rL)"
        )


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write or replace the manifest in a bundle's directory.

    Raises:
        BundleError: see `check_changeable`.
    """
    check_changeable(directory)
    document = msgspec.json.format(msgspec.json.encode(dataclasses.asdict(manifest)), indent=2)
    with staged_file(directory / MANIFEST_FILE) as partial:
        partial.write_bytes(document + b"\n")


def _check_sizes(manifest: Manifest, path: Path) -> None:
    """Tensors have sizes that a model has.

    Raises:
        BundleError: they have others.
    """
    graphs = manifest.graphs.values()
    tensors = [t for graph in graphs for t in (*graph.inputs, *graph.outputs)]
    sizes = [int(size) for tensor in tensors for size in tensor.shape if size != BATCH]
    if min(sizes, default=1) < 1 or any(t.bytes(1) > LARGEST_TENSOR for t in tensors):
        raise BundleError(f"{path}: the manifest has sizes that no model has; export again")
    for tensor in tensors:
        if tensor.shape.count(BATCH) != 1:
            raise BundleError(
                f'{path}: the tensor "{tensor.name}" has the shape {tensor.shape}, expected one '
                "batch axis; export again"
            )
    for name in manifest.graphs:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name) or name in RESERVED_NAMES:
            raise BundleError(f"{path}: the manifest names a graph {name[:40]!r}; export again")
    words = (manifest.family, manifest.recipe.layout, manifest.other_layout or "")
    if odd := next((word for word in words if not re.fullmatch(r"[a-z0-9-]{0,40}", word)), None):
        raise BundleError(
            f"{path}: the manifest has the family or layout {odd[:40]!r}, expected lower case "
            "letters, digits and dashes; export again"
        )
    if manifest.recipe.max_batch < 1:
        raise BundleError(f"{path}: the manifest has a batch below 1; export again")
