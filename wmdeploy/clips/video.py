"""Frames from any video PyAV can decode, one at a time, and never a cut-off video taken for whole.

Where a container tells how long it should be, a shorter one is an error: the index of mp4 and mov
against the size of the file, the declared duration of mkv, webm and avi against the last packet,
the end mark of gif, and for clips of a data folder the recorded number of frames. Rotation tags are
not applied. Does not know data folders.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wmdeploy.clips.clip import reason
from wmdeploy.errors import ClipError

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.stream import VideoStream


class VideoSource:
    """The first video stream of a file. See `read.Source`.

    Args:
        path: a file.
        recorded: how many frames the file must have, where that is known from elsewhere.
    """

    def __init__(self, path: Path, recorded: int | None = None) -> None:
        self.path = path
        self._recorded = recorded
        self.notes: list[str] = []

    def count(self) -> int:
        if self._recorded is not None:
            return self._recorded
        with self._opened() as (container, stream):
            if _is_mov(container) and (entries := stream.index_entries):
                return sum(not entry.is_discard for entry in entries)
            count, end = 0, 0
            for packet in container.demux(stream):
                if packet.pts is not None:
                    end = max(end, packet.pts + (packet.duration or 0))
                count += packet.size > 0 and not packet.is_discard
            self._check_whole(container, stream, count, end)
            return count

    def fps(self) -> float:
        with self._opened() as (_, stream):
            return _rate(stream)

    def actions(self) -> np.ndarray | None:
        return None

    def frames(self, start: int) -> Generator[np.ndarray, None, None]:
        with self._opened() as (container, stream):
            index, packets = 0, iter(container.demux(stream))
            if stream.codec_context.name == "ffv1":
                index, packets = _from_key_frame(packets, start)
            end = 0  # of the last packet, in the stream's time base
            for packet in packets:
                if packet.pts is not None:
                    end = max(end, packet.pts + (packet.duration or 0))
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise ClipError(f"{self.path}: frame {index} is damaged")
                    if index >= start:
                        yield frame.to_ndarray(format="rgb24")  # (H, W, 3) uint8
                    index += 1
            self._check_whole(container, stream, index, end)

    @contextmanager
    def _opened(self) -> "Iterator[tuple[InputContainer, VideoStream]]":
        import av

        try:
            # Only local files: a playlist must not make the reader fetch what it names.
            name = str(self.path.absolute())
            with av.open(name, options={"protocol_whitelist": "file"}) as container:
                if container.format.name == "tty":  # FFmpeg draws any text as a terminal
                    raise ClipError(f"{self.path}: is text, not a video")
                if not container.streams.video:
                    raise ClipError(f"{self.path}: has no video stream; give a video with pictures")
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise ClipError(f"{self.path}: PyAV has no decoder for it; convert it to .mp4")
                self._check_index(container, stream)
                yield container, stream
        except (av.FFmpegError, OSError, ValueError) as error:
            raise ClipError(f"{self.path}: cannot be read as a video ({reason(error)})") from error

    def _check_index(self, container: "InputContainer", stream: "VideoStream") -> None:
        """Refuse an mp4 whose index points behind the end of the file, and a gif without an end."""
        size = self.path.stat().st_size
        if _is_mov(container) and (entries := stream.index_entries):
            needed = entries[-1].pos + entries[-1].size
            if needed > size:
                raise self._cut_short(f"it has {size} bytes of at least {needed}")
        if container.format.name == "gif":
            with self.path.open("rb") as file:
                file.seek(max(0, size - 16))
                if not file.read().rstrip(b"\0\r\n").endswith(b";"):
                    raise self._cut_short("its end mark is missing")

    def _check_whole(
        self, container: "InputContainer", stream: "VideoStream", decoded: int, end: int
    ) -> None:
        """Refuse a video that ended before the length it declares."""
        if self._recorded is not None:
            if decoded != self._recorded:
                raise self._cut_short(f"it has {decoded} frames of {self._recorded} recorded")
            return
        declared = _declared_seconds(container, stream)
        if declared is None or stream.time_base is None:
            return
        seconds = float(end * stream.time_base)
        # Two frames of slack: containers round times, and the last frame may carry no duration.
        if seconds + 2 / _rate(stream) < declared:
            raise self._cut_short(f"it ends at {seconds:.2f} s of {declared:.2f} s")

    def _cut_short(self, detail: str) -> ClipError:
        return ClipError(f"{self.path}: is damaged or cut short: {detail}; copy or record it again")


def _is_mov(container: "InputContainer") -> bool:
    return container.format.name.startswith("mov")


def _rate(stream: "VideoStream") -> float:
    return float(stream.average_rate or stream.guessed_rate or 30)


def _from_key_frame(
    packets: "Iterator[Packet[VideoStream]]", start: int
) -> "tuple[int, Iterator[Packet[VideoStream]]]":
    """Drop the packets that frame `start` does not need: (index of the first kept, the rest).

    Holds for codecs that never reorder frames. In our own clips every frame is a key frame.
    """
    held: list[Packet[VideoStream]] = []
    first = 0
    for index, packet in enumerate(packets):
        if packet.is_keyframe:
            held, first = [], index
        held.append(packet)
        if index >= start:
            break
    return first, chain(held, packets)


def _declared_seconds(container: "InputContainer", stream: "VideoStream") -> float | None:
    """How long the container says its video stream is, where it says so reliably."""
    if container.format.name.startswith("matroska"):
        hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
        minutes, _, seconds = rest.partition(":")
        try:
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        except ValueError:
            return None
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        # Not its duration, which the demuxer shortens to fit a cut-off file.
        return float(stream.frames / stream.average_rate)
    return None
