"""asyncio's StreamReader in memory, fed by hand: CASE BYTES."""

import asyncio
import json
import resource
import sys
import time

name = sys.argv[1]
total_bytes = int(sys.argv[2])
BATCH = 1024 * 1024
PIECE = 65521  # A prime, so that messages are cut anywhere.


def message():
    if name == "frames":
        return (60).to_bytes(4, "big") + b"f" * 60
    if name == "readUntil":
        return b"GET / HTTP/1.1\r\nHost: example.org\r\nX-Padding: ".ljust(252, b"p") + b"\r\n\r\n"
    return b"l" * 63 + b"\n"


one = message()
batch = one * (BATCH // len(one))
pieces = [batch[i : i + PIECE] for i in range(0, BATCH, PIECE)]


def fed():
    reader = asyncio.StreamReader()
    for piece in pieces:
        reader.feed_data(piece)
    reader.feed_eof()
    return reader


async def read_line(reader):
    messages = length = 0
    while line := await reader.readline():
        messages += 1
        length += len(line)
    return messages, length


async def lines(reader):
    messages = length = 0
    async for line in reader:
        messages += 1
        length += len(line)
    return messages, length


async def frames(reader):
    messages = length = 0
    for _ in range(BATCH // len(one)):
        head = await reader.readexactly(4)
        body = await reader.readexactly(int.from_bytes(head, "big"))
        messages += 1
        length += len(head) + len(body)
    return messages, length


async def read_until(reader):
    messages = length = 0
    for _ in range(BATCH // len(one)):
        head = await reader.readuntil(b"\r\n\r\n")
        messages += 1
        length += len(head)
    return messages, length


CASES = {"readLine": read_line, "lines": lines, "frames": frames, "readUntil": read_until}


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


def report(messages, length, errors, seconds, before, **more):
    user, system = cpu()
    print(
        json.dumps(
            {
                "messages": messages,
                "bytes": length,
                "errors": errors,
                "seconds": seconds,
                "user": user - before[0],
                "system": system - before[1],
                **more,
            }
        )
    )


async def measure(work):
    batches = max(1, round(total_bytes / BATCH))
    for _ in range(max(4, batches // 4)):
        await work(fed())
    errors = messages = 0
    before = cpu()
    started = time.perf_counter()
    for _ in range(batches):
        found, length = await work(fed())
        messages += found
        if found != BATCH // len(one) or length != BATCH:
            errors += 1
    report(messages, batches * BATCH, errors, time.perf_counter() - started, before)


async def time_line(length):
    piece = b"x" * 1024
    started = time.perf_counter()
    reader = asyncio.StreamReader(limit=length + 1)
    line = asyncio.create_task(reader.readline())
    for _ in range(length // 1024):
        reader.feed_data(piece)
        await asyncio.sleep(0)  # Every piece arrives in a turn of its own.
    reader.feed_data(b"\n")
    assert len(await line) == length + 1
    return time.perf_counter() - started


async def measure_long_line():
    await time_line(4 * BATCH)
    once = await time_line(total_bytes)
    before = cpu()
    twice = await time_line(2 * total_bytes)
    report(2 * total_bytes // 1024, 2 * total_bytes, 0, twice, before, growth=twice / once)


if name == "long-line":
    asyncio.run(measure_long_line())
elif name in CASES:
    asyncio.run(measure(CASES[name]))
else:
    print(f"no case {name}", file=sys.stderr)
    sys.exit(2)
