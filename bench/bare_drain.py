"""The least that a drain has to do: bare_drain.py DATABASE PORT reads 2,000 rows, joins, packs and posts them."""

from __future__ import annotations

import gzip
import sys
from contextlib import closing
from pathlib import Path

import httpx

from walbatch.sinks.mixpanel import GZIP_LEVEL
from walbatch.wal import driver

ROWS = 2000


def main(database: Path, port: int) -> None:
    """Post everything, one request after the other."""
    seq = 0
    with closing(driver.open_reader(database)) as connection, httpx.Client(trust_env=False) as client:
        query = f"SELECT seq, payload FROM events WHERE seq > ? ORDER BY seq LIMIT {ROWS}"  # noqa: S608  a number
        while found := connection.execute(query, (seq,)).fetchall():
            seq = found[-1][0]
            body = gzip.compress(f"[{','.join(payload for _, payload in found)}]".encode(), GZIP_LEVEL)
            client.post(
                f"http://127.0.0.1:{port}/import", content=body, headers={"Content-Encoding": "gzip"}
            ).raise_for_status()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
