"""What runs graphs: an engine for each, and a backend that has those of one bundle."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from wmdeploy.programs.arrays import Array, Arrays
from wmdeploy.programs.contract import Programs, TensorSpec

if TYPE_CHECKING:
    from wmdeploy.manifest import Precision, Weights


class Engine(Protocol):
    """One graph, loaded by one backend, ready to run.

    Its arrays are the backend's, see `Backend.arrays`.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(
        self, feeds: Mapping[str, Array], into: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Run the graph once.

        Args:
            into: where outputs shall lie, by name, of a backend with `memory`.

        Returns:
            By name. Outputs named in `into` are those arrays. Others of a backend with `memory` may
            be written over by the engine's next run; of one without, they are the caller's own.
        """
        ...

    def synchronize(self) -> None:
        """Return when the device has finished all work given to it."""
        ...

    def close(self) -> None:
        """Give back memory; the engine cannot be run afterwards."""
        ...


class FixedMemory:
    """Arrays at addresses that come again: what engines are bound to, such as CUDA graphs.

    Sessions take the arrays of their rows' state from here, and give them back, so that a new
    session runs what has been bound for another.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._spare: dict[tuple[tuple[TensorSpec, ...], int], list[dict[str, Array]]] = {}

    def take(self, specs: tuple[TensorSpec, ...], batch: int) -> dict[str, Array]:
        """One array for each, by name; what they hold is left from others."""
        spare = self._spare.get((specs, batch))
        if spare:
            return spare.pop()
        return {s.name: self._arrays.zeros(s.sizes(batch), s.dtype) for s in specs}

    def give_back(self, specs: tuple[TensorSpec, ...], batch: int, taken: dict[str, Array]) -> None:
        self._spare.setdefault((specs, batch), []).append(taken)


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The engines of one bundle by graph name, and the programs that call them.

    Sessions share a backend's engines, in turns.

    Attributes:
        weights: how those of large linear layers are stored.
        device: "cpu" or "cuda".
        arrays: what its engines take and give.
        encode_batch: how many frames of a context are encoded at once; 1 where every batch size
            costs a compilation or memory.
        render_batch: how many frames are rendered at once; None: as many as are asked for.
        max_batch: the largest batch its graphs take; None: any.
        buckets: the batch sizes that rows are padded to, ascending; None: batches are as they come.
        memory: for engines bound to addresses; None: they give new arrays at every run.
        threads: how many compute a graph on the CPU; None: it runs on a GPU.
        statistics: what the engines say of their own memory, in 10^6 bytes by label.
    """

    name: str
    precision: "Precision"
    device: str
    arrays: Arrays
    engines: Mapping[str, Engine]
    programs: Programs
    encode_batch: int
    render_batch: int | None = None
    max_batch: int | None = None
    buckets: Sequence[int] | None = None
    memory: FixedMemory | None = None
    threads: int | None = None
    statistics: Callable[[], dict[str, float]] = dict
    weights: "Weights" = "float"

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def image_size(self) -> int:
        """Height and width of the frames that it takes, in pixels."""
        graph, name = self.programs.frame_input()
        spec = next(spec for spec in self.engines[graph].inputs if spec.name == name)
        return int(spec.shape[1])

    def synchronize(self) -> None:
        """Return when the device has finished."""
        for engine in self.engines.values():
            engine.synchronize()

    def close(self) -> None:
        for engine in self.engines.values():
            engine.close()


def powers_of_two(most: int | None) -> tuple[int, ...]:
    """1, 2, 4, 8 ... up to `most` (1024 if None), and `most` itself: few batch sizes."""
    largest = 1024 if most is None else most
    return tuple(sorted({*(2**n for n in range(11) if 2**n <= largest), largest}))
