"""Frames from any video PyAV can decode, one at a time, and never a cut-off video taken for whole.

Where a container tells how long it should be, a shorter one is an error: the index of mp4 and mov
against the size of the file, the declared duration of mkv, webm and avi against the last packet,
the blocks of gif, the index of avi, the counters of MPEG-TS, and for clips of a data folder the
recorded number of frames. Frames are turned upright as players do. Does not know data folders.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wmdeploy.clips.clip import reason
from wmdeploy.clips.gif import damage_of_gif
from wmdeploy.clips.source import Source, Timeline
from wmdeploy.clips.streams import choose_stream, display_matrix, look_notes, turns_sides, upright
from wmdeploy.clips.suffixes import VIDEO_FORMATS
from wmdeploy.clips.tally import Tally
from wmdeploy.errors import ClipError

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream


class VideoSource(Source):
    """The video stream of a file that ffmpeg would take.

    Args:
        path: a file.
        recorded: how many frames the file must have, where that is known from elsewhere.
    """

    def __init__(self, path: Path, recorded: int | None = None) -> None:
        super().__init__(path)
        self._recorded = recorded
        self._described = False
        self.is_animation = path.suffix.lower() == ".gif"

    def count(self) -> int:
        if self._recorded is not None:
            return self._recorded
        with self._opened() as (container, stream):
            if _is_mov(container) and (entries := stream.index_entries):
                return sum(not entry.is_discard for entry in entries)
            tally = Tally(container, stream)
            count = tally.count(container.demux(stream))
            self._check_whole(container, stream, tally, count)
            return count

    def fps(self) -> float:
        with self._opened() as (_, stream):
            return _rate(stream)

    @cached_property
    def timeline(self) -> Timeline | None:
        with self._opened() as (container, stream):
            tally = Tally(container, stream)
            tally.count(container.demux(stream))
            return tally.timeline()

    def frames(self, start: int) -> Generator[np.ndarray, None, None]:
        with self._opened() as (container, stream):
            tally = Tally(container, stream)
            index, packets = 0, tally.through(container.demux(stream))
            if stream.codec_context.name == "ffv1":
                index, packets = _from_key_frame(packets, start)
            for packet in packets:
                if tally.damaged:
                    raise self._cut_short(
                        f"at frame {index} bytes are missing, or two files were joined"
                    )
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise ClipError(f"{self.path}: frame {index} is damaged")
                    if index >= start:
                        yield self._upright(frame, stream)
                    index += 1
            self._check_whole(container, stream, tally, index)

    @contextmanager
    def _opened(self) -> "Iterator[tuple[InputContainer, VideoStream]]":
        import av

        promised = VIDEO_FORMATS[self.path.suffix.lower()]
        # Only local files, only of the format promised: no playlist may name what is read.
        options = {"protocol_whitelist": "file", "format_whitelist": promised}
        try:
            with av.open(str(self.path.absolute()), options=options) as container:
                stream, note = choose_stream(container)
                if stream is None:
                    raise ClipError(f"{self.path}: has no video stream; give a video with pictures")
                if stream.codec_context is None:
                    raise ClipError(f"{self.path}: PyAV has no decoder for it; convert it to .mp4")
                if stream.codec_context.name == "mjpeg":  # it would show what is left of a frame
                    stream.codec_context.options = {"err_detect": "explode"}
                self._note(note)
                self._check_index(container, stream)
                yield container, stream
        except av.ArgumentError as error:  # not on the list of formats
            raise ClipError(
                f"{self.path}: cannot be read as a video: it is damaged, or not what "
                f"{self.path.suffix} promises ({promised}); give it the suffix of its format, or "
                "convert it to .mp4"
            ) from error
        except (av.FFmpegError, OSError, ValueError) as error:
            raise ClipError(f"{self.path}: cannot be read as a video ({reason(error)})") from error

    def _check_index(self, container: "InputContainer", stream: "VideoStream") -> None:
        """Refuse an mp4 whose index points behind the end of the file, and a broken gif."""
        size = self.path.stat().st_size
        if _is_mov(container) and (entries := stream.index_entries):
            needed = entries[-1].pos + entries[-1].size
            if needed > size:
                raise self._cut_short(f"it has {size} bytes of at least {needed}")
        if container.format.name == "gif" and (damage := damage_of_gif(self.path)):
            raise self._cut_short(damage)

    def _check_whole(
        self, container: "InputContainer", stream: "VideoStream", tally: Tally, decoded: int
    ) -> None:
        """Refuse a video that lost frames, or ended before the length it declares."""
        if self._recorded is not None:
            if decoded != self._recorded:
                raise self._cut_short(f"it has {decoded} frames of {self._recorded} recorded")
            return
        declared = _declared_seconds(container, stream)
        if declared is not None and stream.time_base is not None:
            seconds = float(tally.end * stream.time_base)
            # Two frames of slack: containers round times, and the last frame may have no duration.
            if seconds + 2 / _rate(stream) < declared:
                raise self._cut_short(f"it ends at {seconds:.2f} s of {declared:.2f} s")
        if tally.damaged:
            raise self._cut_short("bytes are missing")
        if container.format.name == "avi":
            indexed = sum(entry.size > 0 for entry in stream.index_entries)
            if tally.packets < indexed:
                raise self._cut_short(f"it has {tally.packets} frames of {indexed} in its index")
        if container.format.name == "mpegts":
            if decoded < tally.shown:
                raise self._cut_short(f"{decoded} of its {tally.shown} frames can be decoded")
            if hole := tally.hole():
                raise ClipError(
                    f"{self.path}: is damaged, or was recorded with pauses: {hole}; copy or record "
                    "it again, or keep the pauses with ffmpeg -i IN -c copy OUT.mkv"
                )

    def _upright(self, frame: "VideoFrame", stream: "VideoStream") -> np.ndarray:
        """(H, W, 3) uint8, RGB, as a player shows it."""
        stored = frame.to_ndarray(format="rgb24")
        matrix = display_matrix(frame)
        shown = upright(stored, matrix)
        if shown is None:
            raise ClipError(
                f"{self.path}: has a rotation of {frame.rotation} degrees, expected a "
                "multiple of 90; turn it with ffmpeg -i IN OUT.mp4"
            )
        if not self._described:
            self._described = True
            aspect = float(stream.sample_aspect_ratio or 1)
            self.pixel_aspect = 1 / aspect if turns_sides(matrix) else aspect
            for note in look_notes(frame):
                self._note(note)
        return shown

    def _note(self, note: str | None) -> None:
        if note and note not in self.notes:
            self.notes.append(note)

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
