"""The plans of a bundle: which to build, which there are, and which may run here.

A plan is code for a GPU: TensorRT itself checks little before it runs one, and says little when it
refuses. So all that was recorded when it was built is compared before it is deserialised.
"""

import dataclasses
import hashlib
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from wmdeploy.bundle import PLANS_DIRECTORY, Bundle
from wmdeploy.engines.trt.build import Built, Order, build
from wmdeploy.engines.trt.flavour import CURRENT, Flavour, check_architectures, load_flavour
from wmdeploy.errors import BackendError, BundleError, MissingError
from wmdeploy.files import append_regular, check_inside, staged_file
from wmdeploy.gpu import Gpu, gpu
from wmdeploy.locks import sole_writer
from wmdeploy.manifest import PlanRecord, check_changeable, write_manifest
from wmdeploy.progress import Progress, silent

LOG_FILE = "build.log"
LARGEST_WORKSPACE = 1024  # GiB
# what only the build tells: a record without it is what was asked for
TOLD_BY_BUILD = (
    "file", "sha256", "bytes", "weight_bytes", "activation_bytes", "build_seconds", "system",
    "driver",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What to build. No `graphs`: all. `max_batch` None: the bundle's."""

    bundle: Path
    flavour: str = "auto"
    architectures: tuple[str, ...] = (CURRENT,)
    max_batch: int | None = None
    workspace_gib: float | None = None
    opt_level: int = 3
    graphs: tuple[str, ...] = ()


def build_plans(
    options: BuildOptions, progress: Progress = silent
) -> list[tuple[PlanRecord, bool]]:
    """Build each graph's plan, unless the bundle has that very plan already.

    Each finished plan is in the bundle before the next one begins; an error, Ctrl-C or a kill
    leaves the bundle as the last finished plan left it.

    Returns:
        Each plan's record, and whether it was built now.

    Raises:
        BackendError: the flavour, an option or a graph cannot be built.
        BundleError: the bundle is damaged, or in the cache of a download.
        WmdeployError: what is written would lie outside it, or another process builds there.
    """
    bundle = Bundle.open(options.bundle)
    check_changeable(options.bundle)
    _check(options, bundle)
    flavour = load_flavour(options.flavour)
    _check_place(bundle)
    device = gpu()
    check_architectures(flavour, options.architectures, device.architecture if device else None)
    results = []
    with sole_writer(bundle.path):
        for name in dict.fromkeys(options.graphs or bundle.manifest.graphs):
            wanted = _wanted(options, bundle, flavour, name, device)
            record = _existing(bundle, flavour, wanted)
            results.append((record or _build(bundle, flavour, wanted, progress), record is None))
            bundle = Bundle.open(options.bundle)
    return results


def find_plan(bundle: Bundle, flavour: Flavour, graph: str, architecture: str) -> PlanRecord:
    """The newest plan of a graph that fits the bundle, the TensorRT here and the GPU here.

    Raises:
        MissingError: there is none; with what the newest one differs in, and the command to run.
    """
    problems = []
    for plan in reversed(bundle.manifest.plans):
        if (plan.graph, plan.flavour) == (graph, flavour.name):
            problem = _mismatch(bundle, plan, flavour, architecture)
            if problem is None:
                return plan
            problems.append(problem)
    reason = problems[0] if problems else f"the bundle has no {flavour.name} plan of it"
    if flavour.architectures and architecture not in flavour.architectures:
        targets = ", ".join(flavour.architectures)
        raise MissingError(
            f"{graph}: {flavour.name} {flavour.version} runs on {targets}, this GPU is "
            f"{architecture}; use the backend tensorrt on it"
        )
    target = f" --arch {architecture}" if flavour.architectures else ""
    command = f"wmdeploy build-engine {bundle.path} --flavour {flavour.name}{target}"
    raise MissingError(f"{graph}: {reason}; build it again: {command}")


def _mismatch(bundle: Bundle, plan: PlanRecord, flavour: Flavour, architecture: str) -> str | None:
    """What stands against running a plan here, in words."""
    if plan.onnx_sha256 != bundle.graph_digest(plan.graph):
        return f"{plan.file} was built from another ONNX graph than the bundle has now"
    if plan.version != flavour.version:
        return f"{plan.file} was built by {plan.flavour} {plan.version}, here is {flavour.version}"
    if architecture not in plan.architectures:
        built = ", ".join(plan.architectures)
        return f"{plan.file} was built for {built}, this GPU is {architecture}"
    return None


def _check(options: BuildOptions, bundle: Bundle) -> None:
    recipe = bundle.manifest.recipe
    if recipe.precision != "fp16":
        raise BackendError(
            f"{options.bundle}: the bundle is {recipe.precision}, and TensorRT computes in exactly "
            "the graph's types; export the model again in fp16"
        )
    if options.max_batch is not None and not 1 <= options.max_batch <= recipe.max_batch:
        raise BackendError(
            f"max_batch: got {options.max_batch}, expected 1 to {recipe.max_batch}, which the "
            "bundle was exported with; for more, export again with a larger max_batch"
        )
    if not 0 <= options.opt_level <= 5:
        raise BackendError(f"opt_level: got {options.opt_level}, expected 0 to 5")
    workspace = options.workspace_gib
    if workspace is not None and not 0 < workspace <= LARGEST_WORKSPACE:
        raise BackendError(
            f"workspace_gib: got {workspace}, expected GiB above 0, to {LARGEST_WORKSPACE}"
        )
    unknown = [name for name in options.graphs if name not in bundle.manifest.graphs]
    if unknown:
        have = ", ".join(bundle.manifest.graphs)
        raise BackendError(f"graphs: got {unknown[0]!r}, expected one of {have}")


def _wanted(
    options: BuildOptions, bundle: Bundle, flavour: Flavour, name: str, device: Gpu | None
) -> PlanRecord:
    """The record of the plan to build, without what only the build tells."""
    architectures = options.architectures
    if device is not None and architectures == (CURRENT,):
        architectures = (device.architecture,)
    largest = options.max_batch or bundle.manifest.recipe.max_batch
    return PlanRecord(
        graph=name,
        flavour=flavour.name,
        version=flavour.version,
        architectures=tuple(sorted(set(architectures), key=lambda a: int(a[3:]))),
        precision=bundle.manifest.recipe.precision,
        batches=(1, 1, largest),  # tuned for one session, the most frequent case
        workspace_gib=options.workspace_gib,
        opt_level=options.opt_level,
        onnx_sha256=bundle.graph_digest(name),
        file="",
        sha256="",
        bytes=0,
        weight_bytes=None,
        activation_bytes=None,
        build_seconds=0.0,
        system=f"{platform.system()} {platform.machine()}",
        driver=device.driver if device else None,
    )


def _existing(bundle: Bundle, flavour: Flavour, wanted: PlanRecord) -> PlanRecord | None:
    """The plan in the bundle that was built exactly as wanted, and is whole."""
    blank = {name: getattr(wanted, name) for name in TOLD_BY_BUILD}
    for record in bundle.manifest.plans:
        if dataclasses.replace(record, **blank) == wanted:
            try:
                plan = bundle.checked_plan(record)
            except BundleError:
                continue  # it is built again
            if flavour.is_malformed(plan):
                raise BundleError(
                    f"{bundle.path / record.file}: is no plan of {flavour.name}, although its "
                    "sha256 is the manifest's, so whoever made the bundle made it so; remove it, "
                    "and build again"
                )
            return record
    return None


def _check_place(bundle: Bundle) -> None:
    """Refuse, before a build, a bundle in which what is written would lie elsewhere.

    Raises:
        WmdeployError: plans/ or its log is a link, or something else than they are.
    """
    plans = bundle.path / PLANS_DIRECTORY
    if plans.is_symlink() or (plans.exists() and not plans.is_dir()):
        raise BundleError(f"{plans}: is a link or no directory; remove it, and build again")
    check_inside(plans / LOG_FILE, bundle.path)


def _build(bundle: Bundle, flavour: Flavour, wanted: PlanRecord, progress: Progress) -> PlanRecord:
    log = bundle.path / PLANS_DIRECTORY / LOG_FILE
    try:
        log.parent.mkdir(exist_ok=True)
        file = append_regular(log)
    except OSError as error:
        raise BundleError(f"{log}: cannot be written ({error.strerror})") from error
    start = time.perf_counter()
    with file, bundle.graph_to_load(wanted.graph) as onnx:
        order = Order(
            graph=wanted.graph,
            onnx=onnx,
            inputs=bundle.manifest.graphs[wanted.graph].inputs,
            architectures=wanted.architectures,
            batches=wanted.batches,
            opt_level=wanted.opt_level,
            workspace_gib=wanted.workspace_gib,
        )
        try:
            built = build(flavour, order, file, progress)
        except BackendError as error:
            raise BackendError(f"{error}; TensorRT's log is {log}") from error
    return _store(bundle.path, wanted, built, time.perf_counter() - start)


def _store(path: Path, wanted: PlanRecord, built: Built, seconds: float) -> PlanRecord:
    """The plan into the bundle, then its record into the manifest, then older ones out of both."""
    digest = hashlib.sha256(built.plan).hexdigest()
    targets = "-".join(wanted.architectures)
    record = dataclasses.replace(
        wanted,
        # with its hash in the name it never takes the place of a plan that the manifest has
        file=f"{PLANS_DIRECTORY}/{wanted.graph}.{wanted.flavour}.{targets}.{digest[:8]}.plan",
        sha256=digest,
        bytes=memoryview(built.plan).nbytes,
        weight_bytes=built.weight_bytes,
        activation_bytes=built.activation_bytes,
        build_seconds=round(seconds, 3),
    )
    check_inside(path / record.file, path)
    with staged_file(path / record.file) as partial:
        partial.write_bytes(built.plan)
    manifest = Bundle.open(path).manifest
    same = (record.graph, record.flavour, record.architectures)
    others = [p for p in manifest.plans if (p.graph, p.flavour, p.architectures) != same]
    write_manifest(dataclasses.replace(manifest, plans=(*others, record)), path)
    recorded = {plan.file for plan in (*others, record)}
    for file in (path / PLANS_DIRECTORY).glob("*.plan"):
        if f"{PLANS_DIRECTORY}/{file.name}" not in recorded:
            file.unlink()
    return record
