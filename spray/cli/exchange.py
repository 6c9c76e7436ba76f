"""Commands around a finished audit: serve its report, gather verdicts, exchange with other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spray.cli.options import LocalPath, json_option, quiet_option
from spray.cli.output import printable, reporting, show_json, warn

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ARRAY = click.Path(exists=True, path_type=Path)
AXES = ("channels-first", "channels-last")
FORMATS = ("virelay", "csv", "parquet", "npz", "json")


@click.command()
@click.argument("store", type=str)
@click.option(
    "--analysis", "analysis_id", help="Id of the analysis shown first; the newest tested one if left out."
)
@click.option("--port", type=int, default=5006, show_default=True, help="0 takes a free one.")
@click.option(
    "--address", default="127.0.0.1", show_default=True, help="Whom to listen to. There is no login."
)
@click.option("--origin", "origins", multiple=True, help="A further HOST:PORT that browsers may come by.")
def serve(store: str, analysis_id: str | None, port: int, address: str, origins: tuple[str, ...]) -> None:
    """Show the report from the store itself; verdicts go straight into it. Ctrl-C ends it.

    \b
    Example:
      spray serve run.zarr --port 8080
    """
    import reports

    reports.serve(store, analysis=analysis_id, port=port, address=address, origins=origins, ready=click.echo)


@click.group()
def verdicts() -> None:
    """Verdicts that reports exported: merge them, write them into the store."""


@verdicts.command()
@click.argument("files", type=FILE, nargs=-1, required=True)
@click.option(
    "--out",
    type=LocalPath(dir_okay=False, path_type=Path),
    help="The merged file; standard output if left out.",
)
@json_option
def merge(files: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Put the verdicts of several people together, and show where they disagree.

    Without --out the merged file goes to standard output and disagreements to standard error. With --json standard
    output has only how many verdicts there are and who disagrees.

    \b
    Examples:
      spray verdicts merge ada.json grace.json --out all.json
      spray verdicts merge ada.json grace.json > all.json
    """
    import reports

    merged, disagreements = reports.merge([reports.read_file(file) for file in files])
    if out is not None:
        reports.write_file(out, merged)
    if as_json:
        conflicts = [str(conflict) for conflict in disagreements]
        show_json({"verdicts": len(merged.verdicts), "conflicts": conflicts})
        return
    if out is None:
        click.echo(reports.file_text(merged), nl=False)
    for conflict in disagreements:
        click.echo(printable(f"conflict: {conflict}"), err=out is None)
    told = f"{out or 'merged'}: {len(merged.verdicts)} verdicts, {len(disagreements)} conflicts"
    click.echo(printable(told), err=out is None)


@verdicts.command()
@click.argument("store", type=str)
@click.argument("files", type=FILE, nargs=-1, required=True)
def add(store: str, files: tuple[Path, ...]) -> None:
    """Write exported verdicts into the store they are about; those it has already are left out.

    \b
    Example:
      spray verdicts add run.zarr all.json
    """
    import reports
    import stores

    merged, _ = reports.merge([reports.read_file(file) for file in files])
    added = reports.add_to_store(stores.open(store, "r+"), merged)
    click.echo(f"{added} verdicts added to {printable(store)}")


@click.command()
@click.argument("store", type=str)
@click.argument("folder", type=LocalPath(file_okay=False, path_type=Path))
@click.option("--to", type=click.Choice(FORMATS), default="csv", show_default=True, help="Format.")
@click.option("--analysis", "analysis_id", help="Id of an analysis; the newest if left out.")
@click.option("--force", is_flag=True, help="Replace tables that are there.")
@quiet_option
def export(store: str, folder: Path, to: str, analysis_id: str | None, force: bool, quiet: bool) -> None:
    """Write samples, clusters, findings and verdicts as tables, or a project that ViRelAy opens.

    \b
    Example:
      spray export run.zarr tables/ --to parquet
    """
    import stores
    from stores.circumstances import lacking
    from stores.exchange import export_sheets, export_virelay

    run = stores.open(store)
    with reporting(quiet) as report:
        if to == "virelay":
            paths = [export_virelay(run, folder, analysis=analysis_id, report=report)]
        else:
            paths = export_sheets(run, folder, to, analysis=analysis_id, force=force, report=report)
    if any(run.analysis(id).groups for id in run.analyses()):
        warn(lacking(run, run.shown_analysis(analysis_id)))
    for path in paths:
        click.echo(printable(path))


@click.command("import")
@click.argument("attribution", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=str, required=True, help="The store to write.")
@click.option("--inputs", type=FILE, help="HDF5 or array (uint8) with the images, for thumbnails.")
@click.option("--analyses", type=FILE, multiple=True, help="HDF5 with analyses (repeatable).")
@click.option("--label-map", type=FILE, help="JSON with the names of the classes, beside HDF5.")
@click.option("--ids", type=FILE, help="Names of the samples beside an array, one per line.")
@click.option(
    "--labels", type=ARRAY, help="Classes beside an array: an array, or one number or name per line."
)
@click.option("--classes", type=FILE, help="Names of the classes beside an array, one per line.")
@click.option("--logits", type=ARRAY, help="The model's outputs beside an array.")
@click.option(
    "--axes", type=click.Choice(AXES), help="Where the maps' channels are, if the shape does not tell."
)
@click.option("--key", help="Which array of a .npz or a Zarr group.")
@click.option("--method", default="imported", show_default=True, help="What the relevance table is called.")
@quiet_option
def import_store(
    attribution: Path,
    out: str,
    inputs: Path | None,
    analyses: tuple[Path, ...],
    label_map: Path | None,
    method: str,
    axes: str | None,
    quiet: bool,
    **beside: Any,
) -> None:
    """Make a store from relevance computed elsewhere: HDF5 of CoRelAy or ViRelAy, .npy, .npz or Zarr.

    \b
    Examples:
      spray import attribution.h5 --inputs input.h5 --analyses analysis.h5 --out run.zarr
      spray import maps.npy --ids ids.txt --labels labels.txt --classes names.txt --out run.zarr
    """
    from spray.journal import journal
    from stores.exchange import import_arrays, import_virelay

    arrays = attribution.is_dir() or attribution.suffix in (".npy", ".npz")
    others = {"analyses": analyses, "label-map": label_map} if arrays else beside
    if given := [f"--{name}" for name, value in others.items() if value]:
        kind = "an array" if arrays else "HDF5"
        raise click.UsageError(f"{', '.join(given)}: not beside {kind}, which {attribution.name} is.")
    with journal(out, "import"), reporting(quiet) as report:
        if arrays:
            run = import_arrays(
                out, attribution, inputs=inputs, method=method, axes=axes, report=report, **beside
            )
        else:
            run = import_virelay(
                out,
                attribution,
                inputs=inputs,
                analyses=analyses,
                label_map=label_map,
                method=method,
                axes=axes,
                report=report,
            )
    click.echo(f"{run.path}: {run.n:,} samples. Go on with: spray analyze {run.path}")
    for table in (run.samples, run.table(f"relevance/{method}")):
        if failures := table.failures:
            row, reason = next(iter(failures.items()))
            click.echo(
                f"{printable(table.name)}: {len(failures):,} rows are failed (first: row {row}, {printable(reason)}) "
                "and take no part in what follows."
            )


COMMANDS = (serve, verdicts, export, import_store)
