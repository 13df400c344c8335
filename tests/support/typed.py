"""Run a command on a terminal of its own, and type an answer to what it asks: typed.py ANSWER COMMAND..."""

from __future__ import annotations

import os
import pty
import sys


def main(answer: str, command: list[str]) -> int:
    """Return the command's exit code; what it shows goes to standard output."""
    pid, terminal = pty.fork()
    if not pid:
        os.execvp(command[0], command)  # noqa: S606  (what is typed on a page of ours)
    os.write(terminal, f"{answer}\n".encode())
    try:
        while shown := os.read(terminal, 4096):
            os.write(sys.stdout.fileno(), shown)
    except OSError:
        pass  # how the end of a terminal looks
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
