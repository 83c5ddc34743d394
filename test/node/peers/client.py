"""An asyncio client of the server under test: one scenario per run, named by the first argument."""
import asyncio
import hashlib
import sys


async def echo(reader, writer):
    writer.write(b"hello world!\n")
    await writer.drain()
    assert await reader.readline() == b"hello world!\n"
    writer.write_eof()
    assert await reader.read() == b""


async def half_close(reader, writer):
    data = bytes(i % 251 for i in range(1 << 20))
    writer.write(data)
    writer.write_eof()
    back = await reader.read(-1)
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest(), len(back)


async def lines(reader, writer):
    for i in range(1000):
        writer.write(b"line %d\r\n" % i)
    await writer.drain()
    for i in range(1000):
        assert await reader.readuntil(b"\n") == b"line %d\r\n" % i
    writer.write_eof()
    assert await reader.read() == b""


async def reset(reader, writer):
    writer.write(b"about to go")
    await writer.drain()
    assert await reader.readexactly(11) == b"about to go"
    writer.transport.abort()


async def main():
    scenario, host, port = sys.argv[1], sys.argv[2], sys.argv[3]
    if port == "unix":
        reader, writer = await asyncio.open_unix_connection(host)
    else:
        reader, writer = await asyncio.open_connection(host, int(port))
    if scenario == "reset":
        # A linger time of zero makes the close a reset.
        import socket
        import struct

        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
    await globals()[scenario](reader, writer)
    if scenario != "reset":
        writer.close()
        await writer.wait_closed()
    print("done")


asyncio.run(main())
