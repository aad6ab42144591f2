"""What `train` and `distill` print of a training that is over."""

from wmdeploy.cli.common import out, print_skipped
from wmdeploy.training.summary import TrainSummary


def print_summary(summary: TrainSummary) -> None:
    """Scores, the operations of a part and its student, and a line for each stage."""
    from wmdeploy.cli.tables import training_line
    from wmdeploy.quality.tables import quality_tables

    if not summary.fresh:
        out.print(f"{summary.output}: already trained with these options, nothing to do")
    print_skipped(summary.skipped)
    for table in quality_tables(summary.quality) if summary.quality else ():
        out.print(table)
    full = next(iter(summary.operations.values()), 0)
    for part, count in summary.operations.items():
        fewer = "" if count == full else f", {full / count:.1f} times fewer"
        out.print(f"{part}: {count / 1e9:.3g} GFLOP for a frame{fewer}")
    for name, result in summary.stages.items():
        out.print(training_line(name, result))
