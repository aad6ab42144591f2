"""Running a program for a group of rows, and the window that programs read."""

from collections.abc import Mapping, Sequence

import numpy as np

from wmdeploy.errors import BackendError
from wmdeploy.programs.arrays import Array
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.inputs import check_feeds
from wmdeploy.programs.noise import draw
from wmdeploy.programs.plan import Feed, Give, Plan, PlannedCall
from wmdeploy.programs.rows import Group


class Window:
    """Records and actions of the newest frames of all rows.

    It has a slot more than the context: the newest frame may be replaced by a real one, which then
    still follows on a full context.
    """

    def __init__(self, backend: Backend, capacity: int) -> None:
        programs = backend.programs
        self._arrays, self._capacity = backend.arrays, capacity
        self.context, self._slots = programs.context, programs.context + 1
        self.length = np.zeros(capacity, np.int64)
        self.records = {
            spec.name: backend.arrays.zeros((capacity, self._slots, *spec.sizes(1)[1:]), spec.dtype)
            for spec in programs.records
        }
        self.actions: np.ndarray | None = None
        if programs.action is not None:
            shape = programs.action.sizes(1)[1:]
            self.actions = np.zeros((capacity, self._slots, *shape), programs.action.dtype)

    def note(self, rows: np.ndarray, actions: np.ndarray) -> None:
        """What was done at the newest frame of rows."""
        assert self.actions is not None
        self.actions[rows, self.length[rows] - 1] = actions

    def note_all(self, rows: np.ndarray, actions: np.ndarray) -> None:
        """What was done at all frames but the newest, (rows, T - 1, ...)."""
        assert self.actions is not None
        self.actions[rows, : actions.shape[1]] = actions

    def clear(self, rows: np.ndarray) -> None:
        """Nothing is left of what was there: neither an action, nor a number that is not finite."""
        self.length[rows] = 0
        for window in self.records.values():
            window[rows] = 0
        if self.actions is not None:
            self.actions[rows] = 0

    def append(self, rows: np.ndarray, records: Mapping[str, Array]) -> None:
        """The next frame of rows; `records` may have padding behind theirs."""
        length = self.length[rows]
        first = int(length[0])
        every = len(rows) == self._capacity and bool((rows[1:] > rows[:-1]).all())
        alike = every and bool((length == first).all())
        for name, window in self.records.items():
            value = records[name]
            value = value if len(value) == len(rows) else value[: len(rows)]
            if alike:  # in lockstep: a slice, where index arrays cost a copy to the device
                window[:, first] = value
            else:
                window[rows, length] = value
        self.length[rows] = length + 1

    def fill(self, rows: np.ndarray, records: Mapping[str, Array], count: int) -> None:
        """The first frames of rows, records (rows·count, ...)."""
        for name, window in self.records.items():
            value = records[name]
            window[rows, :count] = value.reshape(len(rows), count, *value.shape[1:])
        self.length[rows] = count

    def cut(self, rows: np.ndarray, keep: int) -> None:
        """Keep the newest frames of full windows."""
        start = self._slots - keep
        if len(rows) == self._capacity:
            for window in self.records.values():
                window[:, :keep] = self._arrays.copy(window[:, start:])
            if self.actions is not None:
                self.actions[:, :keep] = self.actions[:, start:]
        else:
            for window in self.records.values():
                window[rows, :keep] = window[rows, start:]
            if self.actions is not None:
                self.actions[rows, :keep] = self.actions[rows, start:]
        self.length[rows] = keep

    def copies(self, row: int) -> dict[str, Array]:
        return {name: self._arrays.copy(w[row]) for name, w in self.records.items()}

    def put_back(self, row: int, copies: Mapping[str, Array]) -> None:
        for name, window in self.records.items():
            window[row] = copies[name]

    def newest(self, name: str, group: Group) -> Array:
        """Of the newest frame of each row, (B, ...)."""
        at = np.maximum(self.length[group.index] - 1, 0)
        if name == "action":
            assert self.actions is not None
            return self._arrays.put(self.actions[group.index, at])
        first = int(at[0])
        if group.every and (at == first).all():
            return self.records[name][:, first]
        return self.records[name][group.index, at]

    def whole(self, name: str, group: Group) -> Array:
        """Of the newest `context` frames, (B, S, ...)."""
        if name == "action":
            assert self.actions is not None
            return self._arrays.put(self.actions[group.index, : self.context])
        window = self.records[name]
        return window[:, : self.context] if group.every else window[group.index, : self.context]


class Runner:
    """Runs programs; knows the noise of rows, and checks what graphs are fed at first.

    Attributes:
        clock: by row, the frames that were absorbed or predicted since its reset; streams: by row,
            of its noise.
    """

    def __init__(self, backend: Backend, window: Window, seed: int) -> None:
        capacity = len(window.length)
        self._backend, self._arrays, self._programs = backend, backend.arrays, backend.programs
        self._window, self._seed = window, seed
        self.clock = np.zeros(capacity, np.int64)
        self.streams = np.arange(capacity)
        self._checked: set[str] = set()  # graphs whose feeds were found right once
        self._constants: dict[tuple[int, int], Array] = {}
        self._zeros: dict[tuple[str, str, int], Array] = {}
        self._numbered: dict[int, Array] = {}

    def run(self, plan: Plan, group: Group, new: dict[str, Array]) -> dict[str, Array]:
        """Run a program for a group.

        Args:
            new: records that are there already, padded; what the program makes is added.

        Returns:
            `new`, with the frame under "frame".
        """
        drawn: dict[str, Array] = {}
        for call in plan.calls:
            for index in call.runs:
                feeds = {
                    feed.input.name: self._source(feed, group, index=index, new=new, drawn=drawn)
                    for feed in call.feeds
                }
                into = None
                if group.other is not None:
                    into = {output: group.other[key] for output, key in call.into}
                outputs = self._run(call, feeds, into)
                for give in call.gives:
                    value = outputs[give.output]
                    if give.kind in ("state", "out"):
                        group.held[give.key] = self.kept(group, give.key, value, copy=give.again)
                    elif give.kind == "slot":
                        self._write_slot(group, give, value)
                    elif self._backend.memory is not None and give.kind == "new":
                        new[give.name] = self._arrays.copy(value)  # the next run writes over it
                    else:
                        new[give.name] = value
        return new

    def encode(self, plan: Plan, frames: np.ndarray) -> tuple[dict[str, Array], dict[str, Array]]:
        """Records and outputs of real frames; what people give is looked at every time."""
        new: dict[str, Array] = {}
        out: dict[str, Array] = {}
        pixels = self._arrays.put(frames)
        for call in plan.calls:
            for index in call.runs:
                feeds = {}
                for feed in call.feeds:
                    if feed.kind == "frame":
                        feeds[feed.input.name] = pixels
                    elif feed.kind == "new":
                        feeds[feed.input.name] = new[feed.name]
                    else:
                        feeds[feed.input.name] = self._constant(feed, len(frames), index)
                self._checked.discard(call.graph)
                outputs = self._run(call, feeds, None)
                for give in call.gives:
                    value = outputs[give.output]
                    if self._backend.memory is not None:  # the next run writes over it
                        value = self._arrays.copy(value)
                    (new if give.kind == "new" else out)[give.name] = value
        return new, out

    def kept(self, group: Group, key: str, value: Array, copy: bool = True) -> Array:
        """A value as an array that a group holds: a copy, or in the group's own memory."""
        if group.other is None:
            return self._arrays.copy(value) if copy else value
        buffer = group.other[key]
        if value is not buffer:
            buffer[:] = value
        group.other[key] = group.held[key]
        return buffer

    def padded(self, records: Mapping[str, Array], size: int) -> dict[str, Array]:
        """With copies of the last row behind them."""
        join = self._arrays.join
        return {
            name: r if len(r) == size else join([r, *[r[-1:]] * (size - len(r))], 0)
            for name, r in records.items()
        }

    def _run(
        self, call: PlannedCall, feeds: Mapping[str, Array], into: Mapping[str, Array] | None
    ) -> dict[str, Array]:
        if call.graph not in self._checked:  # once: what follows has the same shapes
            check_feeds(call.engine, feeds)
            self._checked.add(call.graph)
        return call.engine.run(feeds, into)

    def _source(
        self,
        feed: Feed,
        group: Group,
        *,
        index: int,
        new: Mapping[str, Array],
        drawn: dict[str, Array],
    ) -> Array:
        kind = feed.kind
        if kind == "state":
            return group.held[f"state.{feed.name}"]
        if kind == "newest":
            return self._window.newest(feed.name, group)
        if kind == "new":
            return new[feed.name]
        if kind == "window":
            return self._window.whole(feed.name, group)
        if kind == "position":
            return self._counts(np.maximum(self._window.length[group.index] - 1, 0))
        if kind == "length":
            return self._counts(self._window.length[group.index])
        if kind == "noise":
            if feed.name not in drawn:
                drawn[feed.name] = self._noise(feed.name, group)
            return drawn[feed.name] if feed.whole else drawn[feed.name][:, index]
        return self._constant(feed, group.size, index)

    def _constant(self, feed: Feed, size: int, index: int) -> Array:
        if feed.kind == "index":
            return self._counts(np.full(size, index))
        if feed.kind != "zero":
            raise BackendError(f"the programs name {feed.kind!r}, which is no source here")
        key = str(feed.input.shape), feed.input.dtype, size
        if key not in self._zeros:
            self._zeros[key] = self._arrays.zeros(feed.input.sizes(size), feed.input.dtype)
        return self._zeros[key]

    def _noise(self, name: str, group: Group) -> Array:
        noise = self._programs.noise[name]
        rows: Sequence[int] = group.live.tolist()
        values = [
            draw(noise, name, self._seed, int(self.streams[row]), int(self.clock[row]))
            for row in rows
        ]
        values += [values[-1]] * (group.size - len(rows))
        return self._arrays.put(np.stack(values))

    def _counts(self, values: np.ndarray) -> Array:
        """(B,) int64 on the device; one number for all rows needs no copy to it."""
        first = int(values[0])
        if not (values == first).all():
            return self._arrays.put(values)
        key = first, len(values)
        if key not in self._constants:
            self._constants[key] = self._arrays.put(values)
        return self._constants[key]

    def _write_slot(self, group: Group, give: Give, entries: Array) -> None:
        """Some entries of a cache, for each row from where its counter says."""
        cache, counter = group.held[give.key], group.held[give.counter]
        count = entries.shape[give.axis]
        last = cache.shape[give.axis] - count
        if not self._backend.on_gpu:
            starts = counter.tolist()
            least, most = min(starts), max(starts)
            if least < 0 or most > last:
                raise BackendError(
                    f"{give.key}: entries from {least} to {most}, expected 0 to {last}; "
                    "export the model again"
                )
            if least == most:  # a slice, which is quicker than index arrays
                cache[(*[slice(None)] * give.axis, slice(most, most + count))] = entries
                return
        front = (give.batch_axis, give.axis)
        rows = self._rows(group.size)
        # on a GPU nobody waits to look at it, so that a wrong one writes over other entries
        start = counter.clip(0, last)
        view, made = (self._arrays.to_front(array, front) for array in (cache, entries))
        view[rows[:, None], start[:, None] + self._rows(count)] = made

    def _rows(self, size: int) -> Array:
        """0 to size - 1, on the device."""
        if size not in self._numbered:
            self._numbered[size] = self._arrays.put(np.arange(size))
        return self._numbered[size]
