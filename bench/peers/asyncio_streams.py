"""asyncio streams: MODE BYTES SIZE, and --uvloop to run on uvloop."""

import asyncio
import gc
import os
import signal
import sys

arguments = [a for a in sys.argv[1:] if a != "--uvloop"]
use_uvloop = "--uvloop" in sys.argv
mode = arguments[0]
number = int(arguments[1]) if len(arguments) > 1 else 0
size = int(arguments[2]) if len(arguments) > 2 else 64
REPLY = b"r" * (size - 1) + b"\n"


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def echo_timeouts(reader, writer):
    while True:
        async with asyncio.timeout(30):
            data = await reader.read(65536)
        if not data:
            return
        writer.write(data)
        async with asyncio.timeout(30):
            await writer.drain()


async def lines(reader, writer):
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


async def send(reader, writer):
    chunk = b"x" * size
    for _ in range(number // size):
        writer.write(chunk)
        await writer.drain()


async def receive(reader, writer):
    received = 0
    while received < number:
        data = await reader.read(65536)
        if not data:
            return
        received += len(data)
    writer.write(b"%d\n" % received)
    await writer.drain()


async def requests(reader, writer):
    await reader.readline()
    writer.write(REPLY)
    await writer.drain()


SERVERS = {
    "echo": echo,
    "echo-timeouts": echo_timeouts,
    "lines": lines,
    "send": send,
    "receive": receive,
    "writes": send,
    "requests": requests,
}


async def serve(handler):
    async def on_connection(reader, writer):
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass  # The generator resets its connections when its time is over.
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                pass

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, backlog=1024)
    loop = asyncio.get_running_loop()

    def on_stdin():
        # At the end of input the harness is gone.
        if not os.read(0, 4096):
            os._exit(0)

    loop.add_reader(0, on_stdin)
    # Before memory is read, garbage is collected.
    loop.add_signal_handler(signal.SIGUSR2, gc.collect)
    print("PORT", server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def run(main):
    if use_uvloop:
        import uvloop

        uvloop.install()
    asyncio.run(main)


if mode in SERVERS:
    run(serve(SERVERS[mode]))
else:
    print(f"no mode {mode}", file=sys.stderr)
    sys.exit(2)
