"""A bundle: a directory with `manifest.json`, the ONNX graphs with their weights, and the model.

The manifest says everything that running the graphs takes; nothing here knows a model family, torch
or ONNX Runtime. A bundle is untrusted input: every path stays inside it, every file is a regular
file of the recorded size, and its hash is checked before anything reads it.

    bundle = Bundle.open(Path("pong.bundle"))
    bundle.manifest.graphs["step"].inputs
    bundle.checked_graph("step")  # the path of step.onnx, after hashing it and its weights
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import msgspec

from wmdeploy.errors import BundleError
from wmdeploy.files import DirectoryKind, sha256

MANIFEST_FILE = "manifest.json"
MODEL_DIRECTORY = "model"
SCHEMA = 1
BUNDLE_KIND = DirectoryKind(
    MANIFEST_FILE, "recipe", ("*.onnx", "*.onnx.data", MODEL_DIRECTORY, "plans")
)
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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Parity:
    """How far one output is from PyTorch float32 on real frames, and how far it may be.

    `max_abs` and `mean_abs` are in the tensor's own unit, `relative` is max_abs over the largest
    absolute value of the reference, `agreement` the share of equal integers (codes).
    """

    max_abs: float
    mean_abs: float
    relative: float
    agreement: float | None
    tolerance: float


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Recipe:
    """All that decides what an export makes; the same recipe gives the same bundle.

    `source` and `clip` (the frames that the graphs were verified on) are hashes, not paths.
    """

    source: str
    layout: Layout
    precision: Precision
    max_batch: int
    opset: int
    slim: bool
    clip: str
    tools: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    schema: int
    recipe: Recipe
    model: dict[str, Any]
    wiring: Wiring
    graphs: dict[str, GraphRecord]
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class Bundle:
    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """Read the manifest, and check that every file is there, inside, and of its recorded size.

        Raises:
            BundleError: it is no bundle, of a newer schema, incomplete, or leaves its directory.
        """
        bundle = cls(path, _read_manifest(path))
        for name, record in bundle.manifest.files.items():
            size = bundle._regular_file(name).stat().st_size
            if size != record.bytes:
                raise BundleError(
                    f"{path / name}: got {size} bytes, expected {record.bytes}; "
                    "the file is cut short or altered: export the model again"
                )
        for graph in bundle.manifest.graphs.values():
            if graph.file not in bundle.manifest.files:
                raise BundleError(f"{path}: {graph.file} is not among the manifest's files")
        _check_wiring(bundle)
        return bundle

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Compare the hashes of files (default: of all) with the manifest's.

        Raises:
            BundleError: a file was altered.
        """
        records = self.manifest.files
        if names is not None:
            records = {name: records[name] for name in names}
        with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
            hashes = pool.map(lambda name: sha256(self._regular_file(name)), records)
        for (name, record), found in zip(records.items(), hashes, strict=True):
            if found != record.sha256:
                raise BundleError(
                    f"{self.path / name}: sha256 is {found[:12]}…, the manifest says "
                    f"{record.sha256[:12]}…; the file was altered: export the model again"
                )

    def checked_graph(self, name: str) -> Path:
        """The path of a graph's ONNX file, once it and its weights have been hashed.

        Raises:
            BundleError: the graph is not in the bundle, was altered, or reads weights elsewhere.
        """
        if name not in self.manifest.graphs:
            have = ", ".join(self.manifest.graphs)
            raise BundleError(f'{self.path}: no graph "{name}"; it has {have}')
        file = self.manifest.graphs[name].file
        self.verify([file])
        weights = external_data_files(self.path / file)
        unknown = sorted(weights - self.manifest.files.keys())
        if unknown:
            raise BundleError(
                f"{self.path / file}: reads weights from {unknown[0]!r}, which is not one of the "
                "manifest's files; refused"
            )
        self.verify(weights)
        return self.path / file

    def checked_model(self) -> Path:
        """The directory of the source model, once its files have been hashed.

        Raises:
            BundleError: the bundle was exported with --slim, or the model was altered.
        """
        names = [name for name in self.manifest.files if name.startswith(f"{MODEL_DIRECTORY}/")]
        if not names:
            raise BundleError(
                f"{self.path}: carries no PyTorch model, because it was exported with --slim; "
                "the backends eager and compile need it: export again without --slim"
            )
        self.verify(names)
        return self.path / MODEL_DIRECTORY

    def _regular_file(self, name: str) -> Path:
        path = self.path / name
        for part in (path, *path.parents):
            if part == self.path:
                break
            if part.is_symlink():
                raise BundleError(f"{part}: is a link; a bundle holds regular files only")
        if not path.is_file():
            raise BundleError(f"{path}: is missing; copy or export the bundle again")
        return path


def external_data_files(graph: Path) -> set[str]:
    """Names of the files, relative to the graph's directory, that its weights are read from.

    Raises:
        BundleError: it is not an ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(graph.read_bytes())  # whatever its name is
    except DecodeError as error:
        raise BundleError(f"{graph}: not an ONNX file ({error}); export the model again") from error
    tensors = list(_tensors(model.graph))
    for function in model.functions:
        tensors += _node_tensors(function.node)
    entries = [entry for tensor in tensors for entry in tensor.external_data]
    return {entry.value for entry in entries if entry.key == "location"}


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of an ONNX graph that could name a file, those of inner graphs too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[Any]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield attribute.t
        yield from attribute.tensors
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for inner in (attribute.g, *attribute.graphs):
            if inner.ByteSize():
                yield from _tensors(inner)


def describe_files(directory: Path) -> dict[str, FileRecord]:
    """Hash every file below a directory, except a manifest; keys are relative POSIX paths."""
    paths = [Path(root) / name for root, _, names in os.walk(directory) for name in names]
    names = sorted(path.relative_to(directory).as_posix() for path in paths)
    names = [name for name in names if name != MANIFEST_FILE]
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(lambda name: sha256(directory / name), names)
    return {
        name: FileRecord(digest, (directory / name).stat().st_size)
        for name, digest in zip(names, hashes, strict=True)
    }


def write_manifest(manifest: Manifest, directory: Path) -> None:
    document = msgspec.json.format(msgspec.json.encode(dataclasses.asdict(manifest)), indent=2)
    (directory / MANIFEST_FILE).write_bytes(document + b"\n")


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST_FILE
    if file.is_symlink():
        raise BundleError(f"{file}: is a link; a bundle holds regular files only")
    if not file.is_file():
        raise BundleError(
            f"{path}: no {MANIFEST_FILE} there; expected a bundle, as `wmdeploy export` writes it"
        )
    try:
        document = msgspec.json.decode(file.read_bytes())
        found = document.get("schema") if isinstance(document, dict) else None
        if found != SCHEMA:
            raise BundleError(
                f"{file}: got schema {found}, expected {SCHEMA}; "
                "upgrade wmdeploy, or export the model again with this version"
            )
        manifest = msgspec.convert(document, Manifest)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BundleError(f"{file}: damaged ({error}); export the model again") from error
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({error.strerror})") from error
    for name in manifest.files:
        parts = PurePosixPath(name)
        odd = "\\" in name or not name.isprintable() or len(name) > 200
        if parts.is_absolute() or ".." in parts.parts or not parts.parts or odd:
            raise BundleError(f"{file}: the path {name!r} leaves the bundle; refused")
    return manifest


def _check_wiring(bundle: Bundle) -> None:
    """Every tensor that the wiring names is in the graph where a session looks for it.

    Raises:
        BundleError: a graph or a tensor is missing, or sizes are no sizes.
    """
    wiring, graphs = bundle.manifest.wiring, bundle.manifest.graphs
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
            raise BundleError(f"{bundle.path}: the manifest has no {name} graph; export again")
        specs = (graphs[name].inputs, graphs[name].outputs)
        for names, found in zip(sides, specs, strict=True):
            missing = {n for n in names if n is not None} - {spec.name for spec in found}
            if missing:
                raise BundleError(
                    f'{bundle.path}: the wiring names "{min(missing)}", which is no tensor of the '
                    f"{name} graph; the manifest was altered: export again"
                )
    _check_shapes(bundle)


def _check_shapes(bundle: Bundle) -> None:
    """The tensors that a session makes or cuts have the shapes that it expects.

    Raises:
        BundleError: they have others, or sizes that no model has.
    """
    wiring, graphs = bundle.manifest.wiring, bundle.manifest.graphs

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
    for name, (found, wanted) in expected.items():
        flat = tuple(n for size in wanted for n in (size if isinstance(size, tuple) else (size,)))
        if found != flat or len(found) < 2:
            raise BundleError(f"{bundle.path}: {name} has the shape {found}, expected {flat}")
    tensors = [t for graph in graphs.values() for t in (*graph.inputs, *graph.outputs)]
    sizes = [int(size) for tensor in tensors for size in tensor.shape if size != BATCH]
    if min(sizes, default=1) < 1 or max(tensor.bytes(1) for tensor in tensors) > LARGEST_TENSOR:
        raise BundleError(f"{bundle.path}: the manifest has sizes that no model has; export again")
    if wiring.context < 2 or bundle.manifest.recipe.max_batch < 1:
        raise BundleError(f"{bundle.path}: the manifest has a context or a batch below its least")
