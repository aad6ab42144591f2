"""Which arrays of a file are frames and actions, and how their rows are to be understood.

A meaning is taken where shape, type, name and values leave no other; where they leave two, the
error says how to save the one that is meant. Knows shapes and names, not files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from wmdeploy.clips.npy import Stored
from wmdeploy.errors import ClipError

# Of the reference project, Minari, D4RL, robomimic, ALOHA, Dreamer, Crafter, IRIS and DIAMOND.
FRAME_NAMES = (
    *("frames", "frame", "images", "image", "imgs", "img", "observations", "observation"),
    *("obs", "pixels", "rgb", "video", "videos"),
)
ACTION_NAMES = ("actions", "action", "acts", "act")
# True, or 0 for step_type, at the first frame of an episode
START_NAMES = ("is_first", "step_type")
# True at the last frame of an episode
END_NAMES = (
    *("is_last", "is_terminal", "terminals", "timeouts", "terminations", "truncations"),
    *("terminated", "truncated", "dones", "done", "ends", "end", "trunc"),
)
MOST_FRAMES = 10_000_000  # of one array
MOST_PIXELS = 178_956_970  # of one frame: where Pillow takes a picture for a bomb
MOST_ACTIONS = 65_536
_LEAST_SIDE = 8  # what other names than `frames` hold with a shorter side is no picture


class UnusableActions(ClipError):
    """A clip has actions that no model takes; without them it can be read."""


@dataclass(frozen=True)
class FramesLayout:
    """How the rows of an array become frames.

    Attributes:
        shape: (T, H, W, 3) of the frames.
        batch: whether a first axis of length 1 stands before the rows.
        channels: "last", "first", or "none" for a grey (H, W).
        note: how the array is read, or "" if it is (T, H, W, 3) uint8.
    """

    shape: tuple[int, int, int, int]
    batch: bool
    channels: str
    note: str

    def frame(self, row: np.ndarray, place: str) -> np.ndarray:
        """(H, W, 3) uint8 of one row.

        Raises:
            ClipError: its values are not those of its type, see `_pixels`.
        """
        if self.channels == "first":
            row = row.transpose(1, 2, 0)
        elif self.channels == "none":
            row = row[:, :, None]
        frame = np.empty(self.shape[1:], np.uint8)
        frame[:] = _pixels(row, place)  # one channel becomes three equal ones
        return frame


def is_named(name: str, names: Iterable[str]) -> bool:
    """Whether the last part of an array's name is one of `names`, in whatever case."""
    return name.rpartition("/")[2].strip().lower() in names


def find_frames(arrays: Mapping[str, Stored], place: str, series: str | None = None) -> str:
    """The name of the array that holds the frames.

    That is `frames`; else what has the shape of frames and one of `FRAME_NAMES`; else what alone
    has it. With `series` it is what has this name, or alone has it in its name.

    Raises:
        ClipError: there is no such array, or there are several.
    """
    pictures = [n for n, a in arrays.items() if not _is_next(n) and _may_be_frames(n, a)]
    if series is not None:
        return _chosen(pictures, place, series)
    if "frames" in arrays:
        return "frames"
    named = [name for name in pictures if is_named(name, FRAME_NAMES)]
    candidates = named or pictures
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise ClipError(
            f"{place}: holds {len(candidates)} series of frames ({listed(candidates)}), expected "
            f"one; choose it by its name, such as series={candidates[0]}"
        )
    listing = ", ".join(f"{n} {a.dtype} {a.shape}" for n, a in list(arrays.items())[:8])
    numbers = next((n for n, a in arrays.items() if is_named(n, FRAME_NAMES)), None)
    if numbers is not None and arrays[numbers].dtype.kind in "iuf":
        what = f"{numbers} is no series of pictures"
        advice = "wmdeploy predicts pictures: render the states, and save them as frames"
    else:
        what = "expected an array named frames"
        advice = "save it with numpy.savez_compressed(path, frames=...), uint8 (T, H, W, 3)"
    raise ClipError(f"{place}: holds {listing or 'nothing'}; {what}; {advice}")


def _chosen(pictures: list[str], place: str, series: str) -> str:
    wanted = series.casefold()
    fitting = [name for name in pictures if name.casefold() == wanted] or [
        name for name in pictures if wanted in name.casefold()
    ]
    if len(fitting) != 1:
        raise ClipError(
            f"{place}: series: got {series!r}, which is {len(fitting) or 'none'} of its series "
            f"({listed(pictures) or 'none'}); name one of them"
        )
    return fitting[0]


def find_actions(arrays: Mapping[str, Stored], place: str) -> str | None:
    """The name of the array that holds the actions, or None.

    Raises:
        ClipError: there are several.
    """
    candidates = [name for name in arrays if "/" not in name and is_named(name, ACTION_NAMES)]
    if "actions" in candidates:
        return "actions"
    if len(candidates) > 1:
        raise ClipError(
            f"{place}: holds {listed(candidates)}, expected one array of actions; "
            "name the one you mean `actions`"
        )
    return candidates[0] if candidates else None


def frames_layout(name: str, array: Stored, place: str) -> FramesLayout:
    """How an array holds frames.

    Raises:
        ClipError: its shape or type leaves more than one meaning, or none, or a frame is larger
            than `MOST_PIXELS`, or there are more than `MOST_FRAMES`.
    """
    shape, dtype = array.shape, array.dtype

    def refused(advice: str) -> ClipError:
        return ClipError(
            f"{place}: {name}: got {dtype} {shape}, expected uint8 (T, H, W, 3); {advice}"
        )

    if dtype.hasobject:
        raise refused(
            "Python objects are not read, as they could run code: save numbers, a clip in each "
            'file; d = numpy.load(path, allow_pickle=True).item(); numpy.savez("0.npz", '
            'frames=d["..."]) converts a dict of a source you trust'
        )
    if dtype.kind not in "iuf" or 0 in shape:
        raise refused("save RGB pixels in 0..255, at least one frame")
    batch = len(shape) == 5 or (len(shape) == 4 and shape[0] == 1 and _is_grey_batch(shape))
    if batch and shape[0] != 1:
        raise refused(f"save each of the {shape[0]} clips as its own file")
    rows = shape[1:] if batch else shape
    channels = _channels(rows)
    if channels == "":
        raise refused(_advice(rows))
    length, *sides = rows
    height, width = sides[1:] if channels == "first" else sides[:2]
    if height * width > MOST_PIXELS:
        raise refused(f"a frame has {height * width:,} pixels of at most {MOST_PIXELS:,}")
    if length > MOST_FRAMES:
        raise refused(f"it has more than {MOST_FRAMES:,} frames; save it in parts")
    notes = []
    if name != "frames":
        notes.append(f"frames are read from {name}")
    if rows[1:] != (height, width, 3) or batch:
        notes.append(f"shape {shape} is read as {length} frames of {height} x {width}")
    if dtype.kind == "f":
        notes.append(f"{dtype} in 0..1 is read as 0..255")
    elif dtype != np.uint8:
        notes.append(f"{dtype} is read as 0..255")
    return FramesLayout((length, height, width, 3), batch, channels, ", ".join(notes))


def listed(names: Iterable[str], most: int = 8) -> str:
    """Some names on one line: the first few of them, and how many more there are."""
    names = list(names)
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if names[most:] else "")


def _is_next(name: str) -> bool:
    """Whether a name says that what it holds comes after the frames: `next_obs/image`."""
    return any(part.lower().startswith("next") for part in name.split("/"))


def _may_be_frames(name: str, array: Stored) -> bool:
    shape = array.shape[1:] if len(array.shape) == 5 else array.shape
    if array.dtype.kind not in "iuf" or 0 in shape or len(shape) not in (3, 4):
        return False
    named = is_named(name, FRAME_NAMES)
    if not named and (array.dtype != np.uint8 or 3 not in shape[1:]):
        return False
    sides = sorted(shape[1:])[-2:]
    return min(sides) >= _LEAST_SIDE


def _is_grey_batch(shape: tuple[int, ...]) -> bool:
    """Whether (1, T, H, W) is a clip of grey frames, behind an axis of one clip or one channel."""
    return shape[1] not in (1, 3, 4) and shape[3] not in (1, 3, 4)


def _channels(rows: tuple[int, ...]) -> str:
    """Where the channels of (T, ...) are: "last", "first", "none"; "" where it is not certain."""
    if len(rows) == 4 and rows[3] in (1, 3):
        return "last"
    if len(rows) == 4 and rows[1] in (1, 3) and rows[3] != 4:
        return "first"
    if len(rows) == 3 and rows[0] != 3 and rows[2] not in (1, 3, 4):
        return "none"
    return ""


def _advice(rows: tuple[int, ...]) -> str:
    if len(rows) == 3 and rows[2] in (1, 3, 4):
        return "a single picture is saved as frames[None]"
    if len(rows) == 3:
        return "save one picture as frames.transpose(1, 2, 0)[None], 3 grey frames as (3, H, W, 1)"
    if len(rows) == 4 and 4 in (rows[1], rows[3]):
        return (
            "4 channels may be RGBA or 4 grey frames stacked; save frames[..., :3] of RGBA, the "
            "newest frame of a stack (channels last)"
        )
    if len(rows) == 4 and rows[0] == 3:
        return "channels first of all are saved as frames.transpose(1, 2, 3, 0)"
    if len(rows) == 4 and (rows[1] % 3 == 0 or rows[3] % 3 == 0):
        return "of stacked frames save the newest, its 3 channels last"
    return "save RGB pixels in 0..255, at least one frame"


def _pixels(row: np.ndarray, place: str) -> np.ndarray:
    """Values in 0..255: uint8 as they are, other whole numbers if they fit, floats in 0..1."""
    if row.dtype == np.uint8:
        return row
    low, high = row.min(), row.max()
    got = f"{place}: got {row.dtype} values from {low:g} to {high:g}"
    if row.dtype.kind != "f":
        if low < 0 or high > 255:
            raise ClipError(f"{got}, expected 0 to 255; save uint8 pixels")
        return row
    if 0 <= low and high <= 1:  # false for NaN
        return np.rint(row.astype(np.float32) * 255)
    if not np.isfinite([low, high]).all():
        advice = "replace what is no number"
    elif -1 <= low and high <= 1:
        advice = "save ((frames + 1) * 127.5).round().astype(numpy.uint8) if black is -1"
    else:
        advice = "save frames.round().astype(numpy.uint8) if white is 255"
    raise ClipError(f"{got}, expected 0 to 1 for floats; {advice}")
