"""The pages' addresses. A page that can't be shown says why, in its own frame."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from urllib.parse import parse_qsl, quote

from fastapi import APIRouter, Depends, Request
from jinja2 import PackageLoader
from starlette.responses import RedirectResponse, Response

from retailrec.errors import RetailRecError
from retailrec.report.page import asset, environment
from retailrec.serving.guard import allow
from retailrec.serving.pages.comparison import Values
from retailrec.serving.pages.views import Views
from retailrec.serving.problems import Problem
from retailrec.serving.records import StoreUnavailable
from retailrec.serving.service import Service

PAGES = (
    ("/", "Overview"),
    ("/shopper", "Shopper"),
    ("/item", "Item"),
    ("/sources", "Sources"),
    ("/compare", "Compare"),
    ("/rules", "Rules"),
)
_TITLES = dict(PAGES)
_KINDS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_LONGEST = 2000  # characters of a query's value


def routes(service: Service) -> APIRouter:
    """All pages, over one service."""
    router = APIRouter(include_in_schema=False)
    views = Views(service)
    templates = environment(PackageLoader("retailrec.serving.pages"))
    read, admin = (Depends(allow(scope)) for scope in ("read", "admin"))
    htmx = files("retailrec.serving.pages").joinpath("static", "htmx.min.js").read_bytes()
    static = {"htmx.min.js": htmx} | {name: asset(name).encode() for name in ("style.css", "sort.js")}

    def page(here: str, template: str, values: Values, status: int = 200) -> Response:
        text = templates.get_template(template).render(
            {"here": here, "pages": PAGES, "title": _TITLES[here], "model": service.models.active}
            | values
        )
        return Response(text, status, media_type="text/html")

    def shown(here: str, template: str, view: Callable[[], Values]) -> Response:
        try:
            return page(here, template, view())
        except StoreUnavailable as error:
            return page(here, "trouble.html", {"error": str(error)}, 503)
        except RetailRecError as error:
            return page(here, "trouble.html", {"error": str(error)}, 422)

    def add(path: str, template: str, view: Callable[[Mapping[str, str]], Values]) -> None:
        async def show(request: Request) -> Response:
            query = {name: value[:_LONGEST] for name, value in request.query_params.items()}
            return await service.compute(shown, path, template, lambda: view(query))

        router.add_api_route(path, show, methods=["GET"], dependencies=[read])

    add("/", "overview.html", lambda query: views.overview())
    add("/shopper", "shopper.html", views.shopper)
    add("/item", "item.html", views.item)
    add("/sources", "sources.html", lambda query: views.sources())
    add("/compare", "compare.html", views.compare)
    add("/rules", "rules.html", views.rules)

    @router.post("/rules", dependencies=[admin])
    async def save(request: Request) -> Response:
        try:
            form = dict(
                parse_qsl((await request.body()).decode(), max_num_fields=50, keep_blank_values=True)
            )
        except ValueError as error:
            raise Problem(400, "the form can't be read; open the page again.") from error
        ruleset = form.get("ruleset") or "default"
        error_text = await service.compute(views.save_rules, form)
        if error_text:
            raise Problem(422, error_text)
        return RedirectResponse(f"/rules?ruleset={quote(ruleset, safe='')}&saved=1", 303)

    @router.get("/static/{name}")
    async def static_file(name: str, request: Request) -> Response:
        if name not in static:
            raise Problem(404, "there is no such file.")
        tag = f'"{hashlib.sha256(static[name]).hexdigest()[:16]}"'
        headers = {"etag": tag, "cache-control": "max-age=3600"}
        if request.headers.get("if-none-match") == tag:
            return Response(b"", 304, headers)
        return Response(static[name], 200, headers, media_type=_KINDS[name.rpartition(".")[2]])

    return router
