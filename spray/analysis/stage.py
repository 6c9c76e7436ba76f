"""The spectral analysis of a group of samples, from relevance maps to strategies (Lapuschkin et al. 2019).

    maps → representation → neighbourhood graph → spectrum of L_sym → eigengap against the null
         → clusterings and a picture of the spectral embedding

`Analysis.group` does this for arrays; `spray.analyze` for every class of a stored run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from spray.analysis import embedding
from spray.analysis.clustering import HDBSCAN, Clusterer, KMeans, together, with_components
from spray.analysis.copies import counted_once
from spray.analysis.features import (
    PCA,
    Pooled,
    Representation,
    require_channels,
    require_row_by_row,
    transformed,
    usable,
)
from spray.analysis.graph import Graph, NearestNeighbours, Neighbourhood
from spray.analysis.groups import GroupBy, choose_groups, choose_table, gathered_features
from spray.analysis.null import GaussianNull
from spray.analysis.parallel import in_processes, one_thread, unvalidated, worthwhile_workers
from spray.analysis.spectral import Spectrum, eigengap, spectrum
from spray.analysis.stability import Stability
from spray.journal import journal
from stores import AnalysisHandle, Run, Table
from stores.analysis import Clustering, GroupAnalysis
from stores.circumstances import FAILED, SELECTION, failed_rows, failed_samples
from stores.provenance import Json, Provenance, describe

Progress = Callable[[int, int, str], None]
"""``progress(done, total, what)``"""

RESAMPLED = 1e-4
"""Tolerance of the solver's residuals in resamples, of which only labels are kept."""
_IDENTICAL = 1e-6
"""Feature vectors that differ by no more than this part of their largest entry are one and the same."""


@dataclass(frozen=True)
class Analysis:
    """All steps and parameters of the spectral analysis; equal values give equal results.

    ``eigenvectors``: how many are computed, and up to how many strategies are looked for (one fewer); of a graph in
    pieces, one more for each further piece, but for small ones of many. A clustering that is asked for more gets
    as many as it needs.
    ``tolerance``: of the solver's residuals; the eigenvalues' errors are about its square, more where many crowd.
    ``reduction``: applied to the features where neighbours are approximate; exact ones use them whole, unless it is
    ``Reduced``, which is part of the representation.
    ``picture``: "tsne", "umap", "none", or "auto", which saves small runs UMAP's start-up.
    """

    representation: Representation = field(default_factory=Pooled)
    neighbours: NearestNeighbours = field(default_factory=NearestNeighbours)
    reduction: PCA = field(default_factory=PCA)
    eigenvectors: int = 16
    tolerance: float = 1e-6
    null: GaussianNull = field(default_factory=GaussianNull)
    clusterings: tuple[Clusterer, ...] = field(default_factory=lambda: (KMeans(), HDBSCAN()))
    stability: Stability = field(default_factory=Stability)
    picture: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        embedding.choose(self.picture, 0)
        require_row_by_row(self.representation)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"a seed is a whole number from 0 to 4294967295; got {self.seed}.")
        if self.eigenvectors < 2:
            raise ValueError(f"an analysis needs at least 2 eigenvectors; got {self.eigenvectors}.")
        names = [clustering.name for clustering in self.clusterings]
        if len(set(names)) < len(names):
            raise ValueError(
                f"clusterings are told apart by name, and {names} has one twice; keep one of each."
            )

    def group(
        self,
        maps: Float[np.ndarray, "n ..."],
        rows: Int[np.ndarray, " n"] | None = None,
        group: int = 0,
    ) -> GroupAnalysis:
        """Analyse the relevance of one group of samples.

        Args:
            maps: relevance of each sample, of any shape that the representation takes.
            rows: row numbers of the samples in their store, ascending; 0, 1, … if left out.
            group: the group's index, for the record.
        """
        return self.features(transformed(self.representation, np.asarray(maps)), rows, group)

    def features(
        self,
        features: Float[np.ndarray, "n d"],
        rows: Int[np.ndarray, " n"] | None = None,
        group: int = 0,
    ) -> GroupAnalysis:
        """Analyse feature vectors that the representation has already made; the same as `group` otherwise."""
        rows = np.arange(len(features)) if rows is None else np.asarray(rows, dtype=np.int64)
        if len(rows) != len(features) or (np.diff(rows) <= 0).any():
            raise ValueError(
                f"row numbers must ascend, one per sample; got {len(rows)} for {len(features)} samples."
            )
        finite, zero = usable(features)
        kept = np.flatnonzero(finite & ~zero)
        sorted_out = _SortedOut(group, rows[kept], rows[zero], rows[~finite])
        used = features if len(kept) == len(features) else features[kept]
        if len(used) < 2:
            return self._trivial(sorted_out, "single" if len(used) else "empty")
        if self._same(used):
            return self._trivial(sorted_out, "identical")
        return self._spectral(sorted_out, self.reduction.transform(used) if self.reduction.always else used)

    def _same(self, used: Float[np.ndarray, "m d"]) -> bool:
        """Whether nothing that could be grouped tells vectors apart: of one length the sign of flat maps does not."""
        flat = self.representation.norm != "none" and used.shape[1] > 1
        if flat and (np.ptp(used, axis=1) <= _IDENTICAL * np.abs(used).max(1)).all():
            return True
        return bool(np.ptp(used, axis=0).max() <= _IDENTICAL * np.abs(used).max())

    def _spectral(self, sorted_out: _SortedOut, features: Float[np.ndarray, "m d"]) -> GroupAnalysis:
        # Neighbours are the same on any number of threads: differences decide.
        counted = counted_once(self.neighbours, features, self.seed, self.reduction.transform)
        near, twins = counted.near, counted.twins
        with one_thread(), unvalidated():
            graph = near.affinity()
            solved = self._solve(graph)
            strategies, gap = self._strategies(near, solved)
            found = self._clusters(self.clusterings, graph, solved, strategies, twins)
            clusterings = {name: counted.spread(clustering) for name, clustering in found.items()}
            stability = self.stability.measure(
                {name: clustering.labels[counted.first] for name, clustering in clusterings.items()},
                lambda rows: self._labels_again(
                    near.among(rows), strategies - solved.without, None if twins is None else twins[rows]
                ),
                self.seed,
                among=solved.inside,
            )
            pictures = self._pictures(solved)
        return GroupAnalysis(
            group=sorted_out.group,
            status="ok",
            rows=sorted_out.rows,
            zero_rows=sorted_out.zero,
            invalid_rows=sorted_out.invalid,
            eigenvalues=solved.values,
            vectors=counted.all_of(solved.vectors),
            components=solved.components,
            strategies=strategies,
            eigengap=gap,
            clusterings=clusterings,
            pictures={name: counted.all_of(places) for name, places in pictures.items()},
            facts={
                **near.facts(),
                **counted.facts(),
                "stability": stability,
                **solved.facts(),
            },
        )

    def _strategies(self, near: Neighbourhood, solved: Spectrum) -> tuple[int, dict[str, Json]]:
        """The eigengap's number of strategies, or 1 where the null shows gaps as large.

        At least as many as there are components that are groups, or have no vectors: no test is needed to know these
        apart. Where there are more components than eigenvalues, these are the strategies.
        """
        if solved.all_zero:
            return solved.components, {"k": solved.components, "gap": 0.0, "runners_up": [], "null": {}}
        # More eigenvalues than are looked for may be there, for clusterings that ask for them.
        best, *others = eigengap(solved.all_values[: solved.components + self.eigenvectors - 1])
        norm = "none" if self.reduction.always else self.representation.norm
        tested = near.closed(solved.inside) if solved.without else near
        null = self.null.test(tested, self.eigenvectors, norm=norm, seed=self.seed)
        runners_up = [gap._asdict() for gap in others]
        return max(best.k if null.significant else 1, solved.groups), {
            **best._asdict(),
            "runners_up": runners_up,
            "null": dataclasses.asdict(null),
        }

    def _solve(self, graph: Graph) -> Spectrum:
        return spectrum(
            graph,
            self._computed,
            above_zero=self._computed - 1,
            seed=self.seed,
            tolerance=self.tolerance,
            device=self.neighbours.device,
            checked=True,
        )

    @property
    def _computed(self) -> int:
        """Eigenvectors that are computed: those asked for, by the analysis or a clustering."""
        return max([self.eigenvectors, *(step.eigenvectors(1) for step in self.clusterings)])

    def _clusters(
        self,
        steps: Sequence[Clusterer],
        graph: Graph,
        solved: Spectrum,
        strategies: int,
        twins: Int[np.ndarray, " m"] | None,
    ) -> dict[str, Clustering]:
        if solved.all_zero:
            return {step.name: Clustering(solved.component) for step in steps}
        if not solved.without:
            found = {step.name: step.cluster(solved.vectors, graph, strategies, self.seed) for step in steps}
        else:
            inside = solved.inside
            vectors, graph = solved.vectors[inside], graph[inside][:, inside]
            strategies -= solved.without
            found = {
                step.name: with_components(
                    step.cluster(vectors, graph, strategies, self.seed),
                    inside,
                    solved.component,
                    step.smallest(len(solved.component)),
                )
                for step in steps
            }
        return found if twins is None else {name: together(found[name], twins) for name in found}

    def _labels_again(
        self, graph: Graph, strategies: int, twins: Int[np.ndarray, " r"] | None
    ) -> dict[str, Int[np.ndarray, " r"]]:
        """The clusterings of a resample, for as many strategies as were found in all that had vectors."""
        wanted = min(
            max((step.eigenvectors(strategies) for step in self.clusterings), default=1), self._computed
        )
        solved = spectrum(
            graph, wanted, above_zero=wanted - 1, seed=self.seed, tolerance=RESAMPLED, checked=True
        )
        steps = [step.lighter() for step in self.clusterings]
        found = self._clusters(steps, graph, solved, strategies + solved.without, twins)
        return {name: clustering.labels for name, clustering in found.items()}

    def _pictures(self, solved: Spectrum) -> dict[str, Float[np.ndarray, "m 2"]]:
        name = embedding.choose(self.picture, len(solved.vectors))
        if name == "none":
            return {}
        inside, method = solved.inside, embedding.PICTURES[name]()
        if not solved.without:
            return {name: embedding.picture(method, solved.vectors, self.seed)}
        placed = embedding.picture(method, solved.vectors[inside], self.seed)
        return {name: embedding.beside(placed, inside, len(solved.vectors))}

    def _trivial(self, sorted_out: _SortedOut, status: str) -> GroupAnalysis:
        """What is known of samples that cannot be told apart: they are one cluster."""
        m = len(sorted_out.rows)
        name = embedding.choose(self.picture, m)
        return GroupAnalysis(
            group=sorted_out.group,
            status=status,
            rows=sorted_out.rows,
            zero_rows=sorted_out.zero,
            invalid_rows=sorted_out.invalid,
            eigenvalues=np.zeros(0),
            vectors=np.zeros((m, 0)),
            components=min(m, 1),
            strategies=min(m, 1),
            eigengap={"k": min(m, 1), "gap": 0.0, "runners_up": [], "null": {}},
            clusterings={step.name: Clustering(np.zeros(m, dtype=np.int64)) for step in self.clusterings},
            pictures={} if name == "none" else {name: np.zeros((m, 2), dtype=np.float32)},
        )


@dataclass(frozen=True)
class _SortedOut:
    """The samples of a group by whether they can be analysed."""

    group: int
    rows: Int[np.ndarray, " m"]
    zero: Int[np.ndarray, " z"]
    invalid: Int[np.ndarray, " f"]


def lineage(
    table: Table, failed: Sequence[int], column: str, group_by: GroupBy, settled: Analysis
) -> Provenance:
    """What gives an analysis its id: the relevance that was chosen, and the steps with their picture settled.

    Which samples had ``failed`` is part of it: what was made without them is not mixed with what is made with them.
    """
    without = failed_samples(failed)
    select: dict[str, Json] = {
        "name": SELECTION,
        "relevance": table.name,
        "column": column,
        "group_by": group_by,
        **({FAILED: without} if without else {}),
    }
    return Provenance((select, describe(settled)), (table.provenance.id,))


def analyze(
    run: Run,
    analysis: Analysis | None = None,
    *,
    relevance: str | None = None,
    column: str = "input.place",
    group_by: GroupBy = "label",
    groups: Sequence[int | str] | None = None,
    workers: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> AnalysisHandle:
    """Analyse the stored relevance of each class, or of all samples jointly, and store the results.

    Groups that are committed already are left alone, so an interrupted analysis goes on where it stopped.

    Args:
        run: a run opened for writing ("r+"), with its samples and the relevance complete.
        analysis: the steps and parameters; the defaults if left out.
        relevance: name of the relevance table; may be left out where there is one.
        column: which relevance, such as "input.place" or "layer4.channel".
        group_by: "label", "prediction", or "all" for one joint group over all classes.
        groups: the classes to analyse, by index or name; all if left out.
        workers: processes; one per core, where there are several groups worth it, if left out.
        device: where exact neighbours and, of large groups, eigenvectors are looked for; on another than the CPU one
            process works at a time.
        progress: called as ``progress(done, total, what)`` with the number of groups.

    Returns:
        The stored analysis. It is new if the steps, the relevance, the column or the grouping are.

    Raises:
        ValueError: the run has no such relevance or class, or the representation cannot take this column.
        stores.Uncommitted: the relevance is not complete.
    """
    table = choose_table(run, relevance)
    chosen = choose_groups(run, group_by, groups)
    stored = run.table(table)
    if column not in stored.columns:
        raise ValueError(f"{table} has no column {column!r}; it has {', '.join(stored.columns)}.")
    asked = analysis or Analysis()
    require_channels(asked.representation, column, stored.columns[column].shape)
    settled = dataclasses.replace(
        asked,
        picture=embedding.choose(asked.picture, run.n),
        neighbours=dataclasses.replace(asked.neighbours, device=device),
    )
    provenance = lineage(stored, failed_rows(run, stored), column, group_by, settled)
    grid = list(stored.columns[column].shape[-2:]) if column.endswith(".place") else None
    handle = run.create_analysis(
        provenance,
        facts={"relevance": table, "column": column, "group_by": group_by, "grid": grid},
        groups=chosen,
    )
    missing = {group: chosen[group] for group in handle.missing(chosen)}
    done = len(chosen) - len(missing)
    report = progress or (lambda done, total, what: None)
    report(done, len(chosen), "analysis")
    facts = {"analysis": handle.id, "groups": len(missing), "resumed": done > 0}
    with (
        journal(run.path, "analyze", **facts) as log,
        gathered_features(run, table, column, settled.representation, missing) as features,
    ):
        jobs = ((features[group], rows, group) for group, rows in missing.items())
        for result in in_processes(
            settled.features, jobs, worthwhile_workers(missing, workers if device == "cpu" else 1)
        ):
            handle.write(result)
            log("group", group=result.group, rows=len(result.rows), status=result.status)
            done += 1
            report(done, len(chosen), "analysis")
    return handle
