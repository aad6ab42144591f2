"""A session: engines plus the state of a batch of rollouts.

    session = Session(load_backend("ort-cpu", bundle))
    session.reset(frames)            # the context, (T, H, W, 3) uint8
    frame = session.step()           # the next frame, (1, H, W, 3) uint8
    session.observe(real_frame)      # what really came; the next step goes on from it
    session.imagine(100)             # steps without rendering

The session keeps, for each row of its batch, the window of the last S tokens and how many of them
are in the KV cache. A row whose cache fits its window runs one step; after the window has slid, all
positions have moved and the window goes through the prefill again, which is the model's exact
semantics. It knows the wiring and nothing of the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wmdeploy.engines.base import Backend, Engine
from wmdeploy.engines.checks import check_feeds, checked_actions, checked_context, checked_rows
from wmdeploy.errors import BackendError
from wmdeploy.manifest import BATCH, TensorSpec


@dataclass(frozen=True)
class Snapshot:
    """State of a session at one moment; `rows` are actions, length, cached and imagined."""

    window: Tensor
    cache: dict[str, Tensor]
    rendered: Tensor | None
    rows: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Session:
    """Rollouts of `batch` rows; rows may be at different points of their rollouts.

    Args:
        backend: the engines and their wiring.
        batch: rows.
        refill: None for the exact sliding window. K in [1, S): when the window is full, keep the
            newest K tokens, run the prefill once, and step on. A different semantics, at a lower
            cost where the prefill is much dearer than a step.

    Raises:
        BackendError: `refill` is out of range.

    All its tensors are made in torch's inference mode, as the engines' are: torch.compile would
    compile again for each mix of the two kinds.
    """

    @torch.inference_mode()
    def __init__(self, backend: Backend, batch: int = 1, refill: int | None = None) -> None:
        self.backend = backend
        self.wiring = backend.wiring
        context = self.wiring.context
        if refill is not None and not 1 <= refill < context:
            raise BackendError(f"refill: got {refill}, expected 1 to {context - 1}, or none")
        most = backend.max_batch
        if batch < 1 or (most is not None and batch > most):
            expected = "at least 1" if most is None else f"1 to {most}, as the bundle was exported"
            raise BackendError(f"batch: got {batch}, expected {expected}")
        self.batch = batch
        self.kept_when_full = context - 1 if refill is None else refill - 1
        inputs = {spec.name: spec for spec in backend.engines["prefill"].inputs}
        self._window = self._zeros(inputs[self.wiring.window])  # (B, S, width)
        self._actions = np.zeros((batch, context), np.int64)
        self._everyone = np.arange(batch)
        # (S + 1, B): row n holds n for every session, so that counting needs no copy to the device
        self._numbers = torch.arange(context + 1, device=backend.device)[:, None].repeat(1, batch)
        self._length = np.zeros(batch, np.int64)  # tokens in the window, 0 before reset
        self._cached = np.zeros(batch, np.int64)  # leading tokens whose keys and values are cached
        self._imagined = np.zeros(batch, bool)  # the newest token is a prediction
        self._cache: dict[str, Tensor] = {}
        if self.wiring.cache:
            specs = {spec.name: spec for spec in backend.engines["step"].inputs}
            self._cache = {name: self._zeros(specs[name]) for name, _ in self.wiring.cache}
        self._rendered: Tensor | None = None  # the decoder's input for the newest prediction
        self._predicted: Tensor | None = None  # the newest token of all rows, where no row has more
        self._checked: set[str] = set()  # graphs whose feeds were found right once

    @torch.inference_mode()
    def reset(
        self,
        frames: np.ndarray,
        actions: np.ndarray | None = None,
        rows: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Start rows anew on a context.

        Args:
            frames: (T, H, W, 3) uint8 for all of `rows`, or (rows, T, H, W, 3); T >= 1. Of more
                than S frames the last S are used.
            actions: (T - 1,) or (rows, T - 1) int64, what was done at each frame but the last; only
                for a model with actions. The last frame's action is given to `step`.
            rows: default all.

        Returns:
            The frames' codes, (rows, T', N) int64, T' = min(T, S).

        Raises:
            BackendError: shapes, dtypes or the presence of actions do not fit.
        """
        where = checked_rows(rows, self.batch, "reset")
        frames, taken = checked_context(frames, actions, len(where), self.wiring)
        count = frames.shape[1]
        tokens, codes = self._encode(frames.reshape(-1, *frames.shape[2:]))
        self._window[where, :count] = tokens.unflatten(0, (len(where), count))
        if taken is not None:
            self._actions[where, : count - 1] = taken
        self._length[where] = count
        self._cached[where] = 0
        self._start_from(where)
        return codes.reshape(len(where), count, -1)

    def step(self, action: np.ndarray | int | None = None) -> np.ndarray:
        """Imagine the next frame of every row, and render it.

        Args:
            action: (B,) int64 or one for all rows, taken at the newest frame; for a model with
                actions only.

        Returns:
            (B, H, W, 3) uint8.

        Raises:
            BackendError: not every row has been reset, or the action does not fit.
        """
        self.advance(action)
        return self.render()

    def imagine(self, count: int, actions: np.ndarray | None = None) -> None:
        """Step `count` times without rendering; `render` shows the last one.

        Args:
            actions: (count,) or (B, count) int64, for a model with actions only.

        Raises:
            BackendError: as `step`.
        """
        if actions is not None and (actions.ndim not in (1, 2) or actions.shape[-1] != count):
            raise BackendError(
                f"imagine: got actions {actions.shape}, expected ({count},) or (B, {count})"
            )
        for i in range(count):
            self.advance(None if actions is None else actions[..., i])

    @torch.inference_mode()
    def render(self) -> np.ndarray:
        """The newest predicted frame of every row, (B, H, W, 3) uint8.

        Raises:
            BackendError: nothing has been predicted since the last reset.
        """
        if self._rendered is None or not self._imagined.all():
            raise BackendError("render: nothing predicted yet; call step or imagine first")
        frame = self._run("decoder", {self.wiring.render[1]: self._rendered})[self.wiring.frame]
        return frame.to("cpu", copy=True).numpy()

    @torch.inference_mode()
    def observe(
        self,
        frame: np.ndarray,
        action: np.ndarray | int | None = None,
        rows: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Tell rows the real frame.

        In a row that has just predicted, it takes the place of the prediction; in another, time
        moves on by one frame without a prediction.

        Args:
            frame: (rows, H, W, 3), or (H, W, 3) for all of `rows`, uint8.
            action: (rows,) int64 or one for all, what was done at the frame before; needed by a
                model with actions in rows where the frame does not replace a prediction.
            rows: default all.

        Returns:
            The frame's codes, (rows, N) int64.

        Raises:
            BackendError: a row has not been reset, or shapes or the action do not fit.
        """
        where = checked_rows(rows, self.batch, "observe")
        self._check_reset("observe", where)
        if frame.ndim == 3:
            frame = np.broadcast_to(frame, (len(where), *frame.shape))
        if len(frame) != len(where):
            raise BackendError(
                f"observe: got {len(frame)} frames, expected one for {len(where)} rows"
            )
        replaced = self._imagined[where]
        added = where[~replaced]
        if len(added):
            acted = (
                action if action is None or np.ndim(action) == 0 else np.asarray(action)[~replaced]
            )
            self._note_action(acted, added, "observe")
        tokens, codes = self._encode(frame)
        self._window[where[replaced], self._length[where[replaced]] - 1] = tokens[replaced]
        if len(added):
            self._append(tokens[~replaced], added)
        self._start_from(where)
        return codes

    @torch.inference_mode()
    def advance(self, action: np.ndarray | int | None = None) -> None:
        """Predict the next token of every row, without rendering."""
        self._check_reset("step", self._everyone)
        self._note_action(action, self._everyone, "step")
        if self.wiring.cache and np.array_equal(self._cached, self._length - 1):
            outputs = self._step()
        else:
            outputs = self._prefill()
        self._cached[:] = self._length
        self._rendered = outputs[self.wiring.render[0]]
        self._predicted = outputs[self.wiring.feedback]
        self._append(self._predicted, self._everyone)
        self._imagined[:] = True

    @torch.inference_mode()
    def snapshot(self) -> "Snapshot":
        """A copy of the rollouts' state, for `restore`: branch, plan, go back."""
        return Snapshot(
            self._window.clone(),
            {name: tensor.clone() for name, tensor in self._cache.items()},
            _copied(self._rendered),
            (self._actions.copy(), self._length.copy(), self._cached.copy(), self._imagined.copy()),
        )

    @torch.inference_mode()
    def restore(self, snapshot: "Snapshot") -> None:
        """Go back to a snapshot, of this session or one like it; again and again, if need be.

        Raises:
            BackendError: the snapshot is of a session of another shape.
        """
        if snapshot.window.shape != self._window.shape:
            raise BackendError(
                f"restore: got a snapshot of {tuple(snapshot.window.shape)}, "
                f"expected {tuple(self._window.shape)}; it is of another kind of session"
            )
        self._window.copy_(snapshot.window)
        self._cache = {name: tensor.clone() for name, tensor in snapshot.cache.items()}
        self._rendered = _copied(snapshot.rendered)
        self._predicted = None
        for kept, saved in zip(
            (self._actions, self._length, self._cached, self._imagined), snapshot.rows, strict=True
        ):
            kept[:] = saved

    def synchronize(self) -> None:
        """Return when the device has finished."""
        for engine in self.backend.engines.values():
            engine.synchronize()

    def _step(self) -> dict[str, Tensor]:
        newest = self._length - 1
        token = self._predicted
        if token is None:
            token = self._window[self._everyone, newest]
        feeds = {
            self.wiring.token: token,
            self.wiring.position: self._counts(newest),
            **self._cache,
        }
        if self.wiring.action:
            feeds[self.wiring.action] = self._on_device(self._actions[self._everyone, newest])
        outputs = self._run("step", feeds)
        self._cache = {name: outputs[output] for name, output in self.wiring.cache}
        return outputs

    def _prefill(self) -> dict[str, Tensor]:
        feeds = {
            self.wiring.window: self._window,
            self.wiring.length: self._counts(self._length),
        }
        if self.wiring.window_actions:
            feeds[self.wiring.window_actions] = self._on_device(self._actions)
        outputs = self._run("prefill", feeds)
        self._cache = {name: outputs[name] for name, _ in self.wiring.cache}
        return outputs

    def _start_from(self, rows: np.ndarray) -> None:
        """Real frames are the newest of rows: nothing has been imagined since."""
        self._imagined[rows] = False
        self._predicted = None

    def _append(self, tokens: Tensor, rows: np.ndarray) -> None:
        """Add the newest token of rows, (rows, width); a full window keeps its newest, uncached."""
        keep = self.kept_when_full
        start = self.wiring.context - keep
        length = int(self._length[0])
        if len(rows) == self.batch and (self._length == length).all():
            # in lockstep, as nearly always: slices, where index arrays cost a copy to the device
            if length == self.wiring.context:
                self._window[:, :keep] = self._window[:, start:].clone()
                self._actions[:, :keep] = self._actions[:, start:]
                length = keep
                self._cached[:] = 0
            self._window[:, length] = tokens
            self._length[:] = length + 1
            return
        full = rows[self._length[rows] == self.wiring.context]
        if len(full):
            self._window[full, :keep] = self._window[full, start:]
            self._actions[full, :keep] = self._actions[full, start:]
            self._length[full] = keep
            self._cached[full] = 0
        self._window[rows, self._length[rows]] = tokens
        self._length[rows] += 1

    def _encode(self, frames: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """(n, H, W, 3) uint8 -> tokens (n, width), codes (n, N) int64."""
        tokens, codes = [], []
        self._checked.discard("encoder")  # people's frames are looked at every time
        together = self.backend.encode_batch
        if len(frames) % self.batch == 0:  # no other batch size for engines to prepare
            together = max(together, self.batch)
        for part in torch.tensor(frames).split(together):
            encoded = self._run("encoder", {self.wiring.frames: part.to(self.backend.device)})
            tokens.append(encoded[self.wiring.encoded].clone())  # the next run may overwrite it
            codes.append(encoded[self.wiring.codes].cpu().numpy())
        return torch.cat(tokens), np.concatenate(codes)

    def _run(self, name: str, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._become_tenant()
        engine: Engine = self.backend.engines[name]
        if name not in self._checked:  # once: what follows has the same shapes, and time counts
            check_feeds(engine, feeds)
            self._checked.add(name)
        return engine.run(feeds)

    def _become_tenant(self) -> None:
        """Engines may write over what they gave: the session before us first keeps copies."""
        tenant = self.backend.tenancy.tenant
        if tenant is not self:
            if tenant is not None:
                tenant.keep_copies()
            self.backend.tenancy.tenant = self

    @torch.inference_mode()
    def keep_copies(self) -> None:
        """Copy what still lies in the engines' own memory; another session is going to run them."""
        self._cache = {name: tensor.clone() for name, tensor in self._cache.items()}
        self._rendered = _copied(self._rendered)
        self._predicted = None  # the window has it

    def _counts(self, values: np.ndarray) -> Tensor:
        """(B,) int64 from 0 to S on the device."""
        if (values == values[0]).all():
            return self._numbers[int(values[0])]
        return self._on_device(values)

    def _check_reset(self, verb: str, rows: np.ndarray) -> None:
        if not self._length[rows].all():
            raise BackendError(f"{verb}: not every row has a context yet; call reset first")

    def _note_action(self, action: np.ndarray | int | None, rows: np.ndarray, verb: str) -> None:
        if not self.wiring.window_actions:
            if action is not None:
                raise BackendError(f"{verb}: the model takes no actions, got {action}")
            return
        if action is None:
            raise BackendError(f"{verb}: the model is conditioned on actions; give one per row")
        taken = checked_actions(action, (len(rows),), self.wiring.num_actions, verb)
        self._actions[rows, self._length[rows] - 1] = taken

    def _zeros(self, spec: TensorSpec) -> Tensor:
        shape = [self.batch if size == BATCH else size for size in spec.shape]
        return torch.zeros(shape, dtype=getattr(torch, spec.dtype), device=self.backend.device)

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values).to(self.backend.device)


def _copied(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()
