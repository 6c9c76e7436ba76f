"""The whole audit, all stages in order, each of which goes on where an earlier run stopped.

The top floor: with ``spray.cli`` the only place that knows compute, stores and reports.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import nn

import stores
from spray.analysis import Analysis, analyze
from spray.analysis.clustering import CLUSTERINGS
from spray.analysis.features import PCA, REPRESENTATIONS, Channels, Joint, Pooled, Reduced, Sign
from spray.analysis.graph import NearestNeighbours
from spray.analysis.groups import GroupBy
from spray.attribution import Attribution, attribute_dataset, attribute_share
from spray.attribution.records import Layer
from spray.config import (
    AnalysisConfig,
    AttributionConfig,
    AuditConfig,
    ConfigError,
    DataConfig,
    ModelConfig,
    VerifyConfig,
    report_beside,
)
from spray.data import AuditData, as_audit_data
from spray.findings import Findings, find
from spray.findings.scores import ASSOCIATION, SCORES
from spray.findings.step import AUTO
from spray.findings.suspicion import rank_of
from spray.findings.verification import FILLS, Requirements, Verification
from spray.image_folder import ImageFolder, Preprocessing
from spray.loading import SpecError, call
from spray.models import load_model
from spray.progress import Report, silent
from stores import AnalysisHandle, Finding, Run
from stores.analysis import FindingList
from stores.shown import grid

if TYPE_CHECKING:
    from reports import Inline, ReportPath


@dataclass(frozen=True)
class Audit:
    """What an audit left: its store, its analysis, and its ranked findings. Shows itself in a notebook."""

    run: Run
    analysis: AnalysisHandle
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time of each stage that ran in this process."""

    @property
    def findings(self) -> FindingList:
        """All findings of all classes, the most suspicious first; a notebook shows them as a table."""
        return self.analysis.findings()

    @property
    def flagged(self) -> FindingList:
        """Findings whose region the model was shown to use, by itself and strongly."""
        return FindingList(finding for finding in self.findings if finding.flagged)

    def report(self, out: str | Path | None = None, *, title: str | None = None) -> ReportPath:
        """Write the report, one offline HTML file, beside the store unless ``out`` says where.

        The path it returns is the report itself where a notebook shows a value.
        """
        import reports

        place = out or report_beside(self.run.path)
        return reports.build(self.run.path, place, analysis=self.analysis.id, title=title)

    def inline(self, height: int = 900) -> Inline:
        """``report()`` in a notebook, with a height of one's own in pixels."""
        import reports

        return reports.Inline(self.report(), height)

    def plot_embedding(self, group: int, **options: Any) -> Any:
        """The picture of a class as a Bokeh figure; see ``reports.plot_embedding``."""
        import reports

        return reports.plot_embedding(self.run, group, analysis=self.analysis.id, **options)

    def plot_spectrum(self, group: int) -> Any:
        """The spectrum of a class as a Bokeh figure; see ``reports.plot_spectrum``."""
        import reports

        return reports.plot_spectrum(self.run, group, analysis=self.analysis.id)

    def plot_cluster(self, key: str, **options: Any) -> Any:
        """A finding or cluster as a Bokeh figure; see ``reports.plot_cluster``."""
        import reports

        return reports.plot_cluster(self.run, key, analysis=self.analysis.id, **options)

    def __repr__(self) -> str:
        return f"Audit({str(self.run.path)!r}, findings={len(self.findings)}, flagged={len(self.flagged)})"

    def _repr_html_(self) -> str:
        findings = self.findings
        told = [
            ("⚑" if finding.flagged else "", self._class_name(finding), len(finding.rows), f"{finding.score:.2f}",
             finding.summary)
            for finding in findings[:10]
        ]  # fmt: skip
        flagged = sum(finding.flagged for finding in findings)
        return (
            f"<p><b>SpRAy audit</b> of {self.run.n} samples in {len(self.run.classes)} classes: "
            f"{len(findings)} findings, {flagged} flagged.</p>"
            f"{grid(('', 'class', 'samples', 'suspicion', 'in words'), told)}"
        )

    def _class_name(self, finding: Finding) -> str:
        return self.run.classes[finding.group] if finding.group >= 0 else "all classes"


def audit(
    model: nn.Module,
    dataset: object,
    out: str | Path = "audit.zarr",
    *,
    attribution: Attribution | None = None,
    analysis: Analysis | None = None,
    findings: Findings | None = None,
    column: str = "input.place",
    group_by: GroupBy = "label",
    device: str | torch.device = "cpu",
    report: Report = silent,
) -> Audit:
    """Attribute, analyse and verify; resumes what an interrupted call with the same arguments began.

    Relevance by channel, of tokens or of signals has no two axes of place: it is analysed as it is.

    Args:
        model: in evaluation mode.
        dataset: map-style torch data set of ``(input, label)``, or ``spray.data.AuditData``.
        out: the store, a Zarr folder.
        column: which stored relevance is analysed ("input.place", or "LAYER.channel", …).
        group_by: classes by "label" or "prediction", or "all" together.

    Raises:
        ConfigError: the column is none that the attribution keeps.

    Returns:
        The audit; ``.findings`` are ranked, ``.report()`` writes the page, a notebook shows a table.
    """
    data = as_audit_data(dataset)
    step = attribution or Attribution()
    _check_column(column, step)
    clock = [time.perf_counter()]
    run = attribute_dataset(model, data, out, step, device=device, report=report)
    clock.append(time.perf_counter())
    suited = suited_to(run, step.table, column, analysis or Analysis())
    handle = analyze(
        run,
        suited,
        relevance=step.table,
        column=column,
        group_by=group_by,
        device=str(device),
        progress=report,
    )
    clock.append(time.perf_counter())
    find(run, handle, findings, model=model, dataset=data, device=device, report=report)
    clock.append(time.perf_counter())
    stages = ("attribute", "analyze", "verify")
    return Audit(run, handle, {name: clock[i + 1] - clock[i] for i, name in enumerate(stages)})


def open_audit(path: str | Path, analysis: str | None = None) -> Audit:
    """The audit in a store, without its model and data."""
    run = stores.open(path)
    return Audit(run, run.analysis(analysis))


def _check_column(column: str, step: Attribution) -> None:
    """Refuse a column before the long work, not after it."""
    kept = [f"{Layer.parse(layer).name}.{kind}" for layer in step.layers for kind in ("channel", "place")]
    kept += ["input.place", *(["input.full"] if step.full else [])]
    if column not in kept:
        raise ConfigError(
            f"analysis: column: '{column}' is not kept; there will be {', '.join(sorted(kept))}. "
            "Name its module among the layers."
        )


def suited_to(run: Run, table: str, column: str, analysis: Analysis) -> Analysis:
    """The same analysis, without pooling over places where the stored relevance has no two axes of place."""
    known = run.table(table).columns
    pooled = analysis.representation
    if column not in known or len(known[column].shape) > 1 or not isinstance(pooled, Pooled):
        return analysis
    return replace(analysis, representation=Channels(pooled.sign, pooled.norm))


def choose_device(name: str) -> torch.device:
    """The device of this name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: there is no such device on this machine.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    kind, _, number = name.partition(":")
    if not there.get(kind, False) or not (number or "0").isdigit():
        raise ConfigError(
            f"device: got '{name}', and this machine has "
            f"{', '.join(sorted(kind for kind, found in there.items() if found))}."
        )
    return torch.device(name)


def model_of(config: ModelConfig) -> nn.Module:
    """The model of a configuration.

    Raises:
        SpecError: no model is given, or it cannot be loaded.
    """
    if not config.spec:
        raise SpecError(
            "No model given: --model torchvision:NAME, FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION."
        )
    return load_model(config.spec, Path(config.weights) if config.weights else None)


def load_data(config: DataConfig) -> AuditData:
    """The data set of a configuration: a folder of images, or what a function returns.

    Raises:
        SpecError: no data set is given, or the class file is missing.
    """
    if not config.spec:
        raise SpecError("No data set given: name a folder CLASS/NAME.jpg, or FILE.py:FUNCTION.")
    classes = _class_names(config.classes)
    if Path(config.spec).is_dir() or ":" not in config.spec:
        preprocessing = Preprocessing(config.resize, config.crop, config.mean, config.std)
        masks = Path(config.masks) if config.masks else None
        return _told(ImageFolder(Path(config.spec), preprocessing, classes, masks))
    if config.masks:
        raise SpecError(
            f"masks are of a folder's images; what '{config.spec}' returns brings its own, as metadata 'mask'."
        )
    dataset = call(config.spec)
    try:
        return as_audit_data(dataset, classes=classes or None)
    except (TypeError, ValueError) as error:
        raise SpecError(f"What '{config.spec}' returned cannot be audited: {error}") from error


def _told(folder: ImageFolder) -> ImageFolder:
    """The folder; files in it that are taken for no image are told of, for their number may be a mistake."""
    if folder.passed_over:
        endings = ", ".join(
            f"{count} {ending or 'without ending'}" for ending, count in folder.passed_over.most_common(5)
        )
        warnings.warn(
            f"{folder.root}: {folder.passed_over.total()} files are left out, for their endings are of no image "
            f"format that is read ({endings}). Convert them to PNG or JPEG if they are images.",
            stacklevel=2,
        )
    if folder.masks is not None and len(folder.masked) < len(folder.ids):
        warnings.warn(
            f"{folder.masks}: {len(folder.ids) - len(folder.masked)} of {len(folder.ids)} images have no mask there; "
            "their object counts as not known.",
            stacklevel=2,
        )
    return folder


def _class_names(path: str) -> tuple[str, ...]:
    if not path:
        return ()
    if not Path(path).is_file():
        raise SpecError(f"There is no file of class names at {Path(path).resolve()}.")
    lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def attribution_step(config: AttributionConfig) -> Attribution:
    """The step that a configuration describes."""
    values = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    given = config.target if isinstance(config.target, tuple) else (config.target,)
    return Attribution(**{**values, "target": tuple(_class_or_text(target) for target in given)})


def _class_or_text(target: str | int) -> str | int:
    return int(target) if str(target).isdecimal() else target


def analysis_step(config: AnalysisConfig) -> Analysis:
    """The step that a configuration describes.

    Raises:
        ConfigError: there is no such representation, sign or clustering, or the representation is not for this column.
    """
    names = (Pooled.name if config.representation == "auto" else config.representation).split("+")
    for name in names:
        _one_of(
            "analysis: representation",
            name,
            [*REPRESENTATIONS, "auto"] if len(names) == 1 else REPRESENTATIONS,
        )
    _one_of("analysis: sign", config.sign, get_args(Sign))
    for clustering in config.clusterings:
        _one_of("analysis: clusterings", clustering, CLUSTERINGS)
    if Channels.name in names and config.column.endswith(".place"):
        raise ConfigError(
            f"analysis: representation: '{Channels.name}' is for columns LAYER.channel; column is '{config.column}'."
        )
    if config.pca < 0 or config.seed < 0:
        raise ConfigError(f"analysis: pca and seed are 0 or more; got {config.pca} and {config.seed}.")
    parts = tuple(REPRESENTATIONS[name](sign=cast(Sign, config.sign)) for name in names)
    return Analysis(
        representation=parts[0] if len(parts) == 1 else Joint(parts),
        reduction=Reduced(config.pca) if config.pca else PCA(),
        clusterings=tuple(CLUSTERINGS[clustering]() for clustering in config.clusterings),
        neighbours=NearestNeighbours(k=config.neighbours),
        eigenvectors=config.eigenvectors,
        picture=config.picture,
        seed=config.seed,
    )


def group_by_of(name: str) -> GroupBy:
    """The grouping of this name, checked."""
    _one_of("analysis: group_by", name, get_args(GroupBy))
    return cast(GroupBy, name)


def _one_of(entry: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ConfigError(f"{entry}: got {name!r}, expected one of {', '.join(known)}.")


def findings_step(config: VerifyConfig) -> Findings:
    """The step that a configuration describes.

    Raises:
        ConfigError: there is no such clustering, no such fill or fewer than have to agree, no such score to rank by, or
            a number is none that can be followed.
    """
    _one_of("verify: clustering", config.clustering, (*CLUSTERINGS, AUTO))
    for name in config.fills:
        _one_of("verify: fills", name, FILLS)
    fills = tuple(FILLS[name] for name in dict.fromkeys(config.fills))
    if len(fills) < Requirements().fills:
        raise ConfigError(
            f"verify: fills: got {', '.join(config.fills) or 'none'}; {Requirements().fills} different ones have to "
            f"agree before anything is confirmed. Choose of {', '.join(FILLS)}."
        )
    try:
        verification = Verification(
            members=config.members, budget=config.budget, fills=fills, seed=config.seed
        )
        ranking = rank_of(config.rank, {**SCORES, ASSOCIATION: None})
    except ValueError as error:
        raise ConfigError(f"verify: {error}") from error
    return Findings(
        clustering=config.clustering, verification=verification, ranking=ranking, seed=config.seed
    )


def attribute_config(
    config: AuditConfig,
    *,
    cluster_spec: str | None = None,
    share: str | None = None,
    retry_failed: bool = False,
    report: Report = silent,
) -> Run:
    """The attribution stage of a configuration: here, on a Dask cluster, or one process's share of it.

    Args:
        cluster_spec: "local:4", "tcp://host:port" or "slurm:profile.toml".
        share: "i::n", every n-th shard from number i on.
        retry_failed: compute shards anew that have samples which failed and can be read by now.

    Raises:
        ConfigError: a share is given with one of the others, or has another form.
    """
    if retry_failed and share:
        raise ConfigError(
            "--retry-failed takes shards back, which is for one process to do: give it without --shards."
        )
    if cluster_spec and share:
        raise ConfigError("--cluster and --shards share the same work in two ways: give one of them.")
    model, data, step = model_of(config.model), load_data(config.data), attribution_step(config.attribution)
    device = choose_device(config.device)
    if cluster_spec:
        from spray.attribution.launch import cluster

        with cluster(cluster_spec) as client:
            return attribute_dataset(
                model,
                data,
                config.out,
                step,
                device=device,
                client=client,
                retry_failed=retry_failed,
                report=report,
            )
    if share:
        first, _, count = share.partition("::")
        if not first.isdecimal() or not count.isdecimal() or int(count) < 1:
            raise ConfigError(
                f"--shards: got '{share}', expected i::n, such as 0::2 and 1::2 for two processes."
            )
        return attribute_share(
            model, data, config.out, step, share=int(first), of=int(count), device=str(device), report=report
        )
    return attribute_dataset(
        model, data, config.out, step, device=device, retry_failed=retry_failed, report=report
    )


def run_config(config: AuditConfig, report: Report = silent) -> Audit:
    """The audit that a configuration describes, without its report."""
    return audit(
        model_of(config.model),
        load_data(config.data),
        config.out,
        attribution=attribution_step(config.attribution),
        analysis=analysis_step(config.analysis),
        findings=findings_step(config.verify),
        column=config.analysis.column,
        group_by=group_by_of(config.analysis.group_by),
        device=choose_device(config.device),
        report=report,
    )
