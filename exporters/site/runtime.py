"""ONNX Runtime for browsers, from its npm package: two builds, of which a site has one."""

import base64
import gzip
import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from wmdeploy.errors import ExportError
from wmdeploy.files import cache_file, staged_file

PACKAGE = "onnxruntime-web@1.30.0"
INTEGRITY = (  # as npm has it: sha512, base64
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
LARGEST = 64 * 2**20  # bytes of one file
MINUTES = 5  # that npm has


@dataclass(frozen=True)
class Build:
    """Files of one build; pages read their names.

    Attributes:
        webgpu: it has the WebGPU provider beside the wasm one.
    """

    module: str
    loader: str
    binary: str
    webgpu: bool

    @property
    def files(self) -> tuple[str, ...]:
        return (self.module, self.loader, self.binary)


WASM = Build(
    "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm", webgpu=False
)
WEBGPU = Build(
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
    webgpu=True,
)
FILES = (*WASM.files, *WEBGPU.files)


def copy_runtime(build: Build, directory: Path, given: Path | None) -> None:
    """Put a build into a folder, its binary compressed: 3.8 MB, with WebGPU 6.8 MB.

    Args:
        given: a folder with the build's files, such as `dist` of the npm package; None: they are
            taken from the user's cache, or by npm.

    Raises:
        ExportError: they are not there, and npm cannot get them, or gets something else.
    """
    source = given or _cached(build)
    for name in build.files:
        path = source / name
        if not path.is_file():
            raise ExportError(f"{source}: has no {name}; give the folder dist of npm's {PACKAGE}")
        if path.stat().st_size > LARGEST:
            raise ExportError(
                f"{path}: has {path.stat().st_size} bytes, expected {LARGEST} at most"
            )
    for name in (build.module, build.loader):
        shutil.copyfile(source / name, directory / name)
    packed = gzip.compress((source / build.binary).read_bytes(), mtime=0)
    (directory / f"{build.binary}.packed").write_bytes(packed)


def _cached(build: Build) -> Path:
    """The folder in the user's cache; what npm gets fills it for all builds."""
    folder = cache_file(PACKAGE.replace("@", "-"))
    if all((folder / name).is_file() for name in build.files):
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(
            f"the page needs {PACKAGE}, and there is no npm here to get it; install npm, or give "
            "the folder dist of that package"
        )
    with tempfile.TemporaryDirectory() as place:
        try:
            command = [npm, "pack", "--pack-destination", place, PACKAGE]
            subprocess.run(
                command, check=True, capture_output=True, timeout=60 * MINUTES, cwd=place
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error).encode()
            reason = _reason(said.decode(errors="replace"))
            raise ExportError(
                f"npm cannot get {PACKAGE} ({reason}); check the network, or give the folder "
                "dist of that package"
            ) from error
        archive = next(Path(place).glob("*.tgz"), None)
        if archive is None:
            raise ExportError(f"npm got nothing for {PACKAGE}")
        digest = hashlib.sha512(archive.read_bytes()).digest()
        if base64.b64encode(digest).decode() != INTEGRITY:
            raise ExportError(
                f"npm got another {PACKAGE} than the one that we know; nothing was kept"
            )
        _unpack(archive, folder)
    return folder


def _reason(said: str) -> str:
    """Of what npm writes, the line that says why: not the code before it, nor the log behind it."""
    lines = [re.sub(r"^npm (error|ERR!) ?", "", line) for line in said.splitlines()]
    beside = ("code ", "errno ", "syscall ")
    reasons = [line for line in lines if line and not line.startswith(beside)]
    return reasons[0] if reasons else "no reason given"


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as package:
        for name in FILES:
            member = package.extractfile(f"package/dist/{name}")
            assert member is not None, "its hash is known"
            with staged_file(folder / name) as partial:
                partial.write_bytes(member.read())
