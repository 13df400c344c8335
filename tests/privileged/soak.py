"""Random faults of every sort for as long as you like, from a seed that is printed: `make soak MINUTES=60`.

The real server on an ext4 of its own, clients that never stop, the fake Mixpanel, and a schedule of faults that only
the seed decides. Eras of ten minutes take turns: in one the faults are such that the server lives through them, so that
its memory can be watched; in the other it is killed, cut off and stopped as well. At the end everything is drained and
judged. Exits with 0 only if nothing is wrong. Needs root, and what tools.sh installs.
"""

from __future__ import annotations

import argparse
import errno
import json
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from faultshim import SYNC, WRITE, Shim
from file_systems import FileSystem, loop_mounted, mount_for_ourselves
from load import Load
from long_reader import reading
from programs import WALBATCH, Program, Site, eventually, site

CLIENTS = 2
ERA_S = 600.0
SETTINGS = {
    "flush_interval": "500ms",
    "batch_max": 200,
    "retry_base": "100ms",
    "retry_max": "2s",
    "mixpanel_timeout": "3s",
    "retention": "5m",
    "min_free_disk": "8MiB",
    "shutdown_grace": "5s",
}


@dataclass
class Soak:
    """One run: the faults, by name, and what was seen of the server's memory."""

    here: Site
    disk: FileSystem
    shim: Shim
    chance: random.Random
    server: Program
    sink: Program
    done: Counter[str] = field(default_factory=Counter)
    memory: dict[int, list[tuple[float, int]]] = field(default_factory=dict)
    """KiB of each process, with the seconds since the beginning."""

    def calm(self, least_s: float, most_s: float) -> None:
        """Let some time pass."""
        threading.Event().wait(self.chance.uniform(least_s, most_s))

    def start(self) -> None:
        """Start the server, and wait until it accepts records."""
        self.server = self.here.start(*self.shim.entry(WALBATCH, "serve"))
        eventually(lambda: self.here.is_ready(self.server), "the server is ready", 60)

    # What the server lives through.

    def pause(self) -> None:
        """Stop the whole process for some seconds, as a virtual machine is paused."""
        self.server.signal(signal.SIGSTOP)
        self.calm(0.5, 8)
        self.server.signal(signal.SIGCONT)

    def one_failed_sync(self) -> None:
        """Let one fsync fail."""
        self.shim.fail(errno.EIO, SYNC)
        self.calm(0.5, 2)
        self.shim.disarm()

    def one_failed_write(self) -> None:
        """Let one write fail."""
        self.shim.fail(errno.EIO, WRITE, at=self.chance.randrange(1, 20))
        self.calm(0.5, 2)
        self.shim.disarm()

    def slow_syncs(self) -> None:
        """Let each fsync take long."""
        self.shim.delay(self.chance.uniform(0.02, 0.5), SYNC)
        self.calm(2, 8)
        self.shim.disarm()

    def hung_sync(self) -> None:
        """Let fsync hang for some seconds."""
        self.shim.hang(SYNC)
        self.calm(1, 6)
        self.shim.disarm()

    def full_disk(self) -> None:
        """Fill the disk to the last block."""
        ballast = self.disk.fill()
        self.calm(2, 8)
        ballast.unlink()

    def clock_jump(self) -> None:
        """Set the wall clock ahead or back."""
        self.shim.set_clock(self.chance.choice([-86_400, -3600, -60, 60, 3600, 86_400]))
        self.calm(1, 6)
        self.shim.set_clock(0)

    def long_reader(self) -> None:
        """Hold a read transaction on the database."""
        with reading(self.here.data / "events.db"):
            self.calm(1, 10)

    def backup(self) -> None:
        """Copy the log while it is in use."""
        copy = self.here.path / "backup.db"
        self.here.run("backup", str(copy))
        copy.unlink()

    def questions(self) -> None:
        """Ask what people ask."""
        for command in (("stats",), ("dead", "list"), ("doctor",)):
            self.here.run(*command, check=False)

    def destination_down(self) -> None:
        """Let nobody listen at the destination."""
        self.sink.kill()
        self.calm(1, 15)
        self.sink = self.here.sink()

    def destination_erratic(self) -> None:
        """Let the destination fail now and then."""
        self.sink.kill()
        rate = str(self.chance.uniform(0.05, 0.6))
        self.sink = self.here.sink(
            "--fail-rate", rate, "--latency", "20ms", "--seed", str(self.chance.randrange(10**6))
        )
        self.calm(3, 15)
        self.sink.kill()
        self.sink = self.here.sink()

    # What ends the server.

    def kill(self) -> None:
        """SIGKILL."""
        self.server.kill()
        self.start()

    def kill_during_recovery(self) -> None:
        """SIGKILL, and once more while it starts."""
        self.server.kill()
        self.server = self.here.start(*self.shim.entry(WALBATCH, "serve"))
        self.calm(0.05, 0.8)
        self.kill()

    def stop(self) -> None:
        """SIGTERM."""
        self.server.stop()
        self.start()

    def power_cut(self) -> None:
        """Cut the power of the disk."""
        self.disk.power_cut()
        self.server.kill()
        self.disk.unmount()
        self.disk.mount()
        self.start()

    def broken_disk(self) -> None:
        """Let every fsync fail, until the server gives up."""
        self.shim.fail(errno.EIO, SYNC, times=0)
        assert self.server.wait(60) == 74, self.server.output()
        self.shim.disarm()
        self.start()

    def read_only(self) -> None:
        """Let the kernel turn the disk read-only."""
        self.disk.fail()
        assert self.server.wait(60) == 74, self.server.output()
        self.disk.unmount()
        self.disk.repair()  # as every system does before it mounts a file system that was left with errors
        self.disk.mount()
        self.start()

    @property
    def survived(self) -> list[Callable[[], None]]:
        """Faults through which the server lives."""
        return [
            *(self.pause, self.one_failed_sync, self.one_failed_write, self.slow_syncs, self.hung_sync, self.full_disk),
            *(self.clock_jump, self.long_reader, self.backup, self.questions),
            *(self.destination_down, self.destination_erratic),
        ]

    @property
    def deadly(self) -> list[Callable[[], None]]:
        """Faults that end it."""
        return [self.kill, self.kill_during_recovery, self.stop, self.power_cut, self.broken_disk, self.read_only]

    def run(self, duration_s: float) -> None:
        """Inject until the time is over."""
        begun_s = time.monotonic()
        while (now_s := time.monotonic() - begun_s) < duration_s:
            gentle = int(now_s / ERA_S) % 2 == 0
            fault = self.chance.choice(self.survived if gentle else self.survived + 3 * self.deadly)
            print(f"{now_s:7.1f} s  {fault.__name__}", flush=True)
            fault()
            self.done[fault.__name__] += 1
            self.calm(1, 5)
            pid = self.server.process.pid
            status = Path(f"/proc/{pid}/status").read_text()
            kib = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
            self.memory.setdefault(pid, []).append((now_s, kib))

    def growth(self) -> list[tuple[float, float, float]]:
        """Return minutes, and MiB in the second and in the last quarter, of each process that lived five minutes."""
        found = []
        for samples in self.memory.values():
            life_s = samples[-1][0] - samples[0][0]
            if life_s >= ERA_S / 2:
                quarter = len(samples) // 4
                early = statistics.median(kib for _, kib in samples[quarter : 2 * quarter])
                late = statistics.median(kib for _, kib in samples[-quarter:])
                found.append((round(life_s / 60, 1), round(early / 1024, 1), round(late / 1024, 1)))
        return found


def main() -> int:
    """Run, print the account as JSON, and say whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    mount_for_ourselves()
    with tempfile.TemporaryDirectory(prefix="walbatch-soak-") as folder:
        root = Path(folder)
        with (
            loop_mounted(root / "disk", "ext4", 256) as disk,
            site(root, **SETTINGS, data_dir=disk.path / "data") as here,
        ):
            here.data = disk.path / "data"
            shim = Shim(root)
            soak = Soak(here, disk, shim, random.Random(options.seed), None, here.sink())  # type: ignore[arg-type]
            soak.start()
            load = Load(here, CLIENTS, "--calls-per-s", "4")
            soak.run(options.minutes * 60)
            load.end()
            verdict = load.settled()
            growth = soak.growth()
            print(json.dumps({"seed": options.seed, "minutes": options.minutes, "faults": soak.done, "memory": growth}))
            print(verdict.summary())
            for complaint in verdict.complaints():
                print(complaint, file=sys.stderr)
            grew = [entry for entry in growth if entry[2] > 1.2 * entry[1]]
            return 1 if verdict.complaints() or grew else 0


if __name__ == "__main__":
    sys.exit(main())
