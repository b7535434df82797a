"""Who may ask: this machine alone, or whoever holds the token; pages of other origins never; bodies of bounded size."""

from __future__ import annotations

import hmac
import ipaddress
import json
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

MEGABYTE = 2**20
BODY = 256 * 1024  # bytes of a JSON request
UPLOADS = {"/api/photos": 24 * MEGABYTE, "/api/motions": 32 * MEGABYTE, "/api/avatars": 256 * MEGABYTE}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def is_loopback(host: str) -> bool:
    """Whether an address to bind to is reachable from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """An ASGI layer around the application.

    Args:
        app: what is guarded
        token: what a request must carry (``?token=``, the cookie that the page gets, or ``Authorization: Bearer``);
            None on a loopback address, where the Host header must name this machine instead, so that no web page can
            reach the server under a name of its own (DNS rebinding)
    """

    def __init__(self, app: Any, token: str | None) -> None:
        self.app, self.token = app, token
        self.cookie = "next3d_token"

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode("latin-1"))
        status, reason = self.refusal(scope, headers, query)
        if reason:
            await refuse(scope, receive, send, status, reason)
            return
        keep = self.token is not None and "token" in query

        async def guarded_send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                if keep:
                    value = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                    extra.append((b"set-cookie", value.encode()))
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        await self.app(scope, receive, guarded_send)

    def refusal(self, scope: dict[str, Any], headers: dict[str, str], query: dict[str, list[str]]) -> tuple[int, str]:
        """Status and reason, or an empty reason."""
        host = headers.get("host", "")
        if self.token is None and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return 403, f"this server answers to localhost only, not to '{host[:80]}'"
        origin = headers.get("origin")
        if origin is not None and (urlsplit(origin).netloc != host or not host):
            return 403, "cross-origin requests are refused"
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if foreign and headers.get("sec-fetch-mode") != "navigate":
            return 403, "cross-origin requests are refused"
        if self.token is not None and not self.holds_token(headers, query):
            return 401, "this needs the address with its token, as next3d view printed it"
        return self.body_refusal(scope, headers)

    def body_refusal(self, scope: dict[str, Any], headers: dict[str, str]) -> tuple[int, str]:
        """Bodies must announce their length, and it is bounded."""
        if "transfer-encoding" in headers:
            return 411, "send the body with a Content-Length"
        length = headers.get("content-length", "0")
        bound = UPLOADS.get(scope["path"], BODY)
        if not length.isdecimal() or int(length) > bound:
            return 413, f"the body is larger than {bound:,} bytes"
        return 200, ""

    def holds_token(self, headers: dict[str, str], query: dict[str, list[str]]) -> bool:
        assert self.token is not None
        offered = list(query.get("token", []))
        if headers.get("authorization", "").lower().startswith("bearer "):
            offered.append(headers["authorization"][7:].strip())
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        if self.cookie in cookies:
            offered.append(cookies[self.cookie].value)
        return any(hmac.compare_digest(each.encode(), self.token.encode()) for each in offered)


async def refuse(scope: dict[str, Any], receive: Any, send: Any, status: int, reason: str) -> None:
    """Answer a request that is not let through."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": reason[:120]})
        return
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))  # the body, if any, is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
