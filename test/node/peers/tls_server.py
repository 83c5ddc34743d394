"""An asyncio echo server over TLS: scenario, certificate file, key file. Prints its port."""
import asyncio
import ssl
import sys

scenario, certificate, key = sys.argv[1], sys.argv[2], sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)


async def serve(reader, writer):
    if scenario == "starttls":
        assert await reader.readline() == b"STARTTLS\r\n"
        writer.write(b"go ahead\r\n")
        await writer.drain()
        await writer.start_tls(context)
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def main():
    secure = None if scenario == "starttls" else context
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=secure)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
