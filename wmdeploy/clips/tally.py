"""What the packets of a video stream promise: how many frames, when they are shown, any damage.

Knows packets, which cost no decoding.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from wmdeploy.clips.source import Timeline

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.stream import VideoStream


class Tally:
    """Counts packets as they pass.

    Attributes:
        packets: how many held data.
        stamps: of each frame that will be shown, in the stream's time base; None where unknown.
        end: of the last frame, in the stream's time base.
        damaged: whether the demuxer found bytes missing.
    """

    def __init__(self, container: "InputContainer", stream: "VideoStream") -> None:
        self.packets = 0
        self.stamps: list[int | None] = []
        self.end = 0
        self.damaged = False
        self._stream = stream
        # a broadcast is cut anywhere, and its decoder waits for the first key frame
        self._waiting = container.format.name == "mpegts"
        self._first: int | None = None

    @property
    def shown(self) -> int:
        """How many frames will be shown."""
        return len(self.stamps)

    def through(self, packets: "Iterable[Packet[VideoStream]]") -> "Iterator[Packet[VideoStream]]":
        """The same packets, counted."""
        for packet in packets:
            self._add(packet)
            yield packet

    def count(self, packets: "Iterable[Packet[VideoStream]]") -> int:
        """Count all packets; how many frames they show."""
        for packet in packets:
            self._add(packet)
        return self.shown

    def timeline(self) -> Timeline | None:
        """When the frames are shown; None if a stamp is missing."""
        stamps = [stamp for stamp in self.stamps if stamp is not None]
        if not stamps or len(stamps) < self.shown or self._stream.time_base is None:
            return None
        starts = np.sort(np.array(stamps, np.int64))
        end = self.end
        if end <= starts[-1]:  # the last packet does not say for how long it is shown
            end = starts[-1] + max(1, int(np.median(np.diff(starts))) if len(starts) > 1 else 1)
        return Timeline(np.append(starts, end), self._stream.time_base)

    def hole(self) -> str | None:
        """Where a stream of one rate lacks frames, by its stamps; None also for variable rates."""
        timeline = self.timeline()
        if timeline is None or self.shown < 3:
            return None
        gaps = np.diff(timeline.ticks[:-1])
        usual = float(np.median(gaps))
        held = gaps > 1.5 * usual
        if not held.any() or np.mean(np.abs(gaps - usual) <= 0.1 * usual) < 0.9:
            return None
        first = int(np.argmax(held))
        milliseconds = 1000 * float(timeline.tick)
        return (
            f"frame {first + 1} comes {gaps[first] * milliseconds:.4g} ms after the one before it, "
            f"the others {usual * milliseconds:.4g} ms"
        )

    def _add(self, packet: "Packet[VideoStream]") -> None:
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            self.end = max(self.end, stamp + (packet.duration or 0))
        if packet.size == 0:  # the end of the stream, or a frame that is to stay on the screen
            return
        self.packets += 1
        if self._waiting and not packet.is_keyframe:
            return
        if self._waiting:
            self._waiting, self._first = False, stamp
        self.damaged = self.damaged or packet.is_corrupt
        leading = self._first is not None and stamp is not None and stamp < self._first
        if not packet.is_discard and not leading:
            self.stamps.append(stamp)
