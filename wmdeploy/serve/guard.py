"""Who may speak to the server at all: checked before any route, for pages and WebSockets alike.

A page of any site may open a WebSocket to this machine, and a name of any site may be made to lead
here (DNS rebinding): so the Host and the Origin of every request are looked at, and a token, where
there is one.
"""

import secrets
from collections.abc import Collection
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
OPEN = ("/", "/health")  # without a token, as all of the page: nothing there is anybody's
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """An ASGI middleware.

    Args:
        hosts: names under which the server may be asked for, without ports; empty: any.
        origins: other origins whose pages may connect, such as "https://example.org".
        token: what every request but those for the page itself has as `?token=`; None: nothing.
    """

    def __init__(
        self, app: ASGIApp, hosts: Collection[str], origins: Collection[str], token: str | None
    ) -> None:
        self.app, self.hosts, self.origins, self.token = app, hosts, origins, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        fault = self._fault(scope)
        if fault is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": fault})  # 403
        else:
            response = PlainTextResponse(f"{fault}\n", 403)
            await response(scope, receive, _with_headers(send))

    def _fault(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self.hosts and name.lower() not in self.hosts:
            return f"this server is not {name[:80]!r}"
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and urlsplit(origin).netloc != host:
            return f"pages of {origin[:80]!r} may not connect"
        if self.token is None or _is_open(scope["path"]):
            return None
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return "the token is missing or another one; open the address that was printed"
        return None


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith("/page/")


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return sent
