"""From a store to a report: one offline HTML file, or a folder where a file would be too large."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any, Literal, get_args

import stores
from reports.blocks import blocks
from reports.inline import ReportPath
from reports.model import ReportModel
from reports.panels import PANELS
from reports.payload import page_payload, script_json
from reports.placing import BLOCKS, PAGE, check_file, check_folder, put_folder
from reports.theme import style_variables

HERE = Path(__file__).parent
SCRIPTS = ("core", "data", "colours", "tiles", "strips", "evidence", "verdicts", "router", "page")
STYLES = ("base", "layout", "panels")

Carrier = Literal["auto", "file", "folder"]
FILE_BYTES = 25_000_000
"""A browser opens a file of this size without a wait that is felt; larger reports become folders."""


@dataclass(frozen=True)
class Written:
    """What was written, and why in this form."""

    path: ReportPath
    """The page to open."""
    carrier: str
    """"file" or "folder"."""
    bytes: int
    reason: str


def build(
    run_path: str | os.PathLike[str],
    out_path: str | os.PathLike[str],
    *,
    analysis: str | None = None,
    title: str | None = None,
    carrier: Carrier = "auto",
) -> ReportPath:
    """Write the report of a store; returns the page to open, which a notebook shows. Parameters as of ``write``."""
    return write(run_path, out_path, analysis=analysis, title=title, carrier=carrier).path


def write(
    run_path: str | os.PathLike[str],
    out_path: str | os.PathLike[str],
    *,
    analysis: str | None = None,
    title: str | None = None,
    carrier: Carrier = "auto",
) -> Written:
    """Write the report of a store, as HTML that needs no network and no server.

    Args:
        run_path: The store.
        out_path: The file to write, such as ``report.html``; a folder gets its name without the suffix. Either
            appears whole, or not at all, and takes the place of an older report, never of anything else.
        analysis: Id of the analysis to show first; where None the newest that was tested (``ReportModel.from_run``).
            All others of the store can be chosen in the report.
        title: Heading of the report; the store's name where None.
        carrier: "file" or "folder"; "auto" makes one file of up to 25 MB, else a folder.

    Raises:
        stores.StoreError: there is no readable store at ``run_path``, or no analysis in it.
        ValueError: there is no such carrier.
        FileExistsError, IsADirectoryError: what has the name of the report is no report; it is left as it is.
    """
    if carrier not in get_args(Carrier):
        raise ValueError(f"a report is carried by {', '.join(get_args(Carrier))}, got {carrier!r}")
    run = stores.open(os.fspath(run_path))
    models = read_models(run, analysis, title=title)
    out = Path(out_path)
    folder = out.with_suffix("")
    if carrier == "folder":
        check_folder(folder)
    else:
        check_file(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / BLOCKS).mkdir(parents=True)
    try:
        names = list(spooled(run, models, partial / BLOCKS))
        size = sum((partial / BLOCKS / f"{name}.js").stat().st_size for name in names)
        chosen, reason = choose(carrier, size)
        if chosen == "file":
            inside = ((name, read_block(partial / BLOCKS / f"{name}.js", name)) for name in names)
            whole = partial / "report.html"
            whole.write_text(page(models, run.verdicts(), inside=inside), encoding="utf-8")
            whole.replace(out)
            return Written(ReportPath(out), chosen, out.stat().st_size, reason)
        (partial / PAGE).write_text(page(models, run.verdicts(), folder=BLOCKS), encoding="utf-8")
        put_folder(partial, folder)
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return Written(ReportPath(folder / PAGE), chosen, total, reason)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def choose(carrier: Carrier, size: int) -> tuple[str, str]:
    """File or folder for so many bytes of samples, and why."""
    told = f"the samples take {size / 1e6:.1f} MB"
    if carrier != "auto":
        return carrier, f"asked for; {told}"
    if size <= FILE_BYTES:
        return "file", f"{told}, and one file may hold {FILE_BYTES / 1e6:.0f}"
    return "folder", f"{told}, more than the {FILE_BYTES / 1e6:.0f} of one file"


def read_models(
    run: stores.Run, analysis: str | None = None, *, title: str | None = None
) -> list[ReportModel]:
    """Every analysis of a store that has a class, the one to show first in front."""
    first = ReportModel.from_run(run, analysis, title=title)
    others = [name for name in reversed(run.analyses()) if name != first.analysis]
    models = [
        first,
        *(ReportModel.from_run(run, name, title=title) for name in others if run.analysis(name).groups),
    ]
    names = Counter(model.name for model in models)
    # Two that differ in finer points are told apart by their ids.
    return [
        model if names[model.name] == 1 else replace(model, name=f"{model.name} · {model.analysis[:6]}")
        for model in models
    ]


def spooled(run: stores.Run, models: Sequence[ReportModel], folder: Path) -> Iterator[str]:
    """Write every block as a script of its own, one at a time in memory; gives their names."""
    written: set[str] = set()
    for model in models:
        for name, text in blocks(run, model, written):
            (folder / f"{name}.js").write_text(f'spray.block("{name}",{text});', encoding="utf-8")
            yield name


def read_block(path: Path, name: str) -> str:
    """The JSON of a block that was written as a script."""
    return path.read_text(encoding="utf-8").removeprefix(f'spray.block("{name}",').removesuffix(");")


def page(
    models: Sequence[ReportModel],
    verdicts: Sequence[stores.Verdict],
    *,
    inside: Iterable[tuple[str, str]] = (),
    folder: str | None = None,
    served: str | None = None,
) -> str:
    """The page as text.

    Args:
        models: The analyses; the first is shown at first.
        verdicts: Those of the store.
        inside: Blocks to put into the page, by name.
        folder: Where else the blocks are, beside the page.
        served: Token of the server that has the blocks and takes verdicts.
    """
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    carrier = {
        "kind": "served" if served else "folder" if folder else "file",
        "folder": folder,
        "token": served,
    }
    scripts = [bokeh_script(), *own_scripts(), "spray.start();"]
    environment = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True)
    payload = {**page_payload(models, verdicts, figures()), "carrier": carrier}
    return environment.get_template("report.html").render(
        title=models[0].title,
        policy=policy(scripts, carrier["kind"]),
        style=Markup(style_variables() + "\n".join(style(name) for name in STYLES)),
        pages=layout(),
        report=Markup(script_json(payload)),
        blocks=((name, Markup(text)) for name, text in inside),
        scripts=[Markup(script) for script in scripts],
    )


def policy(scripts: Iterable[str], kind: str | None = "file") -> str:
    """A content security policy under which exactly these scripts run, and nothing foreign is fetched.

    A folder adds scripts beside the page (``file:`` where it was opened from a disk), a server its own data.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')}'"
        for script in scripts
    )
    more = " 'self' file:" if kind == "folder" else ""
    reach = "'self'" if kind == "served" else "'none'"
    return (
        f"default-src 'none'; script-src {hashes}{more}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {reach}; base-uri 'none'; form-action 'none'"
    )


def policy_of(html: str) -> str:
    """The policy that a page carries, for a server to send as a header too."""
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert found is not None, "every page carries a policy"
    return unescape(found[1])


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
