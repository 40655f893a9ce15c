"""Run a service until it is told to stop."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import uvicorn

from retailrec.errors import SettingError
from retailrec.serving.app import make_app
from retailrec.serving.service import Service


def run_server(
    service: Service, host: str, port: int, told: Callable[[str], None], patience: int = 15
) -> None:
    """Serve until SIGTERM or SIGINT: what is under way is answered, what waits is written.

    `told` is called with the address when the service listens.

    Raises
    ------
    SettingError
        If the address can't be used, or the folder holds no model.
    """
    service.models.require_any()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # said to be TCP, or asyncio leaves Nagle's algorithm on: heads and bodies would be 40 ms apart
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingError(
            f"--host {host} --port {port} can't be used: {error}. Name another port."
        ) from error
    config = uvicorn.Config(
        make_app(service),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=patience,
        timeout_keep_alive=30,
        limit_concurrency=1000,
    )
    shown = f"[{host}]" if ":" in host else host
    told(f"http://{shown}:{listener.getsockname()[1]}")
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        sys.exit(1)
