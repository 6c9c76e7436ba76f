"""Options that several commands share, and how flags are laid over a configuration file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from spray.config import AuditConfig, ConfigError, load_config

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound="DataclassInstance")


def model_options(command: F) -> F:
    """Options that name the model."""
    command = click.option(
        "--model", help="torchvision:NAME, FILE.py:FUNCTION or MODULE:FUNCTION; evaluated, not trained."
    )(command)
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
        click.option(
            "--masks",
            type=click.Path(file_okay=False),
            help="Masks of a folder's images, CLASS/NAME.png as large as the image: not 0 where the object is.",
        ),
        click.option("--classes", type=click.Path(dir_okay=False), help="Class names, one per line."),
        click.option("--data", help="A folder CLASS/NAME.jpg, or FILE.py:FUNCTION."),
    ):
        command = option(command)
    return command


def attribution_options(command: F) -> F:
    """Options of the attribution stage."""
    for option in (
        click.option("--workers", type=int, help="Processes that read images ahead."),
        click.option("--block", type=int, help="Samples per forward pass.  [default: what fits into memory]"),
        click.option("--full/--no-full", default=None, help="Keep full-size maps, too."),
        click.option("--grid", type=int, help="Cells a side of the pooled maps."),
        click.option(
            "--layer",
            "layers",
            multiple=True,
            help="Also keep the relevance of the output of this module, which runs once a pass.",
        ),
        click.option(
            "--target",
            multiple=True,
            help="label, prediction, rank2, top3, a class index, or a difference such as label-other (repeatable).",
        ),
        click.option("--composite", help="LRP composite, gradient or gradient_x_input."),
    ):
        command = option(command)
    return command


def analysis_options(command: F) -> F:
    """Options of the analysis."""
    for option in (
        click.option("--seed", type=int, help="Seed of every random choice of the analysis."),
        click.option("--picture", help="auto, tsne, umap or none."),
        click.option(
            "--eigenvectors",
            type=int,
            help="One more than the strategies looked for in a group.  [default: 16]",
        ),
        click.option("--neighbours", type=int, help="Neighbours of each sample in the graph."),
        click.option(
            "--clustering",
            "clusterings",
            multiple=True,
            help="kmeans, hdbscan, agglomerative or cluster_qr (repeatable).  [default: kmeans, hdbscan]",
        ),
        click.option("--sign", help="Of the relevance: signed, absolute or positive."),
        click.option(
            "--representation",
            help="pooled, magnitude, radial or channels, or several joined: pooled+radial.  [default: what suits the "
            "column]",
        ),
        click.option(
            "--pca", type=int, help="Analyse so many leading principal components of it; 0: all of it."
        ),
        click.option("--column", help="Stored relevance to analyse: input.place, LAYER.channel, …"),
        click.option("--group-by", help="label, prediction or all."),
    ):
        command = option(command)
    return command


def verify_options(command: F) -> F:
    """Options of the verification."""
    for option in (
        click.option("--rank", help="combined, one score, or weights: causal=1,separation=0.2."),
        click.option(
            "--budget", type=int, help="About so many images through the model per class; 0: no limit."
        ),
        click.option(
            "--fill",
            "fills",
            multiple=True,
            help="What takes a removed region's place: neighbour, harmonic, 'local mean', noise or blur. May be given "
            "several times; all have to agree, and two at least.",
        ),
        click.option(
            "--members", type=int, help="At most so many images, 5 or more, are intervened on per finding."
        ),
    ):
        command = option(command)
    return command


class LocalPath(click.Path):
    """A path of this machine: pages, tables and weights are written nowhere else, only stores are."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a URL is refused, of which a folder called "s3:" would be made."""
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(value)):
            self.fail(
                f"'{value}' is a URL, and this is written to this machine only: name a path.", param, ctx
            )
        return super().convert(value, param, ctx)


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
    for name in {"mean", "std"} & given.keys():
        given[name] = _numbers(f"--{name}", given[name])
    top = _laid(base, {"out": "out", "report": "report_path", "device": "device"}, given)
    return replace(
        top,
        model=_laid(base.model, {"spec": "model", "weights": "weights"}, given),
        data=_laid(base.data, {**_same_names(base.data), "spec": "data"}, given),
        attribution=_laid(base.attribution, _same_names(base.attribution), given),
        analysis=_laid(base.analysis, _same_names(base.analysis), given),
        verify=_laid(base.verify, _same_names(base.verify), given),
    )


def _laid(section: S, flags: Mapping[str, str], given: Mapping[str, Any]) -> S:
    """A section with the flags that were given laid over it; ``flags`` names the flag of each entry."""
    return replace(section, **{entry: given[flag] for entry, flag in flags.items() if flag in given})


def _same_names(section: DataclassInstance) -> dict[str, str]:
    return {entry.name: entry.name for entry in fields(section)}


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{flag}: got '{text}', expected numbers separated by commas, such as 0.5,0.5,0.5."
        ) from None
