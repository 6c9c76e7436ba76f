"""Commands that close the loop of an audit: correct the model, compare two audits, hand verdicts on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from spray.cli.options import (
    LocalPath,
    data_options,
    device_option,
    json_option,
    model_options,
    quiet_option,
    settings,
)
from spray.cli.output import printable, reporting, show_json, warn
from spray.cli.shown import show_comparison, show_correction

METHODS = ("p-clarc", "a-clarc", "removal", "rrr")
PARTS_OF_FEEDBACK = ("findings", "lists", "masks", "split", "weights")
DIRECTIONS = ("signal", "svm", "ridge", "logistic")
PLACE = LocalPath(dir_okay=False, path_type=Path)


@click.command()
@click.argument("store", type=str)
@click.option("--finding", "what", required=True, help="A finding's name, or a verdict's key or digest.")
@click.option("--method", type=click.Choice(METHODS), default="p-clarc", show_default=True)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    help="Module to correct; of several, or of all candidates if left out, the best is taken.",
)
@click.option("--cav", type=click.Choice(DIRECTIONS), help="How the direction is fitted.  [default: ridge]")
@click.option(
    "--against",
    type=click.Choice(["best", "class", "all", "pasted"]),
    help="Members against the rest of their class or all others; or others with the content pasted on against the same "
    "without it.  [default: best of class and pasted]",
)
@click.option("--epochs", type=int, help="Passes of fine-tuning.")
@click.option("--rate", type=float, help="Learning rate of fine-tuning.")
@click.option("--validation", help="Data the model was not trained on, to judge by; as --data.")
@click.option("--held-out", type=float, default=0.3, show_default=True, help="Share nothing is fitted on.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--analysis", "analysis_id", help="Id of an analysis; the newest if left out.")
@click.option("--config", type=PLACE, help="The audit.toml of the audit.")
@model_options
@data_options
@device_option
@click.option("--out", type=PLACE, required=True, help="The corrected state dict; its record goes beside it.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@quiet_option
@json_option
def correct(
    store: str,
    what: str,
    method: str,
    layers: tuple[str, ...],
    cav: str | None,
    against: str | None,
    epochs: int | None,
    rate: float | None,
    validation: str | None,
    held_out: float,
    seed: int,
    analysis_id: str | None,
    config: Path | None,
    out: Path,
    force: bool,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Make a model unlearn what a finding shows, and measure what that does.

    \b
    Methods:
      p-clarc   project the artifact's direction out at a layer; no training
      a-clarc   fine-tune while the artifact is written into samples of all classes
      removal   fine-tune without the finding's samples
      rrr       fine-tune with a penalty on relevance in the finding's region

    \b
    Examples:
      spray correct run.zarr --finding c6.f0 --model model.py:load --data images/ --out corrected.pt
      spray correct run.zarr --finding c6.f0 --config audit.toml --method a-clarc --layer layer4 --out b.pt

    Then audit it again and compare:

    \b
      spray audit --model model.py:load --weights corrected.pt --data images/ --out after.zarr
      spray compare run.zarr after.zarr
    """
    import stores
    from spray.correction import Splitting, save, step_of
    from spray.correction import correct as run_correction
    from spray.correction.saving import check_free
    from spray.journal import journal
    from spray.workflow import choose_device, load_data, model_of

    check_free(out, force)
    chosen = settings(config, {**flags, "seed": None})
    step = step_of(method, cav=cav, against=against, epochs=epochs, rate=rate, seed=seed)
    judged = None
    if validation is not None:
        judged = load_data(settings(config, {**flags, "data": validation}).data)
    run = stores.open(store)
    with (
        reporting(quiet) as report,
        journal(run.path, "correct", what=what, method=method, out=str(out)) as log,
    ):
        done = run_correction(
            run,
            what,
            model_of(chosen.model),
            load_data(chosen.data),
            method=step,
            layer=list(layers) or None,
            analysis=analysis_id,
            validation=judged,
            splitting=Splitting(held_out, seed=seed),
            device=choose_device(chosen.device),
            report=report,
        )
        weights, record = save(done, out, force=force)
        log("saved", weights=str(weights), record=str(record))
    if as_json:
        layers_told = [asdict(score) for score in done.layers]
        show_json({"weights": str(weights), "layers": layers_told, "doubt": done.doubt, **done.record})
        return
    show_correction(done)
    click.echo(printable(f"{weights}: load it with --weights. {record}: how it was made."))


@click.command()
@click.argument("left", type=str)
@click.argument("right", type=str)
@click.option("--out", type=PLACE, help="Write the comparison as one offline HTML page.")
@click.option("--csv", "csv_out", type=PLACE, help="Write one row per strategy as CSV.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@click.option(
    "--by",
    type=click.Choice(["auto", "members", "maps"]),
    default="auto",
    show_default=True,
    help="Match strategies by common samples, or by where their relevance lies.",
)
@click.option(
    "--analysis", "analyses", nargs=2, type=str, help="Ids of the two analyses; the newest if left out."
)
@click.option("--title", help="Title of the page.")
@quiet_option
@json_option
def compare(
    left: str,
    right: str,
    out: Path | None,
    csv_out: Path | None,
    force: bool,
    by: Any,
    analyses: tuple[str, str] | None,
    title: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Which strategies vanished, appeared, moved or stayed between two audits.

    Two models on the same data, such as before and after a correction, or one model on two data sets.

    \b
    Examples:
      spray compare before.zarr after.zarr
      spray compare before.zarr after.zarr --out compare.html --csv compare.csv
    """
    import reports
    from spray.comparison import compare as run_comparison
    from stores.exchange import write_sheet

    for place in (out, csv_out):
        if place is not None and place.exists() and not force:
            raise click.UsageError(f"{place} is there already: choose another name, or --force.")
    with reporting(quiet) as report:
        found = run_comparison(left, right, analyses=analyses or (None, None), by=by, report=report)
    if csv_out is not None:
        write_sheet(csv_out, found.columns(), "csv")
    if out is not None:
        reports.write_comparison(found, out, title=title)
    if as_json:
        show_json(found.to_json())
        return
    show_comparison(found)
    for place in (out, csv_out):
        if place is not None:
            click.echo(printable(f"wrote {place}"))


@click.command()
@click.argument("store", type=str)
@click.argument("folder", type=LocalPath(path_type=Path))
@click.option("--to", type=click.Choice(["csv", "parquet", "json"]), default="csv", show_default=True)
@click.option(
    "--only",
    "parts",
    multiple=True,
    type=click.Choice(PARTS_OF_FEEDBACK),
    help="Only this part (repeatable).",
)
@click.option("--flagged", is_flag=True, help="Condemn what the machine flagged and nobody judged, too.")
@click.option(
    "--weight", type=float, default=0.0, show_default=True, help="Weight of a condemned sample, below 1."
)
@click.option("--analysis", "analysis_id", help="Id of an analysis; the newest if left out.")
@click.option("--force", is_flag=True, help="Replace a folder of an earlier export.")
@json_option
def feedback(
    store: str,
    folder: Path,
    to: str,
    parts: tuple[str, ...],
    flagged: bool,
    weight: float,
    analysis_id: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """What follows from the verdicts: sample lists, masks, a cleaned split, sample weights.

    Only what people called a Clever Hans is condemned, and of that the very samples they judged; where they disagree,
    nothing is. --flagged takes the machine's word where nobody has spoken.

    \b
    Examples:
      spray verdicts add run.zarr verdicts.json
      spray feedback run.zarr feedback/
      spray feedback run.zarr feedback/ --to parquet --only split --only weights --weight 0.1
    """
    import stores
    from stores.circumstances import lacking
    from stores.exchange import export_feedback

    run = stores.open(store)
    told = export_feedback(
        run,
        folder,
        to,
        analysis=analysis_id,
        parts=parts or PARTS_OF_FEEDBACK,
        flagged=flagged,
        weight=weight,
        force=force,
    )
    warn(lacking(run, run.shown_analysis(analysis_id)))
    if as_json:
        show_json({**asdict(told), "folder": str(told.folder)})
        return
    if told.by_machine:
        click.echo(
            f"WARNING: {told.by_machine} findings are condemned by the machine alone (--flagged): nobody has said that "
            "what they use is wrong.",
            err=True,
        )
    if told.conflicts:
        click.echo(printable(f"Judged differently, so not condemned: {', '.join(told.conflicts)}."), err=True)
    if told.contested:
        click.echo(
            f"{told.contested} samples are kept since words on them differ; `split` says whose.", err=True
        )
    if told.unclear:
        click.echo(
            printable(
                f"Of {', '.join(told.unclear)} only samples are condemned whose id no other has: nothing tells which "
                "of several with one id was judged. Give every sample an id of its own."
            ),
            err=True,
        )
    if told.inherited:
        click.echo(
            printable(f"Verdicts of an earlier analysis, please confirm: {', '.join(told.inherited)}."),
            err=True,
        )
    click.echo(
        printable(
            f"{told.folder}: {told.condemned} samples condemned by {told.by_people} verdicts"
            f"{f' and {told.by_machine} flags' if told.by_machine else ''}, {told.kept} kept."
        )
    )


COMMANDS: tuple[click.Command, ...] = (correct, compare, feedback)
