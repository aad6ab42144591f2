"""Cells of a sweep. No test is in here."""

from wmdeploy.benchmarks.sweep.run import Cell


def cell(frame: float, memory: float, psnr: float, batch: int = 1, verdict: str = "pass") -> Cell:
    """Of ort-cpu; times in ms, memory in MB, PSNR in dB."""
    figures: dict[str, float | None] = {
        "frame": frame, "imagine": frame / 9, "memory": memory, "psnr": psnr, "codes": 100.0,
    }  # fmt: skip
    return Cell(
        layout="token",
        precision="fp32",
        weights="float",
        decoder="full",
        backend="ort-cpu",
        batch=batch,
        figures=figures,
        verdict=verdict,
        reason=None,
    )
