"""A profile of two graphs whose figures are known. No test is in here."""

from wmdeploy.benchmarks.environment import Ceilings, Machine
from wmdeploy.benchmarks.profile.document import (
    SCHEMA,
    Frame,
    GraphCall,
    GraphProfile,
    Node,
    Profile,
)

MACHINE = Machine(
    date="2026-01-01T00:00:00+00:00",
    cpu="a processor",
    gpu=None,
    cores=2,
    memory_gb=8.0,
    system="Linux",
    python="3.11",
    packages={},
    load_average=0.0,
)


def node(name: str, module: str, ms: float, start: float) -> Node:
    return Node(
        name=name,
        operation="Conv",
        module=module,
        ms=ms,
        operations=1000,
        bytes=500,
        floor_ms=ms / 2,
        start_ms=start,
        run_ms=ms,
    )


def made_profile() -> Profile:
    """A frame of 20 ms: `step` twice, 2 ms each, and `decoder`, 12 ms; 4 are in no graph."""
    decoder = GraphProfile(
        wall_ms=[12.0, 11.0, 13.0],
        profiled_ms=[14.0, 13.0, 15.0],
        between_ms=[1.0, 2.0, 1.0],
        nodes=[
            node("first", "vqvae.decoder.conv_in", 4.0, 0.0),
            node("second", "vqvae.decoder.blocks.0", 5.0, 4.5),
            node("third", "vqvae.decoder.blocks.1", 1.0, 10.0),
            node("lone", "", 0.5, 11.0),
        ],
        operations=4000,
        bytes=3000,
        floor_ms=6.0,
        bound="compute",
    )
    return Profile(
        schema=SCHEMA,
        bundle="made",
        manifest_sha256="0" * 64,
        backend="ort-cpu",
        precision="fp32",
        layout="token",
        device="cpu",
        threads=2,
        runs=3,
        clip="clip.mkv",
        machine=MACHINE,
        ceilings=Ceilings(10.0, 100.0, 2),
        frame=Frame(
            stage="frame",
            wall_ms=[20.0, 19.0, 21.0],
            calls=[GraphCall("predict", "step", 2), GraphCall("render", "decoder", 1)],
        ),
        others=[GraphCall("encode", "step", 1)],
        graphs={"step": GraphProfile(wall_ms=[2.0, 2.0, 2.0]), "decoder": decoder},
    )
