"""The families of the tests, as a user names families that are not installed."""

from pathlib import Path

from wmdeploy.families.find import GROUP

PRESETS = {
    "mean-pool": "mean-pool-16",
    "sampled": "sampled-4",
    "recurrent-like": "recurrent-12",
}
CLASSES = (
    "tests.families.mean_pool:MeanPoolFamily",
    "tests.families.sampled:SampledFamily",
    "tests.families.recurrent_like:RecurrentFamily",
)


def install(folder: Path, name: str, reference: str, package: str = "", **modules: str) -> None:
    """A package as pip would lay it out in `folder`, which is to be on the path.

    Args:
        name: of the family; also of the package, where `package` does not say otherwise.
        reference: "module:Class" of its entry point.
        modules: the text of each of its modules.
    """
    package = package or name
    about = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {reference}\n")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
