"""A bundle: a directory with `manifest.json`, the ONNX graphs with their weights, and the model.

A bundle is a stranger's. It can answer anything, and take the time and the memory that its sizes
ask for. It cannot run a program, read or write files outside itself, or hold operators that no
export writes (`wmdeploy/graph_file.py`). Plans are the exception, code for a GPU: README.md says
whom to take them from.

Every path stays inside the bundle, every file is a regular file of its recorded size, and its hash
is checked before anything reads it. A file may be a link to a regular one, as in the cache of a
download, because what is read through it has been hashed; a directory that is a link is refused,
and so is writing through a link.

    bundle = Bundle.open(Path("pong.bundle"))
    bundle.manifest.graphs["step"].inputs
    with bundle.graph_to_load("step") as path:  # step.onnx, after hashing it and its weights
        ...  # load it: a bundle that is replaced meanwhile is an error, never a mixture of two
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from wmdeploy.errors import BundleError
from wmdeploy.files import DirectoryKind, read_document, refuse_pointer, sha256
from wmdeploy.graph_file import WEIGHTS_FILE, checked_weight_bytes
from wmdeploy.manifest import (
    MANIFEST_FILE,
    STARTS_FILE,
    FileRecord,
    Manifest,
    PlanRecord,
    read_manifest,
)

MODEL_DIRECTORY = "model"
PLANS_DIRECTORY = "plans"
GIT_ATTRIBUTES_FILE = ".gitattributes"  # in no manifest: sites that keep models have their own
GIT_ATTRIBUTES = "# Hashes are over bytes: git shall change no line ends.\n* -text\n"
BUNDLE_KIND = DirectoryKind(
    MANIFEST_FILE,
    "recipe",
    ("*.onnx", WEIGHTS_FILE, STARTS_FILE, MODEL_DIRECTORY, PLANS_DIRECTORY, GIT_ATTRIBUTES_FILE),
)


@dataclass(frozen=True)
class Bundle:
    path: Path
    manifest: Manifest
    # files whose hash has been found right, and which file each was then
    _hashed: dict[str, tuple[int, ...] | None] = field(
        default_factory=dict, compare=False, repr=False
    )

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """Read the manifest, and check that every file is there, inside, and of its recorded size.

        Raises:
            BundleError: it is no bundle, of a newer schema, incomplete, or leaves its directory.
        """
        bundle = cls(path, read_manifest(path))
        for name, record in bundle.manifest.files.items():
            size = _size(bundle._regular_file(name))
            if size != record.bytes:
                raise bundle._other_size(name, size)
        for graph in bundle.manifest.graphs.values():
            if graph.file not in bundle.manifest.files:
                raise BundleError(f"{path}: {graph.file} is not among the manifest's files")
        return bundle

    def with_decoder(self, decoder: str) -> "Bundle":
        """The same, whose manifest has this decoder alone, and the graphs that are called then.

        Not to be written: the others stay in the directory.

        Raises:
            WmdeployError: it has no such decoder.
        """
        programs = self.manifest.programs.rendering(decoder)
        called = programs.graphs()
        graphs = {name: graph for name, graph in self.manifest.graphs.items() if name in called}
        manifest = dataclasses.replace(self.manifest, programs=programs, graphs=graphs)
        return dataclasses.replace(self, manifest=manifest)

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Compare the hashes of files (default: of all) with the manifest's.

        Raises:
            BundleError: a file was altered.
        """
        records = self.manifest.files
        if names is not None:
            records = {name: records[name] for name in names}
        try:
            with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
                hashes = list(pool.map(lambda name: sha256(self._regular_file(name)), records))
        except OSError as error:
            raise BundleError(f"{error.filename}: cannot be read ({error.strerror})") from error
        for (name, record), digest in zip(records.items(), hashes, strict=True):
            if digest != record.sha256:
                raise BundleError(
                    f"{self.path / name}: sha256 is {digest[:12]}…, the manifest says "
                    f"{record.sha256[:12]}…; the file was altered: export the model again"
                )

    def checked_graph(self, name: str) -> Path:
        """The path of a graph's ONNX file, once it and its weights have been checked.

        What loads it uses `graph_to_load`, which sees that the files stay the same until then.

        Raises:
            BundleError: as `graph_to_load`.
        """
        with self.graph_to_load(name) as path:
            return path

    @contextmanager
    def graph_to_load(self, name: str) -> Iterator[Path]:
        """The path of a graph's ONNX file, to be loaded with its weights within the block.

        Raises:
            BundleError: the graph is not in the bundle, was altered, holds what no export of ours
                writes, or reads weights elsewhere; at the end of the block: it was replaced.
        """
        if name not in self.manifest.graphs:
            have = ", ".join(self.manifest.graphs)
            raise BundleError(f'{self.path}: no graph "{name}"; it has {have}')
        path = self.path / self.manifest.graphs[name].file
        names = [self.manifest.graphs[name].file]
        names += [WEIGHTS_FILE] if WEIGHTS_FILE in self.manifest.files else []
        with self._unchanged(names):
            if checked_weight_bytes(path) and len(names) == 1:
                raise BundleError(
                    f"{path}: reads weights from {WEIGHTS_FILE}, which is not one of the "
                    "manifest's files; refused"
                )
            yield path

    def checked_model(self) -> Path:
        """The directory of the source model, once its files have been hashed.

        What loads it uses `model_to_load`, which sees that the files stay the same until then.

        Raises:
            BundleError: as `model_to_load`.
        """
        with self.model_to_load() as directory:
            return directory

    @contextmanager
    def model_to_load(self) -> Iterator[Path]:
        """The directory of the source model, to be loaded within the block.

        Raises:
            BundleError: the bundle was exported slim, or the model was altered; at the end
                of the block: it was replaced.
        """
        names = [name for name in self.manifest.files if name.startswith(f"{MODEL_DIRECTORY}/")]
        if not names:
            raise BundleError(
                f"{self.path}: carries no PyTorch model, because it was exported slim; eager, "
                "compile and aoti need it: export the model again, not slim"
            )
        with self._unchanged(names):
            yield self.path / MODEL_DIRECTORY

    @contextmanager
    def starts_to_load(self) -> Iterator[Path]:
        """The clip of the contexts that dreams begin with, to be read within the block.

        Raises:
            BundleError: there is none, or it was altered; at the end of the block: replaced.
        """
        if self.manifest.play is None:
            raise BundleError(f"{self.path}: has no starts; export it with a recorded clip")
        with self._unchanged([STARTS_FILE]):
            yield self.path / STARTS_FILE

    @contextmanager
    def _unchanged(self, names: Sequence[str]) -> Iterator[None]:
        """Hash files, let the block read them again, and see that they are those that were hashed.

        Raises:
            BundleError: one was altered, or is another file at the end, whatever the block says.
        """
        before = self._identities(names)
        # graphs share their weights: what has been hashed, and is the same file, is not again
        new = [
            n
            for n, identity in zip(names, before[1:], strict=True)
            if identity is None or self._hashed.get(n) != identity
        ]
        self.verify(new)
        self._hashed.update(zip(names, before[1:], strict=True))
        try:
            yield
        finally:
            if self._identities(names) != before:
                raise BundleError(
                    f"{self.path}: was replaced while it was read; run the same command again"
                )

    def _identities(self, names: Sequence[str]) -> list[tuple[int, ...] | None]:
        """What tells files from others, and the bundle from one that has changed places with it."""
        return [_identity(self.path), *(_identity(self.path / name) for name in names)]

    def graph_digest(self, name: str) -> str:
        """One hash for a graph and its weights, from the hashes in the manifest."""
        records = self.manifest.files
        files = {self.manifest.graphs[name].file, WEIGHTS_FILE} & records.keys()
        parts = [f"{file} {records[file].sha256}" for file in files]
        return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()

    def checked_plan(self, record: PlanRecord) -> bytes:
        """A plan's bytes, once hashed: they, and nothing read again later, may be deserialised.

        Raises:
            BundleError: the file is missing, a link, cut short, or altered.
        """
        fix = f"build the plan of {record.graph} again with `wmdeploy build-engine`"
        path = self.path / record.file
        try:
            if self._regular_file(record.file).is_symlink():  # plans are written here, too
                raise BundleError(f"{path}: is a link")
        except BundleError:
            raise BundleError(
                f"{path}: the plan is missing, or not a regular file; {fix}"
            ) from None
        if (size := _size(path)) != record.bytes:
            raise BundleError(
                f"{path}: got {size} bytes, expected {record.bytes}; the plan was cut short "
                f"or swapped; {fix}"
            )
        try:
            plan = read_document(path, record.bytes)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror}); {fix}") from error
        if hashlib.sha256(plan).hexdigest() != record.sha256:
            raise BundleError(
                f"{path}: its sha256 is not the manifest's; the plan was altered or swapped, and "
                f"it was not loaded; {fix}"
            )
        return plan

    def _other_size(self, name: str, size: int) -> BundleError:
        """Why a file has not the size of its record."""
        path, record = self.path / name, self.manifest.files[name]
        refuse_pointer(path, BundleError)
        if record.bytes < size < min(2 * record.bytes, 2**20):  # git takes no weights for text
            plain = path.read_bytes().replace(b"\r\n", b"\n")
            if hashlib.sha256(plain).hexdigest() == record.sha256:
                return BundleError(
                    f"{path}: git changed its line ends (core.autocrlf); clone it again with "
                    "git clone -c core.autocrlf=false"
                )
        return BundleError(
            f"{path}: got {size} bytes, expected {record.bytes}; "
            "the file is cut short or altered: export the model again"
        )

    def _regular_file(self, name: str) -> Path:
        path = self.path / name
        for part in path.parents:
            if part == self.path:
                break
            if part.is_symlink():
                raise BundleError(
                    f"{part}: is a link to a directory; a bundle holds files, or links to files"
                )
        if not path.is_file():
            raise BundleError(
                f"{path}: is missing, or a link to no file; copy or export the bundle again"
            )
        return path


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error


def _identity(path: Path) -> tuple[int, ...] | None:
    """Of a file or directory; its ctime changes with its content, and when it is moved."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def describe_files(directory: Path) -> dict[str, FileRecord]:
    """Hash every file below a directory, except a manifest; keys are relative POSIX paths."""
    paths = [Path(root) / name for root, _, names in os.walk(directory) for name in names]
    names = sorted(path.relative_to(directory).as_posix() for path in paths)
    names = [name for name in names if name not in (MANIFEST_FILE, GIT_ATTRIBUTES_FILE)]
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(lambda name: sha256(directory / name), names)
    return {
        name: FileRecord(digest, (directory / name).stat().st_size)
        for name, digest in zip(names, hashes, strict=True)
    }
