"""The configuration of an audit: an ``audit.toml``, flags, or keyword arguments, all into the same checked record."""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be followed; the message names the entry and what was expected."""


@dataclass(frozen=True)
class ModelConfig:
    """Which model: ``torchvision:NAME``, ``FILE.py:FUNCTION`` or ``MODULE:FUNCTION``, and a state dict if needed."""

    spec: str = ""
    weights: str = ""


@dataclass(frozen=True)
class DataConfig:
    """Which data: a folder ``CLASS/NAME.jpg`` with its preprocessing, or ``FILE.py:FUNCTION`` with its own."""

    spec: str = ""
    classes: str = ""
    """A text file with one class name per line, in the order of the model's outputs."""
    resize: int = 256
    crop: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    masks: str = ""
    """A folder with the masks of a folder's images, ``CLASS/NAME.png``: not 0 where the object is."""


@dataclass(frozen=True)
class AttributionConfig:
    """What is computed and kept for each sample; see ``spray.attribution.Attribution``."""

    composite: str = "epsilon_plus_flat"
    target: str | int | tuple[str | int, ...] = "label"
    start: str = "logit"
    layers: tuple[str, ...] = ()
    grid: int = 28
    full: bool = False
    thumbnails: int = 64
    block: int = 0
    workers: int = 0


@dataclass(frozen=True)
class AnalysisConfig:
    """How strategies are looked for; see ``spray.analysis.Analysis``."""

    column: str = "input.place"
    representation: str = "auto"
    """"pooled", "magnitude", "radial" or "channels", or several side by side: "pooled+radial"; "auto": by what the
    column holds, places or channels."""
    pca: int = 0
    """Leading principal components of it that are analysed; 0: all of it."""
    sign: str = "signed"
    clusterings: tuple[str, ...] = ("kmeans", "hdbscan")
    group_by: str = "label"
    neighbours: int = 10
    eigenvectors: int = 16
    picture: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class VerifyConfig:
    """How findings are tested by intervention; see ``spray.findings.verification.Verification``."""

    members: int = 100
    budget: int = 0
    """About so many images pass through the model per class; 0: as many as the sample sizes take."""
    rank: str = "combined"
    """"combined", a score, or weights such as "causal=1,separation=0.2"."""
    fills: tuple[str, ...] = ("neighbour", "harmonic")
    """What takes a removed region's place: "neighbour", "harmonic", "local mean", "noise", "blur"; all must agree."""
    clustering: str = "auto"
    """Whose clusters become findings; "auto": hdbscan, or where it was not analysed the first that was, and kmeans in a
    class that is one cluster by hdbscan and several strategies by the eigengap."""
    seed: int = 0


@dataclass(frozen=True)
class AuditConfig:
    """A whole audit: from a model and a data set to a report."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    attribution: AttributionConfig = field(default_factory=AttributionConfig)
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    out: str = "audit.zarr"
    report: str = "report.html"
    device: str = "auto"


def load_config(path: Path) -> AuditConfig:
    """An ``audit.toml``; paths in it are relative to its own folder.

    Raises:
        ConfigError: the file is missing or no TOML, or an entry is unknown or of the wrong type.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"There is no configuration at {path.resolve()}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid TOML: {error}.") from error
    return _anchored(from_mapping(AuditConfig, content, str(path)), path.parent)


def from_mapping(cls: type[T], content: Mapping[str, Any], where: str) -> T:
    """A configuration record from plain values, every key and type checked.

    Raises:
        ConfigError: names the entry, what came and what was expected.
    """
    hints = typing.get_type_hints(cls)
    known = {entry.name for entry in fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in content.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown entry '{key}'. Known here: {', '.join(sorted(known))}.")
        values[key] = _checked(value, hints[key], f"{where}: {key}")
    return cls(**values)


def _checked(value: Any, expected: Any, where: str) -> Any:
    if is_dataclass(expected):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: got {value!r}, expected a section with entries.")
        return from_mapping(typing.cast("type[Any]", expected), value, where)
    if isinstance(expected, types.GenericAlias):
        entry = typing.get_args(expected)[0]
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: got {value!r}, expected a list.")
        return tuple(_checked(part, entry, where) for part in value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    choices = typing.get_args(expected) or (expected,)
    lists = [choice for choice in choices if isinstance(choice, types.GenericAlias)]
    if lists and isinstance(value, list | tuple):
        return _checked(value, lists[0], where)
    if type(value) not in choices:
        names = " or ".join("a list" if choice in lists else choice.__name__ for choice in choices)
        raise ConfigError(f"{where}: got {value!r}, expected {names}.")
    return value


def _anchored(config: AuditConfig, folder: Path) -> AuditConfig:
    """The same configuration with relative paths resolved against the folder of its file."""

    def at(path: str) -> str:
        return str(folder / Path(path).expanduser()) if path and "://" not in path else path

    def spec(text: str) -> str:
        place, separator, function = text.rpartition(":")
        if separator and place.endswith(".py"):
            return f"{at(place)}:{function}"
        return text if separator else at(text)

    return replace(
        config,
        model=replace(config.model, spec=spec(config.model.spec), weights=at(config.model.weights)),
        data=replace(config.data, spec=spec(config.data.spec), classes=at(config.data.classes)),
        out=at(config.out),
        report=at(config.report),
    )


def report_beside(store: str | Path) -> Path:
    """Where the report of a store goes unless told otherwise.

    Raises:
        ConfigError: the store is remote.
    """
    from stores.files import named  # which brings Zarr with it

    if "://" in str(store):
        raise ConfigError(f"{store} is remote: say where the report goes, with --out or out=.")
    return named(store).with_suffix(".html")
