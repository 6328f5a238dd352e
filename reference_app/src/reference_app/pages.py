"""A domain's page: a few files, read once, under a policy that lets them load nothing from elsewhere."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path

from fastapi import APIRouter, Request, Response

from reference_app.services import Domain

INDEX = "index.html"
_HEADERS = {
    # No inline code or style, no frame around it, no other host; `self` includes the WebSocket on the same address.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # Asked for again each time, which an ETag makes cheap: a release shows at once.
    "Cache-Control": "no-cache",
}


def routes(domain: Domain) -> APIRouter:
    """GET / and GET /<file> for each file of the domain's `pages`."""
    router = APIRouter()
    folder = domain.pages
    if folder is None:
        return router
    for path in sorted(folder.iterdir()):
        _add(router, f"/{path.name}", path)
        if path.name == INDEX:
            _add(router, "/", path)
    return router


def _add(router: APIRouter, route: str, path: Path) -> None:
    body = path.read_bytes()
    headers = _HEADERS | {"ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"

    @router.api_route(route, methods=["GET", "HEAD"], include_in_schema=False)
    async def serve(request: Request) -> Response:
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if headers["ETag"] in known:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=kind)
