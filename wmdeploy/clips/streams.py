"""Of a container: which video stream to take, and which way up its frames are shown.

Both as the ffmpeg program and players do. Does not decode.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_DEFAULT_BONUS = 5_000_000  # pixels that being the default is worth to the ffmpeg program
_PRIMARIES_OF_HDR = {16: "PQ", 18: "HLG"}  # transfer functions, ITU-T H.273


def choose_stream(container: "InputContainer") -> "tuple[VideoStream | None, str | None]":
    """The stream that ffmpeg would take, and a note where there was a choice.

    That is the one with the most pixels, where being the default counts for much. A cover picture
    is no video.
    """
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = container.streams.video
    videos = [stream for stream in streams if not stream.disposition & pictures]
    if not videos:
        return None, None
    chosen = max(videos, key=lambda stream: _score(stream, Disposition.default))
    if len(streams) == 1:
        return chosen, None
    listing = ", ".join(f"{s.index}: {_described(s, s not in videos)}" for s in streams[:8])
    return chosen, f"of {len(streams)} video streams ({listing}) number {chosen.index} is used"


def upright(frame: np.ndarray, matrix: np.ndarray | None) -> np.ndarray | None:
    """Turn and mirror (H, W, 3) as a display matrix says; None if it does anything else.

    Args:
        matrix: (3, 3) int32 as FFmpeg stores it: (x, y, 1) is shown at (x, y, 1) @ matrix.
    """
    if matrix is None or not matrix[:2, :2].any():
        return frame
    (a, b), (c, d) = np.sign(np.where(np.abs(matrix[:2, :2]) < 2**10, 0, matrix[:2, :2]))
    if a and d and not b and not c:
        across, down = a, d
    elif b and c and not a and not d:
        frame, across, down = frame.swapaxes(0, 1), c, b
    else:
        return None
    return np.ascontiguousarray(frame[::down, ::across])


def turns_sides(matrix: np.ndarray | None) -> bool:
    """Whether width and height change places."""
    return matrix is not None and bool(abs(matrix[0, 1]) > abs(matrix[0, 0]))


def display_matrix(frame: "VideoFrame") -> np.ndarray | None:
    """(3, 3) int32, or None where a frame is shown as it is stored."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(bytes(data), np.int32).reshape(3, 3)


def look_notes(frame: "VideoFrame") -> list[str]:
    """What makes a frame look other than in a player."""
    notes = []
    if curve := _PRIMARIES_OF_HDR.get(frame.color_trc):
        notes.append(
            f"high dynamic range ({curve}): colours are taken as stored, paler than a player "
            "shows them; convert it to SDR to have those"
        )
    if frame.interlaced_frame:
        notes.append(
            "interlaced: each frame holds two moments, line by line; "
            "deinterlace it (ffmpeg -i IN -vf bwdif OUT) to part them"
        )
    return notes


def _score(stream: "VideoStream", default: int) -> int:
    pixels = stream.codec_context.width * stream.codec_context.height if stream.codec_context else 0
    return pixels + (_DEFAULT_BONUS if stream.disposition & default else 0)


def _described(stream: "VideoStream", is_picture: bool) -> str:
    context = stream.codec_context
    size = f"{context.width}x{context.height}" if context else "no decoder"
    return f"{size} cover picture" if is_picture else size
