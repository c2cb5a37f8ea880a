"""A Redis server of the tests' own: in a folder of its own, on a Unix socket, gone with the tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

__all__ = ("REDIS_SERVER", "RedisServer")

REDIS_SERVER = shutil.which("redis-server")


class RedisServer:
    """A server that can be killed and started again, with what it had on its disk.

    Args:
        settings: more of its command line.
    """

    def __init__(self, *settings: str) -> None:
        # Not pytest's tmp_path: the path of a Unix socket has 107 characters at most.
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        self.socket = f"{self._folder.name}/redis.sock"
        self.url = f"unix://{self.socket}"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert REDIS_SERVER is not None
        command = [REDIS_SERVER, "--port", "0", "--unixsocket", self.socket, "--dir", self._folder.name, "--save", ""]
        log = Path(self._folder.name) / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen([*command, *self._settings], stdout=output, stderr=output)
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(self.socket)
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith((b"+PONG", b"-NOAUTH"))
            except OSError:
                return False

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._folder.cleanup()
