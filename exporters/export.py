"""From a model to a bundle: export each graph, verify it on real frames, write the manifest.

Importing this module imports no torch, so that an export with nothing to do ends at once.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wmdeploy.bundle import (
    BUNDLE_KIND,
    GIT_ATTRIBUTES,
    GIT_ATTRIBUTES_FILE,
    MODEL_DIRECTORY,
    Bundle,
    describe_files,
)
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import read_clip
from wmdeploy.clips.source import ReadOptions
from wmdeploy.errors import BundleError, ExportError
from wmdeploy.exporters.play import noted_prediction, write_starts
from wmdeploy.families import ModelFamily, family_of, find_family, load_model
from wmdeploy.families.cases import expected_outputs
from wmdeploy.families.directory import read_notes
from wmdeploy.families.find import DEFAULT, plugin_code
from wmdeploy.files import check_output_directory, sha256, staged_directory
from wmdeploy.graph_file import checked_weight_bytes
from wmdeploy.manifest import (
    SCHEMA,
    GraphRecord,
    Manifest,
    Play,
    Precision,
    Recipe,
    Weights,
    write_manifest,
)
from wmdeploy.programs.check import Signature, find_fault
from wmdeploy.programs.contract import Programs
from wmdeploy.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn

    from wmdeploy.families import Graph

MAX_BATCH = 1024
# 21 brought GroupNormalization with float32 statistics, 23 Attention, which 21 and 22 spell out
OPSETS = (21, 22, 23, 24)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, where to, and how.

    `source` is a model directory, a `.pt` of the reference project, or a preset's name, whose
    weights are drawn from `seed`. `clip` gives the real frames that the graphs are verified on,
    read as `read` says. `layout` is one of the family's, None its first. `family` is that of a
    source which does not name its own. `weights` of large linear layers are stored as floats of the
    precision or as integers, but for the layers whose names are in `float_layers`.
    """

    source: str
    output: Path
    clip: Path
    layout: str | None = None
    precision: Precision = "fp32"
    max_batch: int = 8
    opset: int = 23
    seed: int = 0
    slim: bool = False
    read: ReadOptions = ReadOptions()
    family: str | None = None
    weights: Weights = "float"
    float_layers: tuple[str, ...] = ()


def export_bundle(
    options: ExportOptions,
    progress: Progress = silent,
    remarks: list[str] | None = None,
) -> tuple[Bundle, bool]:
    """Export a model, or find that the bundle there already is what would be made.

    Args:
        remarks: gets those of `load_model`, and the notes of the clip.

    Returns:
        The bundle, and whether it was made now.

    Raises:
        CheckpointError, ClipError: the model or the clip cannot be read, or they do not fit.
        ExportError: an option is out of range, or a graph fails its check; no bundle is written.
    """
    check_output_directory(options.output, Path(options.source), options.clip)
    family = find_family(options.source, options.family)
    recipe = _recipe(options, family)
    existing = _existing(options.output, recipe, family.name)
    if existing:
        return existing, False
    progress("export", 0, 1, "load the model")
    model = load_model(options.source, options.seed, remarks, options.family)
    size = family_of(model).facts(model).image_size
    clip = read_clip(options.clip, size=size, count=8, options=options.read)
    if remarks is not None:
        remarks += clip.remarks
    notes = {**read_notes(options.source), "exported from": recipe.source}
    prediction = noted_prediction(notes)
    with staged_directory(options.output, BUNDLE_KIND) as directory:
        _write_bundle(
            model,
            notes,
            recipe=recipe,
            clip=clip,
            directory=directory,
            play=functools.partial(write_starts, options.clip, options.read, size, prediction),
            progress=progress,
        )
    return Bundle.open(options.output), True


def _write_bundle(
    model: "nn.Module",
    notes: dict[str, Any],
    recipe: Recipe,
    clip: Clip,
    directory: Path,
    play: Callable[[Programs, Path], Play | None],
    progress: Progress,
) -> None:
    from wmdeploy.exporters.layouts import other_layout, other_layout_bytes
    from wmdeploy.exporters.quantise import quantise_files
    from wmdeploy.exporters.to_onnx import write_onnx
    from wmdeploy.exporters.verify import OnnxEngine, verify_graph, verify_rollout
    from wmdeploy.exporters.weights import share_weights
    from wmdeploy.exporters.worst_layer import naming_worst_layer
    from wmdeploy.programs.modules import module_backend
    from wmdeploy.programs.record import record_cases

    family = family_of(model)
    facts = family.facts(model)
    actions = clip.check_actions(facts.num_actions, facts.action_size)
    progress("export", 0, 1, "run PyTorch on real frames")
    exact = family.deployment(model, recipe.layout, "fp32").kept()
    programs = exact.programs
    if (facts.num_actions, facts.action_size) != (programs.num_actions, programs.action_size):
        raise ExportError(
            f"family {family.name}: its facts have {facts.num_actions} actions of size "
            f"{facts.action_size}, its programs {programs.num_actions} of {programs.action_size}"
        )
    authors = family.baseline_deployment(model, "fp32").kept()
    for deployed in (exact, authors):  # before any of it runs: it may be a loop without an end
        _check_programs(family, deployed.programs, {n: b() for n, b in deployed.graphs.items()})
    if authors.programs.decoders() != programs.decoders():
        raise ExportError(
            f"family {family.name}: its programs have the decoders "
            f"{', '.join(programs.decoders())}, its baseline's "
            f"{', '.join(authors.programs.decoders())}"
        )
    modules = module_backend(exact, name="pytorch")
    cases = record_cases(modules, clip.frames, actions)
    deployed = exact
    if recipe.precision != "fp32":
        deployed = family.deployment(model, recipe.layout, recipe.precision)
    about = {
        "family": family.title,
        "layout": recipe.layout,
        "precision": recipe.types,
        "weights": recipe.source,
    }
    records: dict[str, GraphRecord] = {}
    halves = False
    graphs = len(deployed.graphs)
    for number, (name, build) in enumerate(deployed.graphs.items()):
        progress("export", number, 2 * graphs, f"export {name}")
        graph, path = build(), directory / f"{name}.onnx"
        halves |= _has_halves(graph)
        write_onnx(graph, path, opset=recipe.opset, max_batch=recipe.max_batch, about=about)
        records[name] = GraphRecord(
            file=path.name,
            inputs=graph.inputs,
            outputs=graph.outputs,
            weight_bytes=0,
            flops=graph.operations(),
            parity={},
        )
        del graph
    _check_programs(family, deployed.programs, records)
    if recipe.precision == "fp16" and not halves:
        raise ExportError(
            f"family {family.name}: no weight of its graphs of fp16 is float16; make them with "
            "to_half, or refuse this precision"
        )
    paths = [directory / record.file for record in records.values()]
    if recipe.weights != "float":
        quantise_files(paths, recipe.float_layers)
    share_weights(paths)
    engines = {n: OnnxEngine(directory / record.file, record) for n, record in records.items()}
    for number, (name, engine) in enumerate(engines.items()):
        progress("export", graphs + number, 2 * graphs, f"verify {name}")
        if not cases[name]:
            raise ExportError(f"family {family.name}: no rollout runs the graph {name}")
        judge = functools.partial(
            expected_outputs,
            model,
            name,
            programs=deployed.programs,
            precision=recipe.precision,
        )
        with naming_worst_layer({name: deployed.graphs[name]}, cases, recipe):
            parity = verify_graph(engine, cases[name], judge, recipe.exactness)
        records[name] = dataclasses.replace(
            records[name],
            weight_bytes=checked_weight_bytes(directory / records[name].file),
            parity=parity,
        )
    progress("export", 2 * graphs, 2 * graphs, "imagine beside the baseline")
    baseline = module_backend(authors, name="baseline")
    with naming_worst_layer(deployed.graphs, cases, recipe):
        for decoder in programs.decoders():
            verify_rollout(
                engines,
                modules=dataclasses.replace(modules, programs=deployed.programs.rendering(decoder)),
                baseline=dataclasses.replace(
                    baseline, programs=authors.programs.rendering(decoder)
                ),
                frames=clip.frames,
                actions=actions,
                exactness=recipe.exactness,
            )
    if not recipe.slim:
        (directory / MODEL_DIRECTORY).mkdir()
        family.save(model, directory / MODEL_DIRECTORY, notes)
    played = play(deployed.programs, directory)
    progress("export", 2 * graphs, 2 * graphs, "hash the files")
    files = describe_files(directory)
    (directory / GIT_ATTRIBUTES_FILE).write_text(GIT_ATTRIBUTES)
    manifest = Manifest(
        schema=SCHEMA,
        recipe=recipe,
        model=family.sizes(model),
        programs=deployed.programs,
        graphs=records,
        files=files,
        family=family.name,
        play=played,
    )
    # how large another layout were is counted of floats
    if recipe.weights == "float" and (other := other_layout(family, recipe.layout)):
        manifest = dataclasses.replace(
            manifest,
            other_layout=other,
            other_layout_weight_bytes=other_layout_bytes(manifest, other),
        )
    write_manifest(manifest, directory)


def _has_halves(graph: "Graph") -> bool:
    import torch

    return any(tensor.dtype == torch.float16 for tensor in graph.module.state_dict().values())


def _check_programs(
    family: ModelFamily, programs: Programs, graphs: Mapping[str, Signature]
) -> None:
    if fault := find_fault(programs, graphs):
        raise ExportError(f"family {family.name}: its programs do not fit its graphs: {fault}")


def _recipe(options: ExportOptions, family: ModelFamily) -> Recipe:
    if not 1 <= options.max_batch <= MAX_BATCH:
        raise ExportError(f"max_batch: got {options.max_batch}, expected 1 to {MAX_BATCH}")
    if options.opset not in OPSETS:
        raise ExportError(
            f"opset: got {options.opset}, expected one of {', '.join(map(str, OPSETS))}"
        )
    if options.precision == "fp16" and options.opset < 23:
        raise ExportError(
            f"opset: got {options.opset} with fp16, expected 23 or 24: older ones have no "
            "Attention that computes its softmax in float32"
        )
    layout = options.layout or family.layouts[0]
    if layout not in family.layouts:
        raise ExportError(f"layout: got {layout!r}, expected one of {', '.join(family.layouts)}")
    packages = ("wmdeploy", "torch", "onnx", "onnxscript")
    return Recipe(
        source=_fingerprint(options, family),
        layout=layout,
        precision=options.precision,
        max_batch=options.max_batch,
        opset=options.opset,
        slim=options.slim,
        clip=f"{_digest(options.clip)} {options.read}".rstrip(),
        weights=options.weights,
        float_layers=tuple(sorted(set(options.float_layers))),
        tools={package: _version(package) for package in packages}
        | ({f"family {family.name}": code} if (code := plugin_code(family)) else {}),
    )


def _version(package: str) -> str:
    """Of a distribution; "source" where the code runs from a checkout that is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "source"


def _fingerprint(options: ExportOptions, family: ModelFamily) -> str:
    """What identifies the weights: a hash of the model's files, or a preset and its seed."""
    if options.source in family.presets and not Path(options.source).exists():
        name = "" if family.name == DEFAULT else f" of {family.name}"
        return f"preset {options.source}{name}, seed {options.seed}"
    return _digest(Path(options.source))


def _digest(path: Path) -> str:
    """The hash of a file, or of a directory's files; of what cannot be read, none.

    Whoever reads the model or the clip in earnest says what is wrong with it.
    """
    try:
        if path.is_file():
            return "sha256:" + sha256(path)
        parts = [sha256(file) for file in sorted(path.iterdir()) if file.is_file()]
    except OSError:
        return ""
    return "sha256:" + hashlib.sha256("".join(parts).encode()).hexdigest()


def _existing(path: Path, recipe: Recipe, family: str) -> Bundle | None:
    """The bundle at `path` if it is whole and made by the same recipe."""
    try:
        bundle = Bundle.open(path)
        if (bundle.manifest.recipe, bundle.manifest.family) != (recipe, family):
            return None
        bundle.verify()
        return bundle
    except BundleError:
        return None
