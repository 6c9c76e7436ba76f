"""CoRelAy and ViRelAy files (HDF5) into a run."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from stores.exchange import hdf5
from stores.exchange.corelay_analyses import groups, import_analysis
from stores.exchange.corelay_samples import Samples
from stores.exchange.label_map import LabelMap
from stores.exchange.maps import Report, import_maps
from stores.places import Location
from stores.run import Run


def import_virelay(
    out: Location,
    attribution: str | Path,
    *,
    inputs: str | Path | None = None,
    analyses: Sequence[str | Path] = (),
    label_map: str | Path | None = None,
    method: str = "imported",
    grid: int = 28,
    axes: str | None = None,
    report: Report = lambda done, total, what: None,
) -> Run:
    """Write a run from the files of a ViRelAy project, or from what CoRelAy wrote.

    Data sets and groups of single maps are read, single labels and boolean (multi-label) ones; of several
    labels none is taken for *the* label (−1), and all stand in the metadata column "labels".

    Args:
        out: path or URL of the run.
        attribution: file with ``attribution``, ``label``, ``prediction`` and maybe ``index``.
        inputs: file with ``data``, for thumbnails, and maybe ``label``, for those without a map. Samples that have a
            data set each keep its name as their id (that of the input, or of the map where the file has no
            ``index``), and all others their number.
        analyses: files with ``<category>/index``, ``embedding`` and ``cluster``; each becomes an analysis.
        label_map: JSON list of {index, word_net_id, name}.
        method: the table is called "relevance/<method>".
        grid: pooled maps have at most this many cells a side.
        axes: "channels-first" or "channels-last", where the shape of the maps alone does not tell.
        report: told how far it has come.

    Raises:
        StoreError: a file is not HDF5, lacks a data set or holds another than expected, or one that was never
            written whole; or the files do not fit together.
    """
    known = LabelMap.read(label_map)
    with hdf5.opened(attribution) as file:
        samples = Samples.of(file, attribution, inputs, known.names)
        for path in analyses:  # all of them are looked at before anything is written
            deque(groups(path, known.numbers, samples.rows, len(samples.classes)), maxlen=0)
        run = import_maps(
            out,
            samples.maps,
            ids=samples.ids,
            labels=samples.labels,
            classes=samples.classes,
            logits=samples.logits,
            thumbnails=samples.thumbnails,
            method=method,
            grid=grid,
            source={"format": "virelay", "attribution": Path(attribution).name},
            missing=dict.fromkeys(samples.absent, "no attribution in the file"),
            metadata={"labels": [", ".join(map(str, it)) for it in samples.all_labels]},
            axes=axes,
            report=report,
        )
        names = [Path(path).name for path in analyses]
        for number, (path, name) in enumerate(zip(analyses, names, strict=True)):
            place = number if names.count(name) > 1 else None
            import_analysis(run, path, method, grid, known.numbers, samples.rows, place)
    return run
