"""Pages in a real browser: a server of a folder on this machine, Debian's chromium by playwright, and all that a page
asks for and complains of. Tests skip where one of these is missing."""

import contextlib
import functools
import http.server
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
PATIENCE = 300_000  # milliseconds, on a busy machine


class _Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError):  # a page that was closed while it loaded
            super().handle()


@contextlib.contextmanager
def served(folder):
    """Gives the address of a folder, http://127.0.0.1:port/."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def chromium(*arguments):
    """Gives a headless browser; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    playwright.expect.set_options(timeout=PATIENCE)
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("no chromium here: Debian has it, or CHROMIUM names one")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", *arguments])
        yield browser
        browser.close()


@functools.cache
def _axe():
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")


class Watched:
    """A page, `page`, what it `asked` for, and what went `wrong`: complaints, failed requests, other hosts."""

    def __init__(self, browser, address, width=1280, scheme="light", name="", **context):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **context)
        self.context.set_default_timeout(PATIENCE)
        self.page, self.wrong, self.asked = self.context.new_page(), [], set()
        self.page.on("console", self._told)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        # Of the context, not the page: those of its workers, too.
        self.context.on("requestfailed", self._failed)
        self.context.on("response", self._answered)
        self.context.on("request", lambda request: self._asked(request.url, address))
        self.page.goto(f"{address}{name}", wait_until="load")

    def _told(self, message):
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def _answered(self, answer):
        if answer.status >= 400:
            self.wrong.append(f"{answer.status}: {answer.url}")

    def _asked(self, url, address):
        self.asked.add(url.removeprefix(address))
        if not url.startswith((address, "data:", "blob:")):
            self.wrong.append(f"another host: {url}")

    def _failed(self, request):
        if not request.url.startswith("blob:"):  # a player that is taken away ends what it read of the page itself
            self.wrong.append(f"failed: {request.url}")

    def width(self):
        """Of what is to be scrolled."""
        return self.page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")

    def faults(self):
        """What axe-core finds, a line each; of what it leaves open, text in the very colour of its ground."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(_axe())
        result = self.page.evaluate("axe.run(document, {resultTypes: ['violations', 'incomplete'], preload: false})")
        found = result["violations"] + [
            rule | {"nodes": [node for node in rule["nodes"] if "equalRatio" in json.dumps(node["any"])]}
            for rule in result["incomplete"]
            if rule["id"] == "color-contrast"
        ]
        return [
            f"{rule['id']} ({rule['impact']}): {node['html'][:200]} {node['failureSummary'][:300]}"
            for rule in found
            for node in rule["nodes"][:3]
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()
