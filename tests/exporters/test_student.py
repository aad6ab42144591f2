"""A bundle with two decoders: both exported and verified, chosen by name, each its own."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_cli import wmdeploy
from tests.serve.conftest import PLAYING
from tests.serve.test_service import player_of
from wmdeploy.benchmarks.profile.run import ProfileOptions, profile
from wmdeploy.benchmarks.report import read_json
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.clips.write import write_npz
from wmdeploy.engines.base import Settings, load_backend
from wmdeploy.engines.rollout import open_source, rollout
from wmdeploy.errors import BundleError, WmdeployError
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.exporters.site.runtime import FILES
from wmdeploy.exporters.site.write import SITE_FILE, SiteOptions, write_site
from wmdeploy.families import save_model
from wmdeploy.families.reference.distillation import with_student
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.manifest import MANIFEST_FILE, read_manifest
from wmdeploy.programs.check import find_fault
from wmdeploy.programs.engine import Backend
from wmdeploy.psnr import psnr
from wmdeploy.serve.engine import DreamEngine
from wmdeploy.serve.starts import start_of

Taught = tuple[Path, Bundle]  # a model directory and its bundle


@pytest.fixture(scope="module", params=["token", "latent"])
def taught(
    request: pytest.FixtureRequest, micro: WorldModel, tmp_path_factory: pytest.TempPathFactory
) -> Taught:
    root = tmp_path_factory.mktemp("taught")
    save_model(with_student(micro, "lite", seed=5), root / "model")
    bundle, _ = export_bundle(
        ExportOptions(
            source=str(root / "model"),
            output=root / "bundle",
            clip=SAMPLE_CLIP,
            layout=request.param,
            max_batch=4,
        )
    )
    return root / "model", bundle


def imagined(backend: Backend, clip: Clip) -> np.ndarray:
    """(10, 32, 32, 3): past the window, which holds 6."""
    return np.stack(list(rollout(backend, clip, context=3, horizon=10)))


def worst_db(got: np.ndarray, expected: np.ndarray) -> float:
    errors = np.square(got.astype(np.float64) - expected).mean((1, 2, 3))
    return psnr(float(errors.max()))


def test_both_decoders_are_exported_and_verified(taught: Taught) -> None:
    _, bundle = taught
    manifest = read_manifest(bundle.path)
    assert list(manifest.graphs) == ["encoder", "prefill", "step", "decoder", "decoder-lite"]
    assert manifest.programs == bundle.manifest.programs
    assert manifest.programs.decoders() == ("full", "lite")
    graphs = manifest.graphs
    assert graphs["decoder-lite"].parity["frame"].relative <= 1e-3
    assert graphs["decoder-lite"].flops < graphs["decoder"].flops / 5


@pytest.mark.parametrize("name", ["ort-cpu", "eager"])
def test_each_decoder_gives_what_eager_gives_with_the_same(
    taught: Taught, clip: Clip, name: str
) -> None:
    model, bundle = taught
    made = {}
    for decoder in ("full", "lite"):
        settings = Settings(device="cpu", decoder=decoder)
        expected = imagined(open_source(str(model), settings=settings), clip)
        made[decoder] = imagined(load_backend(name, bundle, settings), clip)
        assert worst_db(made[decoder], expected) > 55, decoder
    assert worst_db(made["lite"], made["full"]) < 30  # untrained: another picture


def test_only_the_graphs_of_the_chosen_decoder_are_loaded(taught: Taught) -> None:
    _, bundle = taught
    for decoder, graph in (("full", "decoder"), ("lite", "decoder-lite")):
        backend = load_backend("ort-cpu", bundle, Settings(decoder=decoder))
        assert sorted(backend.engines) == sorted(["encoder", "prefill", "step", graph])
        assert backend.programs.renders == {}


@pytest.mark.parametrize("decoder", ["full", "lite"])
def test_a_dream_of_play_and_serve_is_shown_by_the_chosen_decoder(
    taught: Taught, clip: Clip, decoder: str
) -> None:
    settings = Settings(device="cpu", decoder=decoder)
    backend = load_backend("ort-cpu", taught[1], settings)
    start = start_of(Clip(clip.frames[:3], None, ""), backend.programs, "")
    engine = DreamEngine(backend, [start], PLAYING, None)
    engine.warm_up()
    player = player_of(engine.new_dream(0))
    made = []
    for _ in range(10):
        engine.step([player])
        made.append(player.dream.dream)
    expected = imagined(open_source(str(taught[0]), settings=settings), clip)
    assert worst_db(np.stack(made), expected) > 55


def test_a_site_has_the_chosen_decoder_alone(taught: Taught, tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    for name in FILES:
        (tmp_path / "dist" / name).write_bytes(b"")
    options = SiteOptions(
        bundle=taught[1].path, output=tmp_path / "site", runtime=tmp_path / "dist"
    )
    write_site(options, load_backend("ort-cpu", taught[1], Settings(decoder="lite")), [])
    model = json.loads((tmp_path / "site" / SITE_FILE).read_text())
    assert set(model["graphs"]) == {"prefill", "step", "decoder-lite"}
    assert [call["graph"] for call in model["programs"]["render"]] == ["decoder-lite"]


def test_a_profile_is_of_the_chosen_decoder(taught: Taught) -> None:
    settings = Settings(decoder="lite")
    options = ProfileOptions(
        bundle=taught[1].path, clip=SAMPLE_CLIP, backend="ort-cpu", runs=2, settings=settings
    )
    result = profile(options)
    assert set(result.graphs) == {"encoder", "prefill", "step", "decoder-lite"}
    modules = {node.module for node in result.graphs["decoder-lite"].nodes}
    assert any(module.startswith("student.body") for module in modules)
    assert [call.graph for call in result.frame.calls] == ["prefill", "decoder-lite"]


def test_an_unknown_decoder_lists_those_of_the_bundle(taught: Taught) -> None:
    _, bundle = taught
    with pytest.raises(WmdeployError, match="decoder: got 'tiny', expected one of full, lite$"):
        load_backend("ort-cpu", bundle, Settings(decoder="tiny"))


def test_faulty_decoders_of_a_manifest_are_refused(taught: Taught, tmp_path: Path) -> None:
    _, bundle = taught
    programs, graphs = bundle.manifest.programs, bundle.manifest.graphs
    (call,) = programs.renders["lite"]

    def fault(**renders: object) -> str:
        changed = dataclasses.replace(programs, renders=renders)  # type: ignore[arg-type]
        return find_fault(changed, graphs) or ""

    assert 'no program calls the graph "decoder-lite"' in fault()
    assert "no such graph" in fault(lite=(dataclasses.replace(call, graph="other"),))
    assert "the decoder 'Lite'" in fault(Lite=(call,))
    assert "the decoder 'full'" in fault(full=(call,))
    assert "the decoder 'lite'" in fault(lite=())
    assert "render gives no frame" in fault(lite=(dataclasses.replace(call, gives={}),))
    document = json.loads((bundle.path / MANIFEST_FILE).read_text())
    document["programs"]["renders"]["lite"][0]["often"] = 2
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(document))
    with pytest.raises(BundleError, match='the programs have "often"'):
        read_manifest(tmp_path)


def test_inspect_shows_every_decoder(taught: Taught) -> None:
    shown = wmdeploy("inspect", taught[1].path, COLUMNS="200").stdout
    assert "render, lite" in shown and "decoder-lite" in shown


@pytest.mark.slow
def test_bench_judges_a_student_beside_itself_and_tells_how_far_it_is(
    taught: Taught, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    result = wmdeploy(
        *("bench", taught[1].path, "--backend", "ort-cpu", "--decoder", "lite", "--json", path),
        *("--seconds", "0.1", "--horizon", "8", "--context", "3"),
        COLUMNS="250",
    )
    assert result.returncode == 0, result.stderr
    assert "full, worst dB" in result.stdout and "Decoder: lite" in result.stdout
    report = read_json(path)
    (row,) = (row for row in report.frames() if row.backend == "ort-cpu")
    assert row.verdict == "pass" and row.parity is not None
    assert row.worst_frame_db["8"] >= 60
    assert row.parity.full_worst_db is not None and row.parity.full_worst_db < 30
    assert row.parity.full_mean_db is not None
    assert row.parity.full_mean_db >= row.parity.full_worst_db
    times = {(row.backend, row.stage): row for row in report.rows}
    full, student = times["eager", "decoder-lite"], times["ort-cpu", "decoder-lite"]
    assert full.is_timed and student.speedup is not None  # beside the baseline's full decoder
    assert ("ort-cpu", "decoder") not in times
    assert report.environment.settings.decoder == "lite"


@pytest.mark.slow
def test_verbs_render_with_the_decoder_that_is_named(taught: Taught, tmp_path: Path) -> None:
    model, bundle = taught
    made = {}
    for source, decoder in ((bundle.path, "full"), (bundle.path, "lite"), (model, "lite")):
        out = tmp_path / f"{source.name}-{decoder}.npz"
        result = wmdeploy(
            *("rollout", source, SAMPLE_CLIP, "-o", out, "--horizon", "4"),
            *("--context", "3", "--decoder", decoder),
        )
        assert result.returncode == 0, result.stderr
        made[source.name, decoder] = np.load(out)["frames"]
    assert worst_db(made["bundle", "lite"], made["model", "lite"]) > 55
    assert worst_db(made["bundle", "lite"], made["bundle", "full"]) < 30
    write_npz(tmp_path / "data" / "clip-0.npz", made["bundle", "full"].repeat(3, 0), None)
    result = wmdeploy(
        *("evaluate", bundle.path, "--data", tmp_path / "data", "--decoder", "lite"),
        *("--context", "2", "--json", tmp_path / "quality.json"),
        COLUMNS="200",
    )
    assert result.returncode == 0, result.stderr
    assert "lite against full, dB" in result.stdout
    scores = json.loads((tmp_path / "quality.json").read_text())["groups"][-1]
    assert {"model", "lite", "ort-cpu, lite"} <= scores["following"].keys()
    close = scores["following"]["lite"]["psnr"] - scores["following"]["ort-cpu, lite"]["psnr"]
    assert abs(close) < 0.1
    for verb in ("rollout", "bench", "play", "serve", "site", "evaluate"):
        given = {
            "rollout": (SAMPLE_CLIP, "-o", tmp_path / "x.npz"),
            "evaluate": ("--data", tmp_path / "data"),
            "play": ("--port", "0", "--no-browser"),
            "serve": ("--port", "0"),
            "site": ("-o", tmp_path / "site"),
        }.get(verb, ())
        result = wmdeploy(verb, bundle.path, *given, "--decoder", "tiny")
        assert result.returncode == 1, verb
        assert result.stderr == "error: decoder: got 'tiny', expected one of full, lite\n", verb
