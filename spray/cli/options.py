"""Options that several commands share, and how flags are laid over a configuration file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from spray.config import AuditConfig, ConfigError, load_config

F = TypeVar("F", bound=Callable[..., Any])


def model_options(command: F) -> F:
    """Options that name the model."""
    command = click.option("--model", help="torchvision:NAME, FILE.py:FUNCTION or MODULE:FUNCTION.")(command)
    return click.option("--weights", type=click.Path(dir_okay=False), help="A state dict (torch.save).")(
        command
    )


def data_options(command: F) -> F:
    """Options that name the data set."""
    for option in (
        click.option("--std", help="Standard deviations of the normalisation, such as 0.229,0.224,0.225."),
        click.option("--mean", help="Means of the normalisation, one (grey) or three (RGB)."),
        click.option("--crop", type=int, help="Centre crop, pixels."),
        click.option("--resize", type=int, help="Shorter side before cropping, pixels."),
        click.option("--classes", type=click.Path(dir_okay=False), help="Class names, one per line."),
        click.option("--data", help="A folder CLASS/NAME.jpg, or FILE.py:FUNCTION."),
    ):
        command = option(command)
    return command


def attribution_options(command: F) -> F:
    """Options of the attribution stage."""
    for option in (
        click.option("--workers", type=int, help="Processes that read images ahead."),
        click.option("--block", type=int, help="Samples per forward pass."),
        click.option("--full/--no-full", default=None, help="Keep full-size maps, too."),
        click.option("--grid", type=int, help="Cells a side of the pooled maps."),
        click.option(
            "--layer", "layers", multiple=True, help="Keep this module's relevance, too (repeatable)."
        ),
        click.option("--target", help="label, prediction, or a class index."),
        click.option("--composite", help="LRP composite, gradient or gradient_x_input."),
    ):
        command = option(command)
    return command


def analysis_options(command: F) -> F:
    """Options of the analysis."""
    for option in (
        click.option("--seed", type=int, help="Seed of every random choice of the analysis."),
        click.option("--picture", help="auto, tsne, umap or none."),
        click.option("--neighbours", type=int, help="Neighbours of each sample in the graph."),
        click.option("--column", help="Stored relevance to analyse: input.place, LAYER.channel, …"),
        click.option("--group-by", help="label, prediction or all."),
    ):
        command = option(command)
    return command


device_option = click.option("--device", help="auto, cpu, cuda, cuda:1 or mps.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def settings(config: Path | None, flags: Mapping[str, Any]) -> AuditConfig:
    """The configuration of a file (or the defaults) with the flags that were given laid over it.

    Raises:
        ConfigError: the file or a flag cannot be followed.
    """
    base = load_config(config) if config is not None else AuditConfig()
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    sections = {
        "model": {"spec": given.pop("model", None), "weights": given.pop("weights", None)},
        "data": {
            "spec": given.pop("data", None),
            "mean": _numbers("--mean", given.pop("mean", None)),
            "std": _numbers("--std", given.pop("std", None)),
            **_taken(given, base.data),
        },
        "verify": {"seed": given.get("seed")},
        "attribution": _taken(given, base.attribution),
        "analysis": _taken(given, base.analysis),
    }
    laid = {
        name: replace(
            getattr(base, name), **{key: value for key, value in section.items() if value is not None}
        )
        for name, section in sections.items()
    }
    report = given.pop("report_path", None)
    return replace(base, **laid, **({"report": report} if report else {}), **_taken(given, base))


def _taken(given: dict[str, Any], section: Any) -> dict[str, Any]:
    """Flags named as the entries of a section, taken out of those given."""
    return {entry.name: given.pop(entry.name) for entry in fields(section) if entry.name in given}


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{flag}: got '{text}', expected numbers separated by commas, such as 0.5,0.5,0.5."
        ) from None
