"""An asyncio server for the client under test: prints its port, serves one connection, prints what became of it."""
import asyncio
import socket
import struct
import sys


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def lines(reader, writer):
    async for line in reader:
        writer.write(line.upper())
    writer.write(b"that was all, without an end")
    writer.close()
    await writer.wait_closed()


async def reset(reader, writer):
    writer.write(b"last words")
    await reader.readexactly(1)
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    writer.transport.abort()


async def main():
    done = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        try:
            await globals()[sys.argv[1]](reader, writer)
            done.set_result("done")
        except Exception as error:
            done.set_result(repr(error))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    print(await done, flush=True)


asyncio.run(main())
