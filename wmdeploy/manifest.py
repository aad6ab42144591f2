"""The manifest of a bundle: what is in `manifest.json`, and the checks that it makes sense.

It says everything that running the graphs takes; nothing here knows a model family, torch or ONNX.
"""

import dataclasses
import tarfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import msgspec

from wmdeploy.documents import unknown_setting
from wmdeploy.errors import BundleError
from wmdeploy.files import read_document, refuse_pointer, staged_file

MANIFEST_FILE = "manifest.json"
SCHEMA = 1
LARGEST_TENSOR = 2**32  # bytes of one tensor at batch 1; a damaged manifest could claim anything
BATCH: Final = "B"  # the one symbolic dimension of a graph

DType = Literal["uint8", "int64", "float16", "float32"]
Shape = tuple[int | Literal["B"], ...]
Layout = Literal["token", "latent"]
Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph. `shape` has "B" where the batch is, integers elsewhere."""

    name: str
    dtype: DType
    shape: Shape

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"

    @property
    def item_bytes(self) -> int:
        return {"uint8": 1, "int64": 8, "float16": 2, "float32": 4}[self.dtype]

    def bytes(self, batch: int) -> int:
        """Size of the tensor for one batch size."""
        total = self.item_bytes
        for size in self.shape:
            total *= batch if size == BATCH else int(size)
        return total


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """How a session connects the graphs: tensor names, no model knowledge.

    Attributes:
        context: S, the tokens that the window holds.
        num_actions: 0, or actions are integers below it.
        frames, encoded, codes: the encoder's input, and its outputs for the window and for people.
        window, length, window_actions: the prefill's inputs; actions are None without conditioning.
        token, position, action: the step's inputs besides the cache.
        feedback: the output of prefill and step that is the next `token`.
        render: the output of prefill and step that the decoder reads, and the decoder's input.
        frame: the decoder's output.
        cache: pairs (step input, step output) that carry the KV cache; the prefill gives it under
            the inputs' names, because an ONNX graph cannot have an output named like an input.
            Empty: there is no step graph, and every frame is predicted by the prefill.
    """

    context: int
    num_actions: int
    frames: str
    encoded: str
    codes: str
    window: str
    length: str
    window_actions: str | None
    token: str
    position: str
    action: str | None
    feedback: str
    render: tuple[str, str]
    frame: str
    cache: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far one output is from PyTorch float32 on real frames, and how far it may be.

    `max_abs` and `mean_abs` are in the tensor's own unit; `relative` is max_abs over the largest
    absolute value of the reference, for pixels the root mean square error of the worst frame over
    255 (1e-3 is 60 dB of PSNR); `agreement` is the share of equal integers (codes), of which `tied`
    are others within rounding and `wrong` beyond it (see `wmdeploy.models.ties`).
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
    that of `clip` stand the options that it was read with, if there were any.
    """

    source: str
    layout: Layout
    precision: Precision
    max_batch: int
    opset: int
    slim: bool
    clip: str
    tools: dict[str, str]


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
class Manifest:
    """What a bundle is.

    Attributes:
        model: the sizes of the model, by part and name.
        files: those of the export.
        plans: added by `wmdeploy build-engine`.
        other_layout_weight_bytes: what each graph's weights would take in the layout that this
            bundle is not in, for comparison; empty in older bundles.
        family: of the model, a key of `wmdeploy.families.FAMILIES`; a bundle of a version that
            knew one family does not say it.
    """

    schema: int
    recipe: Recipe
    model: dict[str, Any]
    wiring: Wiring
    graphs: dict[str, GraphRecord]
    files: dict[str, FileRecord]
    plans: tuple[PlanRecord, ...] = ()
    other_layout_weight_bytes: dict[str, int] = field(default_factory=dict)
    family: str = "vqvae-transformer"


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
        if name := unknown_setting(document["wiring"], Wiring):
            raise BundleError(
                f'{file}: the wiring names "{name}", and this version of wmdeploy has no such '
                "wiring; export the model again, or use the version that made the bundle"
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
    _check_wiring(manifest, path)
    return manifest


def not_the_folder(path: Path) -> str | None:
    """What to give instead of one file of a bundle, or of a packed one; None for anything else."""
    if not path.is_file():
        return None
    if path.name == MANIFEST_FILE or path.name.endswith((".onnx", ".onnx.data", ".plan")):
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


def _check_wiring(manifest: Manifest, path: Path) -> None:
    """Every tensor that the wiring names is in the graph where a session looks for it.

    Raises:
        BundleError: a graph or a tensor is missing, or sizes are no sizes.
    """
    wiring, graphs = manifest.wiring, manifest.graphs
    caches = [given for given, _ in wiring.cache]
    news = [new for _, new in wiring.cache]
    wanted: dict[str, tuple[list[str | None], list[str | None]]] = {
        "encoder": ([wiring.frames], [wiring.encoded, wiring.codes]),
        "prefill": (
            [wiring.window, wiring.length, wiring.window_actions],
            [wiring.feedback, wiring.render[0], *caches],
        ),
        "decoder": ([wiring.render[1]], [wiring.frame]),
    }
    if wiring.cache:
        wanted["step"] = (
            [wiring.token, wiring.position, wiring.action, *caches],
            [wiring.feedback, wiring.render[0], *news],
        )
    for name, sides in wanted.items():
        if name not in graphs:
            raise BundleError(f"{path}: the manifest has no {name} graph; export again")
        specs = (graphs[name].inputs, graphs[name].outputs)
        for names, declared in zip(sides, specs, strict=True):
            missing = {n for n in names if n is not None} - {spec.name for spec in declared}
            if missing:
                raise BundleError(
                    f'{path}: the wiring names "{min(missing)}", which is no tensor of the '
                    f"{name} graph; the manifest was altered: export again"
                )
    _check_shapes(manifest, path)


def _check_shapes(manifest: Manifest, path: Path) -> None:
    """The tensors that a session makes or cuts have the shapes that it expects.

    Raises:
        BundleError: they have others, or sizes that no model has.
    """
    wiring, graphs = manifest.wiring, manifest.graphs

    def shape(graph: str, name: str | None, given: bool = True) -> Shape:
        specs = graphs[graph].inputs if given else graphs[graph].outputs
        return next(spec.shape for spec in specs if spec.name == name)

    window = shape("prefill", wiring.window)
    frames = shape("encoder", wiring.frames)
    token = (BATCH, *window[2:])
    expected = {
        f"encoder.{wiring.frames}": (frames, (BATCH, frames[1:2], frames[1:2], 3)),
        f"prefill.{wiring.window}": (window, (BATCH, (wiring.context,), window[2:3])),
        f"encoder.{wiring.encoded}": (shape("encoder", wiring.encoded, False), token),
        f"prefill.{wiring.feedback}": (shape("prefill", wiring.feedback, False), token),
    }
    for given, new in wiring.cache:
        cache = shape("step", given)
        expected[f"step.{new}"] = (shape("step", new, False), cache)
        expected[f"prefill.{given}"] = (shape("prefill", given, False), cache)
    for name, (actual, wanted) in expected.items():
        flat = tuple(n for size in wanted for n in (size if isinstance(size, tuple) else (size,)))
        if actual != flat or len(actual) < 2:
            raise BundleError(f"{path}: {name} has the shape {actual}, expected {flat}")
    tensors = [t for graph in graphs.values() for t in (*graph.inputs, *graph.outputs)]
    sizes = [int(size) for tensor in tensors for size in tensor.shape if size != BATCH]
    if min(sizes, default=1) < 1 or max(tensor.bytes(1) for tensor in tensors) > LARGEST_TENSOR:
        raise BundleError(f"{path}: the manifest has sizes that no model has; export again")
    if wiring.context < 2 or manifest.recipe.max_batch < 1:
        raise BundleError(f"{path}: the manifest has a context or a batch below its least")
