"""A destination that answers at once and keeps nothing: null_sink.py PORT. GET /count tells how many records came."""

from __future__ import annotations

import asyncio
import gzip
import sys
import time

import uvloop

received = 0
first_s = last_s = 0.0


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection. Records are counted by a key that every event of the benchmark has exactly once."""
    global received, first_s, last_s  # noqa: PLW0603  one process, one counter
    while head := await next_head(reader):
        lower = head.lower()
        if head.startswith(b"GET"):
            body = f'{{"records": {received}, "seconds": {last_s - first_s}}}'.encode()
        else:
            length = int(lower.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            records = gzip.decompress(await reader.readexactly(length)).count(b'"$insert_id":')
            first_s, last_s = first_s or time.perf_counter(), time.perf_counter()
            received += records
            body = f'{{"code":200,"num_records_imported":{records},"status":"OK"}}'.encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
    writer.close()


async def next_head(reader: asyncio.StreamReader) -> bytes:
    """Return the head of the next request; nothing at the end of the connection."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(answer, "127.0.0.1", port, limit=2**20)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
