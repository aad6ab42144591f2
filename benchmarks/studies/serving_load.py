"""What `wmdeploy serve` does with many players: frames per second, key to frame, memory.

    python -m wmdeploy.benchmarks.studies.serving_load examples/pong --clients 16,32 --joins 2000
    python -m wmdeploy.benchmarks.studies.serving_load examples/pong --clients 16 --soak 30
    python -m wmdeploy.benchmarks.studies.serving_load examples/pong --serve "--engine ray"

Starts a server, lets clients on loopback press keys at random and paint what comes at once, and
prints a Markdown table. Beside it: what the engine alone steps in this process in the same minute,
with as many rows. Server and clients share the machine's cores.
"""

import asyncio
import contextlib
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from websockets.asyncio.client import ClientConnection, connect

from wmdeploy.benchmarks.studies import run_study
from wmdeploy.bundle import Bundle
from wmdeploy.clips.source import ReadOptions
from wmdeploy.engines.base import load_backend
from wmdeploy.errors import WmdeployError
from wmdeploy.programs.pool import Pool
from wmdeploy.serve.engine import ServiceOptions
from wmdeploy.serve.protocol import HEADER, VERSION, Command, write_command
from wmdeploy.serve.world import find_world

NUMBER, OBEYED = 4, 6  # of the header
WARM = 2.0  # seconds that are not counted
CHUNK = ServiceOptions().chunk
SETTLED = 2.0  # minutes of a soak until memory is what it will be


def main(
    bundle: Annotated[Path, typer.Argument(help="Bundle to serve.")],
    clients: Annotated[str, typer.Option(help="Players at a time, such as 16,32.")] = "16",
    seconds: Annotated[float, typer.Option(help="Of load, for each number.")] = 20,
    pace: Annotated[float, typer.Option(help="Frames per second of a dream.")] = 15,
    joins: Annotated[int, typer.Option(help="Players that then come and go.")] = 0,
    soak: Annotated[float, typer.Option(help="Minutes for which the most players then stay.")] = 0,
    serve: Annotated[str, typer.Option(help="More options of wmdeploy serve.")] = "",
) -> None:
    """Measure, and print the table."""
    with _serving(bundle, pace, shlex.split(serve)) as (address, server):
        print("| clients | frames/s | engine alone | share | key p50, p95, ms | server, MB |")
        print("|---:|---:|---:|---:|---:|---:|")
        for count in map(int, clients.split(",")):
            frames, waits = asyncio.run(_load(address, count, seconds, pace))
            alone = min(_alone(bundle, count), count * pace)
            p50, p95 = np.percentile(waits or [np.nan], [50, 95]) * 1e3
            memory = _megabytes(server)
            print(
                f"| {count} | {frames:.0f} | {alone:.0f} | {frames / alone:.0%} | {p50:.0f}, "
                f"{p95:.0f} | {memory:.0f} |"
            )
        if joins:
            before = _megabytes(server)
            asyncio.run(_come_and_go(address, joins))
            after = _megabytes(server)
            print(f"\n{joins} players came and went: {before:.1f} MB before, {after:.1f} MB after")
        if soak:
            count = max(map(int, clients.split(",")))
            early, late, frames = asyncio.run(_soak(address, count, soak, pace, server))
            print(
                f"\n{count} players for {soak:g} minutes, {frames:.0f} frames/s: {early:.1f} MB "
                f"after {SETTLED:g} minutes, {late:.1f} MB at the end, {late / early - 1:+.2%}"
            )


@contextlib.contextmanager
def _serving(bundle: Path, pace: float, more: list[str]) -> Iterator[tuple[str, psutil.Process]]:
    """A server of its own, its address and process."""
    command = ["serve", str(bundle), "--port", "0", "--sessions", "64", "--pace", str(pace), *more]
    server = subprocess.Popen(
        [sys.executable, "-m", "wmdeploy.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = next((line for line in server.stdout if "http://" in line), None)
        if address is None:
            raise WmdeployError(f"{bundle}: no server; run `wmdeploy serve {bundle}` to see why")
        yield address.split("http://")[1].split("/")[0].split()[0], psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def _megabytes(server: psutil.Process) -> float:
    """Resident memory of it and what it has started."""
    processes = [server, *server.children(recursive=True)]
    return sum(process.memory_info().rss for process in processes) / 1e6


async def _soak(
    address: str, count: int, minutes: float, pace: float, server: psutil.Process
) -> tuple[float, float, float]:
    """Memory once it has settled and at the end, MB; frames per second."""
    playing = asyncio.create_task(_load(address, count, 60 * minutes, pace))
    await asyncio.sleep(60 * SETTLED)
    early = _megabytes(server)
    await asyncio.sleep(60 * (minutes - SETTLED))
    late = _megabytes(server)
    frames, _ = await playing
    return early, late, frames


async def _load(address: str, count: int, seconds: float, pace: float) -> tuple[float, list[float]]:
    """Frames per second of all clients together, and seconds from keys to frames that obey them."""
    url = f"ws://{address}/play?v={VERSION}&start=0"
    sockets = [await connect(url, compression=None, open_timeout=60) for _ in range(count)]
    counted_from = time.perf_counter() + WARM
    span = counted_from, counted_from + seconds
    found = await asyncio.gather(*(_play(socket, span, pace) for socket in sockets))
    frames = sum(number for number, _ in found)
    return frames / seconds, [wait for _, waits in found for wait in waits]


async def _play(
    socket: ClientConnection, span: tuple[float, float], pace: float
) -> tuple[int, list[float]]:
    counted_from, until = span
    frames, newest, waits = 0, 0, list[float]()
    sent: dict[int, float] = {}

    async def press() -> None:
        while True:
            number = len(sent) + 1
            sent[number] = time.perf_counter()
            await socket.send(write_command(Command("keys", (random.randrange(3), number))))
            await asyncio.sleep(random.uniform(2, 6) / pace)

    pressing = asyncio.create_task(press())
    while (now := time.perf_counter()) < until:
        with contextlib.suppress(TimeoutError):
            message = await asyncio.wait_for(socket.recv(), until - now)
            if isinstance(message, str):
                continue
            header, now = HEADER.unpack_from(message), time.perf_counter()
            await socket.send(write_command(Command("seen", (header[NUMBER],))))
            if now >= counted_from:
                frames += 1
                waits += [now - sent[n] for n in range(newest + 1, header[OBEYED] + 1)]
            newest = max(newest, header[OBEYED])
    pressing.cancel()
    await socket.close()
    return frames, waits


async def _come_and_go(address: str, joins: int) -> None:
    for _ in range(joins):
        url = f"ws://{address}/play?v={VERSION}&start=0"
        async with connect(url, compression=None, open_timeout=60) as socket:
            while isinstance(await socket.recv(), str):
                pass


def _alone(bundle: Path, rows: int, seconds: float = 5) -> float:
    """Frames per second that the engine makes of so many rows, in chunks as a server does."""
    opened = Bundle.open(bundle)
    backend = load_backend("ort-cpu", opened)
    start = find_world(backend, [], ReadOptions(), None, bundle=opened, remarks=[]).starts[0]
    pool = Pool(backend, rows)
    all_rows = [pool.add(start.frames, start.actions) for _ in range(rows)]
    action = None if backend.programs.action is None else 0
    made, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        for at in range(0, rows, CHUNK):
            made += len(pool.step(all_rows[at : at + CHUNK], action))
    return made / took


if __name__ == "__main__":
    run_study(main)
