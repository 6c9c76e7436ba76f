"""What `spray info` says of the checks of every sample: right sums, in words."""

from pathlib import Path

import numpy as np
import pytest
import torch
from audit_tools import Images, tiny_model

import stores
from spray.attribution import Attribution, attribute_dataset
from spray.cli.checks import checks, in_words


def store(
    path: Path, start: str = "logit", start_values: list[float] | None = None, **columns: list[float]
) -> stores.Run:
    """Four samples of two classes; the target's logits are 2, −1, 3 and 0.5."""
    run = stores.create(path / "run.zarr", classes=["a", "b"], samples=4, provenance={})
    made = stores.Provenance(({"name": "Attribution", "start": start},))
    samples = [stores.Column("logits", "float32", (2,), ("class",))]
    run.create_table("samples", samples, rows_per_shard=4, provenance=made).write(
        0, {"logits": np.array([[2, 0], [0, -1], [3, 0], [0, 0.5]], np.float32)}
    )
    names = ("start", "sum", "absolute", *columns)
    table = run.create_table(
        "relevance/lrp",
        [stores.Column("target", "int64"), *(stores.Column(name, "float64", missing=True) for name in names)],
        rows_per_shard=4,
        provenance=made,
    )
    begun = start_values or ([2, -1, 3, 0.5] if start == "logit" else [1.0] * 4)
    values = {
        "target": [0, 1, 0, 1],
        "start": begun,
        "sum": [1.0] * 4,
        "absolute": [1.0, 2.0, 3.0, 90.0],
        **columns,
    }
    table.write(0, values)
    return run


@pytest.mark.parametrize("start", ["logit", "unit"])
def test_negative_logits_are_counted_wherever_the_relevance_starts(tmp_path: Path, start: str) -> None:
    run = store(tmp_path, start)
    found = checks(run, run.table("relevance/lrp"))
    assert found["negative_starts"] == 1 and found["median_spread"] == 2.5 and found["outliers"] == 1
    assert "1 samples start from a negative logit" in in_words(found)


def test_imported_maps_do_not_tell_where_they_started(tmp_path: Path) -> None:
    unknown = [np.nan] * 4
    run = store(tmp_path, absorbed=unknown, unaccounted=unknown, start_values=unknown)
    found = checks(run, run.table("relevance/lrp"))
    assert found.keys() == {"median_spread", "outliers"}
    said = in_words(found)
    assert "where relevance started is not known" in said and "nan" not in said


def test_relevance_that_is_found_nowhere_is_told(tmp_path: Path) -> None:
    run = store(tmp_path, unaccounted=[0.002, 0.5, 0.0, -0.004])
    found = checks(run, run.table("relevance/lrp"))
    assert found["unaccounted"] == 1 and found["largest_unaccounted"] == 0.5
    said = in_words(found)
    assert "differ by more than 1 % in 1 samples (median 0.45 %, largest 50 %)" in said
    assert "does not conserve" not in said
    more = store(tmp_path / "more", unaccounted=[1.2, 0.996, 1.2, 1.2])
    assert "median 80 %, largest 240 %" in in_words(checks(more, more.table("relevance/lrp")))
    other = store(tmp_path / "other", unaccounted=[1.0, 1.0, 0.0, 0.1])
    assert "does not conserve relevance here" in in_words(checks(other, other.table("relevance/lrp")))


def test_a_conserving_audit_has_nothing_unaccounted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = attribute_dataset(tiny_model(), Images(12), tmp_path / "run.zarr", Attribution("epsilon_plus"))
    found = checks(run, run.table("relevance/epsilon_plus"))
    assert found["unaccounted"] == 0 and 0 <= found["largest_unaccounted"] < 1e-4
