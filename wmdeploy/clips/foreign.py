"""Data of other tools that is not read: what it is, and the line of Python that converts it.

Told from names and suffixes, and from the small JSON files that say so. Reads no data.
"""

import json
from pathlib import Path

from wmdeploy.clips.npy import open_regular

_MOST_JSON = 2**20  # bytes

# suffix -> what a file is, and how one makes an .npz of it
_FILES = {
    (".pt", ".pth", ".ckpt"): (
        "a file of PyTorch",
        'of an episode: e = torch.load(path, weights_only=True); numpy.savez("0.npz", '
        'frames=e["obs"], actions=e["act"]) (IRIS: "observations", "actions")',
    ),
    (".pkl", ".pickle"): (
        "a pickle, which could run code",
        'of a source you trust: numpy.savez("0.npz", frames=pickle.load(file)[...])',
    ),
    (".parquet",): (
        "a Parquet table",
        'for example: numpy.savez("0.npz", frames=numpy.stack([numpy.array(PIL.Image.open(io.'
        'BytesIO(cell["bytes"]))) for cell in pandas.read_parquet(path)["image"]]))',
    ),
    (".tfrecord", ".tfrecords"): (
        "a file of TensorFlow records",
        "for RLDS: frames = [s['observation']['image'] for s in "
        "episode['steps'].as_numpy_iterator()]; numpy.savez('0.npz', frames=frames)",
    ),
    (".mat",): ("a file of MATLAB", 'numpy.savez("0.npz", frames=scipy.io.loadmat(path)["..."])'),
    (".safetensors",): (
        "a file of safetensors",
        'numpy.savez("0.npz", frames=safetensors.numpy.load_file(path)["frames"])',
    ),
    (".tar", ".tgz", ".zip", ".gz", ".zst", ".7z"): ("an archive", "unpack it, and give a folder"),
    (".lmdb", ".mdb"): ("an LMDB database", "write each episode's frames to an .npz"),
    (".mcap", ".bag"): ("a recording of ROS", "write its camera's frames to a video"),
}

_ZARR = (
    'e = [0, *z["meta/episode_ends"][:]]; [numpy.savez(f"{i}.npz", frames=z["data/img"][a:b]'
    '.astype("uint8")) for i, (a, b) in enumerate(zip(e, e[1:]))] with z = zarr.open(path)'
)
_MINARI = (
    '[numpy.savez(f"{e.id}.npz", frames=e.observations, actions=e.actions) '
    "for e in minari.load_dataset(name)]"
)
_LEROBOT = (
    'd = LeRobotDataset(name, root=path, episodes=[0]); numpy.savez("0.npz", '
    "frames=numpy.stack([d[i][camera].permute(1, 2, 0).mul(255).byte() for i in range(len(d))]))"
)


def foreign(path: Path) -> str | None:
    """What a file or folder is and how to convert it, on one line; None where nothing tells."""
    if path.is_dir():
        return _foreign_folder(path)
    for suffixes, (what, line) in _FILES.items():
        if path.suffix.lower() in suffixes:
            return f"is {what}, which is not read; {line}"
    return None


def _foreign_folder(folder: Path) -> str | None:
    info = _document(folder / "meta" / "info.json")
    if "codebase_version" in info:
        version = info["codebase_version"]
        reason = f"is a LeRobot dataset ({version!s:.20}), which is not read as such; "
        videos = sorted((folder / "videos").glob("chunk-*/*"))  # before 3.0 a file is an episode
        if videos and str(version).startswith("v2"):
            return f"{reason}its videos can be read, without actions: give {videos[0]}"
        return reason + _LEROBOT
    if any((folder / name).exists() for name in (".zgroup", ".zarray", "zarr.json")):
        return f"is a Zarr store, which is not read; {_ZARR}"
    if _document(folder / "metadata.json").get("data_format") == "arrow":
        return f"is a Minari dataset in Arrow files, which are not read; {_MINARI}"
    if (folder / "features.json").exists() and (folder / "dataset_info.json").exists():
        line = _FILES[".tfrecord", ".tfrecords"][1]
        return f"is a dataset of TensorFlow Datasets, which is not read; {line}"
    return None


def _document(path: Path) -> dict:
    """A small JSON object; {} for anything else."""
    try:
        with open_regular(path) as file:
            document = json.loads(file.read(_MOST_JSON))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
