"""Commands that close the loop of an audit: correct the model, compare two audits, hand verdicts on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table as Grid

from spray.cli.options import data_options, device_option, json_option, model_options, quiet_option, settings
from spray.cli.output import plain, printable, reporting

if TYPE_CHECKING:
    from spray.correction import Corrected

METHODS = ("p-clarc", "a-clarc", "removal", "rrr")
DIRECTIONS = ("signal", "svm", "ridge", "logistic")
PLACE = click.Path(dir_okay=False, path_type=Path)


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
    "--against", type=click.Choice(["class", "all"]), help="Members against what.  [default: class]"
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
    from spray.workflow import choose_device, load_data, model_of

    check_free(out, force)
    chosen = settings(config, {**flags, "seed": None})
    step = step_of(method, cav=cav, against=against, epochs=epochs, rate=rate, seed=seed)
    judged = None
    if validation is not None:
        judged = load_data(settings(config, {**flags, "data": validation}).data)
    with reporting(quiet) as report:
        done = run_correction(
            stores.open(store),
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
    if as_json:
        layers_told = [asdict(score) for score in done.layers]
        click.echo(json.dumps({"weights": str(weights), "layers": layers_told, **done.record}))
        return
    show_correction(done)
    click.echo(printable(f"{weights}: load it with --weights. {record}: how it was made."))


def show_correction(done: Corrected) -> None:
    """Layer scores, and accuracy before and after."""
    console = Console()
    if done.layers:
        table = Grid(
            title="layers: accuracy after P-ClArC there, and how often writing the artifact acts as the attack",
            title_justify="left",
        )
        for name in ("", "layer", "AUC of the direction", "clean accuracy", "attacked", "as the attack"):
            table.add_column(name, justify="left" if name in ("", "layer") else "right")
        for score in done.layers:
            figures = (_share(score.clean), _share(score.attacked), _share(score.agreement))
            read = score.refused or ("–" if score.auc is None else f"{score.auc:.3f}")
            chosen = "→" if score.layer == done.layer else ""
            table.add_row(chosen, plain(score.layer), plain(read), *figures)
        console.print(table)
    title = f"{done.method}" + (f" at {printable(done.layer)}" if done.layer else "")
    table = Grid(title=title, title_justify="left")
    for name in ("", "before", "after"):
        table.add_column(name, justify="left" if not name else "right")
    before, after = done.before, done.after
    for name, old, new in (
        (f"accuracy, clean ({before.samples})", before.clean, after.clean),
        ("  of the finding's class", before.class_clean, after.class_clean),
        (f"  of other classes ({before.attacks})", before.hosts, after.hosts),
        ("accuracy of these, attacked", before.attacked, after.attacked),
        ("attacked, taken for the class", before.flips, after.flips),
        ("as they are, taken for the class", before.flips_before_attack, after.flips_before_attack),
        ("accuracy with the artifact", before.artifact, after.artifact),
    ):
        table.add_row(name, _share(old), _share(new))
    console.print(table)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


COMMANDS: tuple[click.Command, ...] = (correct,)
