"""The service as an ASGI app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from retailrec import __version__
from retailrec.serving import api, problems
from retailrec.serving.guard import Guard
from retailrec.serving.pages import routes as pages
from retailrec.serving.service import Service

_LOG = logging.getLogger("retailrec.serving")
_ABOUT = """
Lists of offers for one shopper at a time, made from the receipts known now.

Every answer names the model, the present it counted from, its level (personal, segment, popular, none)
and why. Errors are problem details (RFC 9457) with the request's id.
"""


def make_app(service: Service) -> FastAPI:
    """The app of a service that is not started yet; its lifespan starts and stops it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, service.start)
        warming = loop.run_in_executor(None, service.warm_up)
        warming.add_done_callback(_warmed)
        yield
        await asyncio.wait([warming])
        await loop.run_in_executor(None, service.stop)

    app = FastAPI(
        title="retailrec",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    problems.install(app)
    app.include_router(api.routes(service))
    if service.settings.pages:
        app.include_router(pages.routes(service))
    app.add_middleware(Guard, service=service)
    return app


def _warmed(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and future.exception() is not None:
        _LOG.error("warm-up failed; the service stays not ready", exc_info=future.exception())
