"""What a training shares: batches among processes, one scale of float16 among optimizers, a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.cli.test_cli import ROOT
from tests.training.test_train import MICRO, options, run
from wmdeploy.clips import RecordOptions, record
from wmdeploy.families import load_model
from wmdeploy.families.directory import read_notes
from wmdeploy.families.reference.family import reference_model
from wmdeploy.training.loop import Share, is_usable, share_of, step_with
from wmdeploy.training.optimizer import muon_and_adamw

pytestmark = pytest.mark.slow

TOGETHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


@pytest.fixture(scope="module")
def data(squares: Path) -> Path:
    return squares


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *TOGETHER, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("length", [1, 6, 7])
def test_shares_of_a_batch_are_of_one_size_and_cover_it(length: int) -> None:
    batch = np.arange(length)
    parts = [share_of(batch, Share(process, 3)) for process in range(3)]
    assert len({len(part) for part in parts}) == 1
    assert set(np.concatenate(parts).tolist()) == set(batch.tolist())


def test_two_processes_have_the_gradient_of_one_with_the_double_batch(
    data: Path, tmp_path: Path
) -> None:
    def gradients(processes: int, batch: int) -> dict[str, torch.Tensor]:
        output = tmp_path / f"{processes}.pt"
        program = ["-m", "tests.training.two_processes", str(data), str(output), str(batch)]
        result = launch(str(processes), *program)
        assert result.returncode == 0, result.stderr
        return torch.load(output, weights_only=True)

    one, two = gradients(1, 6), gradients(2, 3)
    assert one.keys() == two.keys() and len(one) > 60
    largest: dict[str, float] = {}
    for name, gradient in one.items():
        stage = name.split()[0]
        largest[stage] = max(largest.get(stage, 0), gradient.abs().max().item())
    for name, gradient in one.items():
        error = (two[name] - gradient).abs().max().item()
        own, most = gradient.abs().max().item(), largest[name.split()[0]]
        assert error < 1e-4 * most, name  # some are zero but for rounding, such as a key's bias
        assert own < 0.01 * most or error < 1e-3 * own, name


def test_two_processes_train_one_model_and_tell_once(tmp_path: Path) -> None:
    record(RecordOptions(game="pong", frames=64, size=64, clip_frames=32), tmp_path / "data")
    steps = ["--vqvae-steps", "6", "--temporal-steps", "3", "--vqvae-batch", "4"]
    train = ["-m", "wmdeploy.cli", "train", "--data", str(tmp_path / "data"), *steps]
    result = launch("2", *train, "-o", str(tmp_path / "model"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("vqvae: 6 steps") == 1
    model = load_model(tmp_path / "model")
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    notes = read_notes(tmp_path / "model")["training"]
    assert notes["options"]["processes"] == 2
    assert notes["summary"]["quality"]["groups"]
    assert not (tmp_path / "model.train").exists()
    again = launch("2", *train, "-o", str(tmp_path / "model"))
    assert again.returncode == 0 and again.stdout.count("nothing to do") == 1, again.stderr


def test_one_scale_serves_all_optimizers() -> None:
    """The same two steps with float16's scaler and without; then a gradient that overflows."""

    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 1))

    inputs = torch.randn(4, 8, 3, 3, generator=torch.Generator().manual_seed(1))
    plain, scaled = network(), network()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    sets = [(plain, muon_and_adamw(plain.parameters(), 1e-3), None)]
    sets.append((scaled, muon_and_adamw(scaled.parameters(), 1e-3), scaler))  # type: ignore
    for _ in range(2):
        norms = []
        for net, optimizers, scale in sets:
            loss = net(inputs).square().mean()
            (loss if scale is None else scale.scale(loss)).backward()
            norms.append(step_with(optimizers, list(net.parameters()), scale))
        assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for one, other in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert scaler.get_scale() == 4096  # grown once a step, not once for each optimizer
    before = [parameter.clone() for parameter in scaled.parameters()]
    scaler.scale(scaled(inputs).square().mean() * torch.inf).backward()
    norm = step_with(sets[1][1], list(scaled.parameters()), scaler)
    assert not np.isfinite(norm) and is_usable(norm, scaler) and not is_usable(norm, None)
    assert scaler.get_scale() == 2048
    for kept, parameter in zip(before, scaled.parameters(), strict=True):
        assert torch.equal(kept, parameter)
        assert parameter.grad is not None and not parameter.grad.any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gpu_trains_both_stages_and_evaluates(data: Path, tmp_path: Path, precision: str) -> None:
    chosen = options(data, tmp_path / "model", device="cuda", precision=precision, codes=0.5)
    summary, losses = run(chosen)
    assert len(losses["vqvae"]) == len(losses["temporal"]) == 12
    assert np.isfinite(losses["temporal"]).all()
    assert (
        reference_model(load_model(tmp_path / "model")).config.temporal
        == MICRO.with_actions(2).temporal
    )
    assert summary.quality
    assert summary.quality.all.frames and json.dumps(summary.quality.all.clips)
