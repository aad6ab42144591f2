"""What a page and the server say to each other over a WebSocket; the one place with byte offsets.

A page sends commands, each a kind (u8) and its numbers, little-endian, see `COMMANDS`. The server
sends frames: `HEADER`, the dream's picture, and the real game's behind it where there is one. All
else it sends is JSON: `hello`, `state`, `error`, `bye`.
"""

import struct
from dataclasses import dataclass
from typing import Literal

VERSION = 1
LARGEST_COMMAND = 64  # bytes
COMMANDS_PER_SECOND = 120

CommandName = Literal[
    "keys", "seen", "pause", "resume", "step", "start", "rewind", "keep", "go", "rate", "sync"
]
COMMANDS: dict[int, tuple[CommandName, struct.Struct]] = {
    1: ("keys", struct.Struct("<BI")),  # the action held from now on; its number, counted up
    2: ("seen", struct.Struct("<I")),  # the newest frame message that was painted
    3: ("pause", struct.Struct("<")),
    4: ("resume", struct.Struct("<")),
    5: ("step", struct.Struct("<B")),  # one frame, with this action
    6: ("start", struct.Struct("<H")),  # begin anew at a start
    7: ("rewind", struct.Struct("<I")),  # back to this frame
    8: ("keep", struct.Struct("<")),  # a branch: what is now
    9: ("go", struct.Struct("<H")),  # on from that branch
    10: ("rate", struct.Struct("<B")),  # frames per second
    11: ("sync", struct.Struct("<")),  # the real game's newest frame becomes the dream's
}
NUMBERS = {name: number for number, (name, _) in COMMANDS.items()}

# version, flags, action, rows of the batch, number of the message, frame since the start, newest
# keys that it obeys, frames since the last real one; milliseconds of step, picture and waiting;
# reward; bytes of the dream's picture
HEADER = struct.Struct("<BBBxHxxIIIIffffI")
REAL, REWARD = 1, 2  # flags: there is a real picture; there is a reward


class ProtocolError(Exception):
    """A message that no page of ours sends. `code` closes the connection, see `CLOSE`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


# Close codes of RFC 6455, and from 4000 on ours.
CLOSE = {
    "going away": 1001,
    "policy": 1008,
    "too big": 1009,
    "engine failed": 1011,
    "full": 1013,
    "version": 4400,
    "idle": 4408,
    "bad command": 4422,
}


@dataclass(frozen=True)
class Command:
    name: CommandName
    numbers: tuple[int, ...] = ()


def read_command(message: bytes) -> Command:
    """A command from its bytes.

    Raises:
        ProtocolError: they are none.
    """
    if len(message) > LARGEST_COMMAND:
        raise ProtocolError(
            CLOSE["too big"], f"got {len(message)} bytes, expected at most {LARGEST_COMMAND}"
        )
    kind = message[0] if message else None
    if kind not in COMMANDS:
        raise ProtocolError(CLOSE["bad command"], f"got a message of kind {kind}")
    name, form = COMMANDS[kind]
    if len(message) != 1 + form.size:
        expected = f"{name} has {1 + form.size}"
        raise ProtocolError(CLOSE["bad command"], f"got {len(message)} bytes, {expected}")
    return Command(name, form.unpack_from(message, 1))


def write_command(command: Command) -> bytes:
    """Its bytes, as a page sends them."""
    number = NUMBERS[command.name]
    return bytes([number]) + COMMANDS[number][1].pack(*command.numbers)


@dataclass(frozen=True, kw_only=True)
class FrameMessage:
    """One imagined frame on its way to a page.

    Attributes:
        action: that led to it; rows: players that were stepped together.
        number: of the message, counted up; frame: since the start of the dream.
        obeyed: the newest `keys` that it obeys; depth: frames since the last real one.
        step_ms, picture_ms, wait_ms: of the model, for both pictures, and past its due time.
        reward: what the model says that the frame brought; None where it says nothing.
        dream, real: encoded pictures; `real` is b"" where no game runs beside.
    """

    action: int
    rows: int
    number: int
    frame: int
    obeyed: int
    depth: int
    step_ms: float
    picture_ms: float
    wait_ms: float
    reward: float | None
    dream: bytes
    real: bytes = b""

    def __bytes__(self) -> bytes:
        flags = (REAL if self.real else 0) | (REWARD if self.reward is not None else 0)
        header = HEADER.pack(
            VERSION,
            flags,
            self.action,
            self.rows,
            self.number,
            self.frame,
            self.obeyed,
            self.depth,
            self.step_ms,
            self.picture_ms,
            self.wait_ms,
            self.reward or 0.0,
            len(self.dream),
        )
        return header + self.dream + self.real
