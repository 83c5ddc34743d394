"""An asyncio client over TLS of the server under test: scenario, port, CA file."""
import asyncio
import os
import ssl
import sys


async def main():
    scenario, port, ca = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    context = ssl.create_default_context(cafile=ca)
    if scenario == "starttls":
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"STARTTLS\r\n")
        assert await reader.readline() == b"go ahead\r\n"
        await writer.start_tls(context, server_hostname="localhost")
    else:
        if scenario == "tls12":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
    data = bytes(i % 251 for i in range(1 << 20))
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    if scenario == "abrupt":
        # TCP's end without close_notify.
        print("done", flush=True)
        os._exit(0)
    writer.close()
    await writer.wait_closed()
    print("done")


asyncio.run(main())
