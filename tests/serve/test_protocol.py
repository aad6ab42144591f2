"""Bytes between page and server."""

import struct

import pytest

from wmdeploy.serve.protocol import (
    HEADER,
    Command,
    FrameMessage,
    ProtocolError,
    read_command,
    write_command,
)


@pytest.mark.parametrize(
    ("message", "command"),
    [
        (b"\x01\x05\x2a\0\0\0", Command("keys", (5, 42))),
        (b"\x02\x01\x01\0\0", Command("seen", (257,))),
        (b"\x03", Command("pause")),
        (b"\x06\x01\x02", Command("start", (513,))),
        (b"\x0a\x0f", Command("rate", (15,))),
    ],
)
def test_commands_are_these_bytes(message: bytes, command: Command) -> None:
    assert read_command(message) == command
    assert write_command(command) == message


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", 4422),
        (b"\x00", 4422),
        (b"\xff\x00", 4422),
        (b"\x01\x05", 4422),
        (b"\x03\x00", 4422),
        (b"\x01" * 65, 1009),
    ],
)
def test_other_bytes_close_the_connection(message: bytes, code: int) -> None:
    with pytest.raises(ProtocolError) as raised:
        read_command(message)
    assert raised.value.code == code


def test_a_frame_is_its_header_and_its_pictures() -> None:
    message = FrameMessage(
        action=6,
        rows=3,
        number=7,
        frame=9,
        obeyed=4,
        depth=2,
        step_ms=1.5,
        picture_ms=0.25,
        wait_ms=0.0,
        reward=-1.0,
        dream=b"dream",
        real=b"real",
    )
    data = bytes(message)
    assert data[:8] == b"\x01\x03\x06\x00\x03\x00\x00\x00"
    assert struct.unpack_from("<4I", data, 8) == (7, 9, 4, 2)
    assert struct.unpack_from("<4fI", data, 24) == (1.5, 0.25, 0.0, -1.0, 5)
    assert HEADER.size == 44 and data[44:] == b"dreamreal"
