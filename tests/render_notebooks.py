"""Run the notebooks and write their outputs into them: what scripts draw is put in as a picture.

    python tests/render_notebooks.py [notebooks/03_investigate_a_cluster.ipynb …]

A notebook shows Bokeh figures in frames that bring their own scripts, 1.4 MB each, and sites that show notebooks run
none. So a committed notebook has a picture of each frame in its place, taken in Debian's Chromium.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from browser import READY, chromium
from nbclient import NotebookClient
from PIL import Image, ImageChops

from reports import Inline

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
FRAME = "<iframe srcdoc="
FIGURE = {"width": 960, "height": 640}
REPORT = {"width": 1440, "height": Inline.height}


def render(path: Path, browser: Any) -> None:
    """Run one notebook in an empty folder, and keep what it shows."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran is of no interest
        for output in cell.get("outputs", []):
            html = output.get("data", {}).get("text/html", "")
            if html.startswith(FRAME):
                output["data"] = {"image/png": picture(html, browser), "text/plain": "as a notebook shows it"}
            elif "image/png" in output.get("data", {}):
                output["data"].pop("image/jpeg", None)
    notebook.metadata.pop("language_info", None)
    nbformat.write(notebook, path)


def picture(html: str, browser: Any) -> str:
    """What a browser shows of a frame, without its empty border, as PNG in base64."""
    is_report = f"height:{Inline.height}px" in html[-200:]
    page = browser.new_page(viewport=REPORT if is_report else FIGURE)
    page.set_content(f"<style>body{{margin:0}}</style>{html}")
    frame = page.frame_locator("iframe")
    frame.locator("canvas").first.wait_for()
    if is_report:
        frame.locator(READY).wait_for()
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_timeout(500)  # Bokeh draws when its frame has got its size
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    box = ImageChops.difference(shot, Image.new("RGB", shot.size, "white")).getbbox()
    content = io.BytesIO()
    cut = shot.crop(box)
    # A palette of a page full of photographs would give findings each other's colours.
    (cut if is_report else cut.quantize(128)).save(content, "PNG", optimize=True)
    return base64.b64encode(content.getvalue()).decode("ascii")


if __name__ == "__main__":
    with chromium() as opened:
        for name in sys.argv[1:] or sorted(NOTEBOOKS.glob("*.ipynb")):
            render(Path(name), opened)
            print(name)
