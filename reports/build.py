"""From a store to one offline HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import stores
from reports.model import ReportModel
from reports.panels import PANELS
from reports.payload import chunk_payload, page_payload, script_json
from reports.theme import style_variables

HERE = Path(__file__).parent
SCRIPTS = ("core", "data", "tiles", "verdicts", "router", "page")
STYLES = ("base", "layout", "panels")


def build(
    run_path: str | os.PathLike[str],
    out_path: str | os.PathLike[str],
    *,
    analysis: str | None = None,
    title: str | None = None,
) -> Path:
    """Write the report of a store as one HTML file that needs no network and no server.

    Args:
        run_path: The store.
        out_path: The file to write; it appears whole, or not at all.
        analysis: Id of the analysis to show; the newest where None.
        title: Heading of the report; the store's name where None.

    Returns:
        Where the report is.

    Raises:
        stores.StoreError: there is no readable store at ``run_path``.
        ValueError: the store has no analysis yet.
    """
    run = stores.open(os.fspath(run_path))
    model = ReportModel.from_run(run, analysis, title=title)
    chunks = ((group.index, script_json(chunk_payload(run, model, group))) for group in model.groups)
    html = page(model, run.verdicts(), chunks=chunks)
    return write_whole(Path(out_path), html)


def page(model: ReportModel, verdicts: list[Any], *, chunks: Iterable[tuple[int, str]] = ()) -> str:
    """The page as text, with the samples of the given classes inside."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    scripts = [bokeh_script(), *own_scripts(), "spray.start();"]
    environment = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True)
    return environment.get_template("report.html").render(
        title=model.title,
        facts=fact_line(model),
        policy=policy(scripts),
        style=Markup(style_variables() + "\n".join(style(name) for name in STYLES)),
        pages=layout(),
        report=Markup(script_json(page_payload(model, verdicts, figures()))),
        chunks=((index, Markup(text)) for index, text in chunks),
        external=(),
        scripts=[Markup(script) for script in scripts],
    )


def policy(scripts: Iterable[str]) -> str:
    """A content security policy under which exactly these scripts run, and nothing is fetched."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def bokeh_script() -> str:
    """BokehJS, whole, without its widgets, tables and formulas, which the report does not use."""
    from bokeh.resources import Resources

    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw).strip()


def own_scripts() -> Iterator[str]:
    """The page's own JavaScript, in the order in which it runs."""
    *frame, last = SCRIPTS
    for name in frame:
        yield (HERE / "static" / f"{name}.js").read_text(encoding="utf-8").strip()
    for panel in PANELS.values():
        yield panel.script.strip()
    yield (HERE / "static" / f"{last}.js").read_text(encoding="utf-8").strip()


def style(name: str) -> str:
    """One of the page's style sheets."""
    return (HERE / "static" / f"{name}.css").read_text(encoding="utf-8")


def layout() -> dict[str, dict[str, list[Any]]]:
    """Panels by page and slot, in the order of ``PANELS``."""
    pages: dict[str, dict[str, list[Any]]] = {}
    for panel in PANELS.values():
        pages.setdefault(panel.page, {}).setdefault(panel.slot, []).append(panel)
    return pages


def figures() -> list[Any]:
    """The Bokeh figures of the panels as JSON, each for the element ``figure-<name>``."""
    from bokeh.embed import json_item

    made = []
    for panel in PANELS.values():
        if panel.figure is not None:
            item = renumbered(json_item(panel.figure()), panel.name)
            made.append({**item, "target_id": f"figure-{panel.name}", "name": panel.name})
    return made


def renumbered(item: Any, prefix: str) -> Any:
    """Bokeh counts models over the life of a process; here each figure counts its own, so that bytes repeat."""
    known: dict[str, str] = {}
    return json.loads(
        re.sub(
            r'"p\d+"',
            lambda found: known.setdefault(found[0], f'"{prefix}-{len(known)}"'),
            json.dumps(item),
        )
    )


def fact_line(model: ReportModel) -> str:
    """What was audited, in one line."""
    flagged = sum(group.flagged for group in model.groups)
    method = str(model.facts["relevance"]).removeprefix("relevance/").replace("_", " ")
    return (
        f"{model.facts['samples']:,} samples · {model.facts['classes']} classes · LRP {method} · "
        f"{flagged} finding{'' if flagged == 1 else 's'} flagged"
    )


def write_whole(path: Path, text: str) -> Path:
    """Write a file so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path
