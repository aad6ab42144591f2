"""All weights of a bundle in one file, each once: a prefill and a step have the same ones."""

import hashlib
import mmap
from collections.abc import Sequence
from pathlib import Path

import onnx

from wmdeploy.graph_file import WEIGHTS_FILE

PAGE = 4096  # so that a tensor can be mapped into memory by itself


def share_weights(graphs: Sequence[Path]) -> None:
    """Move the weights of ONNX files in one folder, each in `<its path>.data`, to `WEIGHTS_FILE`.

    Raises:
        OSError: a file cannot be read or written.
    """
    places: dict[bytes, tuple[int, int]] = {}  # digest -> offset, length
    with (graphs[0].parent / WEIGHTS_FILE).open("wb") as out:
        for path in graphs:
            own = Path(f"{path}.data")
            if not own.exists() or not own.stat().st_size:  # a graph without weights
                own.unlink(missing_ok=True)
                continue
            model = onnx.load(path, load_external_data=False)
            with (
                own.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                for tensor in model.graph.initializer:
                    entries = {entry.key: entry.value for entry in tensor.external_data}
                    if not entries:
                        continue
                    start, length = int(entries.get("offset", 0)), int(entries["length"])
                    with memoryview(data)[start : start + length] as values:
                        digest = hashlib.sha256(values).digest()
                        if digest not in places:
                            out.write(bytes(-out.tell() % PAGE))
                            places[digest] = out.tell(), length
                            out.write(values)
                    del tensor.external_data[:]
                    offset, length = places[digest]
                    place = {"location": WEIGHTS_FILE, "offset": offset, "length": length}
                    for key, value in place.items():
                        tensor.external_data.add(key=key, value=str(value))
            path.write_bytes(model.SerializeToString())
            own.unlink()
