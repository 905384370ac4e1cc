"""The server: what it listens on, what it refuses, and what it never does."""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from utils.errors import UserError
from webapp.events import MAX_WAITING
from webapp.interface import CSS, THEME

MAX_FILE = 100_000_000  # bytes of an upload
MAX_BODY = 5 * MAX_FILE  # of a request, which may hold several uploads
LOOPBACK = ["localhost", "127.0.0.1", "[::1]"]
SESSIONS = 100  # pages whose state is kept
HEADERS = {
    # the page fetches nothing from elsewhere, and no other page can frame it
    b"content-security-policy": b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}


class Guard:
    """Adds HEADERS to responses, and refuses Gradio's addresses that fetch from other servers."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if any(part in scope["path"].lower() for part in ("/file=http", "/proxy=", "/file/http")):
            return await PlainTextResponse("Not found", status_code=404)(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS.items()]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at ``host``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def serving(page: gr.Blocks, host: str, port: int) -> Iterator[str]:
    """Inside, the page is served; gives its address. Raises UserError where it cannot listen there."""
    middleware: list[Any] = [Middleware(Guard), Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY)]
    if is_loopback(host):  # else a page elsewhere could name this machine, and reach it through a visitor's browser
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, host]))
    try:
        page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            inbrowser=False,
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
            footer_links=[],
            allowed_paths=[],
            max_file_size=MAX_FILE,
            max_threads=2 * MAX_WAITING,
            state_session_capacity=SESSIONS,
            theme=THEME,
            css=CSS,
            app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None, "openapi_url": None},
        )
    except OSError:
        raise UserError(f"cannot listen on {host}:{port}; give another --port or --host") from None
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        page.close(verbose=False)
