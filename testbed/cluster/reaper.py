"""Deletes a kind cluster when its supervisor is gone, however that ended: containers do not die with a process.

Run as a file with the standard library only (`python -I -S reaper.py SOCKET COMMAND...`). It holds a connection to the
supervisor and waits for its end; what the kernel closes after a `kill -9`, too. The command runs twice: what the engine
was still creating when the first one ran is found by the second.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time

AGAIN_AFTER = 5.0
LONGEST = 180.0


def main() -> None:
    """Wait, then run the command."""
    folder, command = sys.argv[1], sys.argv[2:]
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    descriptor = os.open(folder, os.O_DIRECTORY | os.O_PATH)
    with contextlib.suppress(OSError):  # it is gone already
        # The path of a socket is limited to 108 bytes; through the folder's descriptor it is always short.
        connection.connect(f"/proc/self/fd/{descriptor}/supervisor.sock")
        os.close(descriptor)
        sys.stdout.write("watching\n")
        sys.stdout.close()
        connection.recv(1)
    for pause in (AGAIN_AFTER, 0.0):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=LONGEST,
                check=False,
            )
        time.sleep(pause)


if __name__ == "__main__":
    main()
