"""Headless Chromium for the report's tests: offline, and every problem of a page is remembered."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--proxy-server=127.0.0.1:9",  # a dead proxy: a request that leaves the machine fails, and is seen
    "--proxy-bypass-list=<-loopback>;127.0.0.1",
)
READY = "body.ready"
IN_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium at /usr/bin/chromium"),
]
"""Marks of what drives it."""


def in_browser(test: Any) -> Any:
    """Mark one test."""
    for mark in IN_BROWSER:
        test = mark(test)
    return test


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser for several pages."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


AGAIN = """async (address) => {
    const gallery = { "gallery-relevance": "", "gallery-sort": "central", "gallery-keep": "all" };
    for (const [id, value] of Object.entries({ map: "bwr", scaling: "sample", ...gallery })) {
        const control = document.getElementById(id);
        if (control.value === value) continue;
        control.value = value;
        control.dispatchEvent(new Event("change"));
    }
    const opacity = document.getElementById("opacity");
    opacity.value = "90";
    opacity.dispatchEvent(new Event("input"));
    document.querySelector("#view [data-value=overlay]").click();
    document.activeElement?.blur();
    spray.set({ colour: "findings", picture: null, other: null, sample: null });
    spray.set({ selection: new Uint32Array(0), origin: "none" });
    history.replaceState(null, "", address || "#class=");
    spray.state.group = null; // as at the start, the first class is shown
    await spray.router.follow();
}"""
"""Everything but verdicts as it was when the page was opened."""


class Visit:
    """An open report: its page, and everything that went wrong on it."""

    def __init__(
        self, browser: Any, url: str, *, width: int = 1440, height: int = 900, **context: Any
    ) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, **context)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.home = url.partition("#")[0] if url.startswith("http") else "file:"
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("dialog", self._asked)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.set_default_timeout(20_000)
        self.page.goto(url)
        self.page.wait_for_selector(READY)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def _asked(self, dialog: Any) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    @property
    def outside(self) -> list[str]:
        """Requests that left the file, or the server that the page came from."""
        return [url for url in self.requests if not url.startswith((self.home, "data:", "blob:"))]

    def state(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        return self.page.evaluate(expression)

    def settled(self, expression: str) -> None:
        """Wait until an expression is true: checked once per frame by the page itself, no sleeping."""
        self.page.evaluate(
            f"""() => new Promise((resolve, reject) => {{
                const last = performance.now() + 15000;
                const look = () => {{
                    if ({expression}) resolve(true);
                    else if (performance.now() > last) reject(new Error({json.dumps(expression)}));
                    else requestAnimationFrame(look);
                }};
                look();
            }})"""
        )

    def pixels(self, selector: str, index: int = 0) -> np.ndarray:
        """What the screen shows of an element, uint8 [y, x, 3]."""
        shot = self.page.locator(selector).nth(index).screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))

    def again(self, address: str = "", width: int = 1440, height: int = 900) -> Visit:
        """The page as if it had just been opened, for tests that leave no verdicts: that takes no second."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.mouse.move(1, 1)
        self.page.evaluate(AGAIN, address)
        return self

    def check(self) -> None:
        """Fails if anything went wrong on the page since it was opened."""
        assert [*self.problems, *self.page.evaluate("spray.problems")] == []
        assert self.outside == []

    def close(self) -> None:
        """Close the page; fails if anything went wrong on it, or if it asked for anything outside."""
        problems = [*self.problems, *self.page.evaluate("spray.problems")]
        outside = self.outside
        self.context.close()
        assert problems == []
        assert outside == []


def place_of(v: Visit, position: int) -> list[float]:
    """Where on the screen the dot of a position is, as it is drawn."""
    found: list[float] = v.state(
        f"""(() => {{
            const view = spray.figures.embedding;
            const points = view.model.document.get_model_by_name("points");
            const box = document.getElementById("figure-embedding").getBoundingClientRect();
            const {{ x_scale, y_scale }} = view.frame;
            const i = {position};
            return [box.x + x_scale.compute(points.data.x[i]), box.y + y_scale.compute(points.data.y[i])];
        }})()"""
    )
    return found


@contextmanager
def serving(store: Any) -> Iterator[str]:
    """The address of a server for a store, which runs in a thread of its own."""
    import asyncio
    import threading

    from reports.server import start

    ready = threading.Event()
    place: dict[str, Any] = {}

    def go() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        place["server"] = start(store, port=0)
        ready.set()
        place["server"].io_loop.start()

    thread = threading.Thread(target=go)
    thread.start()
    assert ready.wait(30)
    server = place["server"]
    try:
        yield f"http://127.0.0.1:{server.port}/"
    finally:
        server.io_loop.add_callback(server.io_loop.stop)
        thread.join(20)
        server.stop()


def near(pixels: np.ndarray, colour: tuple[int, int, int], within: int = 40) -> int:
    """How many pixels have about this colour."""
    distance = np.abs(pixels.astype(int) - np.array(colour)).max(axis=-1)
    return int((distance <= within).sum())
