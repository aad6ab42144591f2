"""What becomes of rows as time goes on: real frames taken in, frames predicted, states made anew.

It trusts its callers: a pool has looked at what it is given.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wmdeploy.programs.arrays import Array
from wmdeploy.programs.contract import Programs
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.plan import Plan, plan_program, row_arrays
from wmdeploy.programs.rows import Group, RowState, checked_bucket
from wmdeploy.programs.runner import Runner, Window


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that one row is, at one moment.

    `numbers` are by name: the frames in its window, and others that `Rollouts` counts.
    """

    programs: Programs
    state: dict[str, Array]
    window: dict[str, Array]
    actions: np.ndarray | None
    numbers: dict[str, int]


class Rollouts:
    """The rows of a pool.

    Args:
        keep: frames that stay of a window that is full.

    Attributes:
        length: by row, the frames in its window; 0 before a reset.
        imagined: by row, whether its newest frame is a prediction.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        capacity: int,
        keep: int,
        seed: int,
        buckets: Sequence[int] | None,
    ) -> None:
        self._backend, self._arrays, self._programs = backend, backend.arrays, backend.programs
        self._bucket = checked_bucket(buckets, backend.max_batch)
        most = backend.max_batch or max(capacity, backend.encode_batch)
        self._most = max(buckets) if buckets else most
        self._keep = keep
        with self._arrays.scope():
            self.window = Window(backend, capacity)
            specs = row_arrays(self._programs)
            self._state = RowState(backend, specs, capacity, self._bucket)
            self._runner = Runner(backend, self.window, seed)
        self._encode = plan_program(backend, "encode")
        self._absorb = plan_program(backend, "absorb")
        self._predict = plan_program(backend, "predict")
        self._refresh = plan_program(backend, "refresh")
        self._render = plan_program(backend, "render")
        # a prefill for every frame: no difference, and no reason to run two batches
        programs = self._programs
        self._refreshes = bool(programs.refresh) and programs.refresh != programs.predict
        self.length = self.window.length
        self.imagined = np.zeros(capacity, bool)
        self._stale = np.zeros(capacity, bool)  # the state lacks frames of the window
        self._numbers = {
            "length": self.length,
            "imagined": self.imagined,
            "stale": self._stale,
            "clock": self._runner.clock,
            "stream": self._runner.streams,
        }

    def set_streams(self, rows: np.ndarray, streams: Sequence[int]) -> None:
        """Which noise rows draw, one stream for each."""
        self._runner.streams[rows] = streams

    def clear(self, rows: np.ndarray) -> None:
        """Rows are nothing any more, until they are reset."""
        with self._arrays.scope():
            self._state.clear(rows.tolist())
            self.window.clear(rows)
        self.imagined[rows] = self._stale[rows] = False
        self._runner.clock[rows] = 0

    def reset(
        self, rows: np.ndarray, frames: np.ndarray, actions: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Frames (rows, T, H, W, 3) and the actions at all but the last, (rows, T - 1, ...)."""
        count = frames.shape[1]
        with self._arrays.scope():
            flat = frames.reshape(-1, *frames.shape[2:])
            records, outputs = self._encoded(flat, len(rows))
            self.clear(rows)
            if self._programs.absorb:
                for at in range(count):
                    if actions is not None and at:
                        self.window.note(rows, actions[:, at - 1])
                    self._take_in(rows, {name: r[at::count] for name, r in records.items()})
            else:
                self.window.fill(rows, records, count)
                if actions is not None:
                    self.window.note_all(rows, actions)
                self._stale[rows] = self._refreshes and count > 1
        return {n: o.reshape(len(rows), count, *o.shape[1:]) for n, o in outputs.items()}

    def observe(self, rows: np.ndarray, frames: np.ndarray) -> dict[str, np.ndarray]:
        """Frames (rows, H, W, 3), in place of predictions, or behind the newest frames."""
        with self._arrays.scope():
            records, outputs = self._encoded(frames, len(rows))
            self._take_in(rows, records)
        return outputs

    def advance(self, rows: np.ndarray) -> None:
        """Predict the next frame."""
        with self._arrays.scope():
            for part in self._batches(rows):
                self._advance(part)

    def render(self, rows: np.ndarray) -> np.ndarray:
        """The newest frames, (rows, H, W, 3) uint8."""
        parts = []
        with self._arrays.scope():
            for part in self._batches(rows, self._backend.render_batch):
                group = self._state.borrow(part.tolist(), self._render.read)
                made = self._runner.run(self._render, group, {})
                parts.append(self._arrays.host(made["frame"][: len(part)]))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def outputs(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The newest outputs by name; zeros where there are none yet."""
        found = {}
        with self._arrays.scope():
            for spec in self._state.specs:
                kind, _, name = spec.name.partition(".")
                if kind == "out":
                    parts = [self._state.row(spec.name, row) for row in rows.tolist()]
                    found[name] = self._arrays.host(self._arrays.join(parts, spec.batch_axis))
        return found

    def snapshot(self, row: int) -> Snapshot:
        actions = self.window.actions
        with self._arrays.scope():
            return Snapshot(
                programs=self._programs,
                state=self._state.copies(row),
                window=self.window.copies(row),
                actions=None if actions is None else actions[row].copy(),
                numbers={name: int(values[row]) for name, values in self._numbers.items()},
            )

    def restore(self, row: int, snapshot: Snapshot) -> None:
        with self._arrays.scope():
            self._state.place(row, snapshot.state)
            self.window.put_back(row, snapshot.window)
        if self.window.actions is not None:
            self.window.actions[row] = snapshot.actions
        for name, values in self._numbers.items():
            values[row] = snapshot.numbers[name]

    def close(self) -> None:
        """Give the rows' memory back to the backend."""
        self._state.close()
        self.length[:] = 0
        self.imagined[:] = False

    def _take_in(self, rows: np.ndarray, records: dict[str, Array]) -> None:
        """What encoding gave of real frames, of a batch for each kind of row."""
        imagined = self.imagined[rows]
        for replaced in (True, False):
            chosen = imagined == replaced
            some = rows[chosen]
            if not len(some):
                continue
            own = records if chosen.all() else {n: r[chosen] for n, r in records.items()}
            if self._programs.absorb:
                at = 0
                for part in self._batches(some):
                    new = {n: r[at : at + len(part)] for n, r in own.items()}
                    self._absorb_rows(part, new, replaced)
                    at += len(part)
            else:
                if replaced:
                    self.length[some] -= 1
                self._cut(some)
                if not replaced and self._refreshes:
                    self._stale[some] |= self.length[some] > 0
                self.window.append(some, own)
            self.imagined[some] = False

    def _absorb_rows(self, rows: np.ndarray, records: dict[str, Array], replaced: bool) -> None:
        if replaced:  # time goes back
            self.length[rows] -= 1
            self.imagined[rows] = False
        self._cut(rows)
        if replaced:
            group = self._state.group(rows.tolist())
            for name in self._programs.undo:
                held, kept = group.held, group.held[f"undo.{name}"]
                held[f"state.{name}"] = self._runner.kept(group, f"state.{name}", kept)
        self._refresh_rows(rows)
        group = self._state.group(rows.tolist())
        self._run(self._absorb, group, self._runner.padded(records, group.size))
        self._runner.clock[rows] += 1
        self.window.append(rows, records)

    def _advance(self, rows: np.ndarray) -> None:
        self._cut(rows)
        if not self._refreshes or not self._stale[rows].any():
            self._predict_rows(self._predict, rows)
        elif self._programs.refresh_predicts:
            stale = self._stale[rows]
            for plan, some in ((self._refresh, rows[stale]), (self._predict, rows[~stale])):
                if len(some):
                    self._predict_rows(plan, some)
        else:
            self._refresh_rows(rows)
            self._predict_rows(self._predict, rows)

    def _predict_rows(self, plan: Plan, rows: np.ndarray) -> None:
        group = self._state.group(rows.tolist(), plan.needed)
        for name in self._programs.undo:
            state = group.held[f"state.{name}"]
            group.held[f"undo.{name}"] = self._runner.kept(group, f"undo.{name}", state)
        made = self._run(plan, group, {})
        self.window.append(rows, made)
        self._stale[rows] = False
        self.imagined[rows] = True
        self._runner.clock[rows] += 1

    def _refresh_rows(self, rows: np.ndarray) -> None:
        """Where the window was cut, the state is made anew from what stayed."""
        stale = rows[self._stale[rows]]
        if len(stale):
            group = self._state.group(stale.tolist(), self._refresh.needed)
            self._run(self._refresh, group, {})
            self._stale[stale] = False

    def _run(self, plan: Plan, group: Group, new: dict[str, Array]) -> dict[str, Array]:
        try:
            return self._runner.run(plan, group, new)
        except BaseException:  # half of a program has run
            self.clear(group.live)
            raise

    def _cut(self, rows: np.ndarray) -> None:
        """Windows with no room for the next frame keep their newest."""
        full = rows[self.length[rows] > self._programs.context]
        if len(full):
            self.window.cut(full, self._keep)
            self._stale[full] = self._refreshes

    def _encoded(
        self, frames: np.ndarray, rows: int
    ) -> tuple[dict[str, Array], dict[str, np.ndarray]]:
        """What encoding gives of real frames (n, H, W, 3): arrays (n, ...), and for people."""
        together = min(max(self._backend.encode_batch, rows), self._most)
        records: dict[str, list[Array]] = {}
        outputs: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(frames), together):
            part = np.ascontiguousarray(frames[start : start + together])
            count = len(part)
            short = self._bucket(count) - count
            if short:
                part = np.concatenate([part, np.repeat(part[-1:], short, 0)])
            new, out = self._runner.encode(self._encode, part)
            for name, value in new.items():
                records.setdefault(name, []).append(value[:count])
            for name, value in out.items():
                outputs.setdefault(name, []).append(self._arrays.host(value[:count]))
        joined = {n: p[0] if len(p) == 1 else self._arrays.join(p, 0) for n, p in records.items()}
        return joined, {n: np.concatenate(p) for n, p in outputs.items()}

    def _batches(self, rows: np.ndarray, most: int | None = None) -> Iterator[np.ndarray]:
        most = min(most or self._most, self._most)
        if len(rows) <= most:
            yield rows
            return
        for start in range(0, len(rows), most):
            yield rows[start : start + most]
