"""Two audits side by side: what vanished, appeared, moved or stayed, told as data, on the terminal and on a page."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from audit_tools import Images, tiny_model
from browser import chromium, in_browser
from click.testing import CliRunner

import reports
import stores
from spray.attribution import Attribution, attribute_dataset
from spray.cli import main
from spray.comparison import ComparisonError, compare
from spray.comparison.audited import Audited
from spray.comparison.matching import Traits, best_shift, jaccard
from spray.data import as_audit_data
from stores import Clustering, Finding, GroupAnalysis, Provenance, Run
from stores.exchange import import_maps

GRID = 10
N = 60


def box(y: int, x: int, side: int = 3) -> np.ndarray:
    region = np.zeros((GRID, GRID), bool)
    region[y : y + side, x : x + side] = True
    return region


def audited(
    path: Path,
    strategies: dict[str, tuple[Sequence[int], tuple[int, int]]],
    *,
    ids: Sequence[str] | None = None,
    classes: Sequence[str] = ("round", "square"),
    flagged: Sequence[str] = (),
    wrong: Sequence[int] = (),
    grid: int = GRID,
    noise: int | None = None,
    status: str = "ok",
) -> Run:
    """A store of N samples of the first class; each strategy has its rows, and relevance in a box at its place."""
    maps = np.full((N, 1, grid, grid), 0.01)
    if noise is not None:
        maps += np.random.default_rng(noise).normal(scale=0.05, size=maps.shape)
    for rows, (y, x) in strategies.values():
        maps[list(rows), :, y : y + 3, x : x + 3] = 1.0
    logits = np.tile([2.0, 1.0], (N, 1))
    logits[list(wrong)] = [1.0, 2.0]
    pictures = np.full((N, 8, 8, 1), 99, np.uint8)
    import_maps(
        path,
        maps,
        ids=list(ids or [f"{row}.png" for row in range(N)]),
        labels=np.zeros(N, int),
        classes=list(classes),
        logits=logits,
        thumbnails=pictures,
        grid=grid,
        full=False,
    )
    run = stores.open(path, "r+")
    facts = {
        "relevance": "relevance/imported",
        "column": "input.place",
        "group_by": "label",
        "grid": [grid, grid],
    }
    handle = run.create_analysis(Provenance(({"name": "drawn", "n": len(strategies)},)), facts=facts)
    labels = np.full(N, -1)
    units = maps[:, 0] / np.linalg.norm(maps[:, 0], axis=(1, 2), keepdims=True)
    findings = []
    for number, (name, (rows, place)) in enumerate(strategies.items()):
        labels[list(rows)] = number
        region = np.zeros((grid, grid), bool)
        region[place[0] : place[0] + 3, place[1] : place[1] + 3] = True
        score = 0.5 if name in flagged else 0.05
        mean_map = units[list(rows)].mean(0).astype(np.float32)
        parts = {"necessity": score, "sufficiency": None}
        rows = np.array(rows)
        findings.append(
            Finding(
                name,
                0,
                "hdbscan",
                (number,),
                rows,
                score,
                name in flagged,
                parts,
                region,
                mean_map,
                summary=name,
            )
        )
    nothing = np.zeros(0, np.int64)
    group = GroupAnalysis(
        0, status, np.arange(N), nothing, nothing, np.zeros(2), np.zeros((N, 2)), 1, 2, {},
        {"hdbscan": Clustering(labels)}, {},
    )  # fmt: skip
    handle.write(group)
    handle.write_findings(sorted(findings, key=lambda it: -it.score), Provenance(({"name": "drawn"},)))
    return run


LEFT = {"tag": (range(10), (0, 0)), "honest": (range(10, 30), (4, 4)), "wanders": (range(30, 50), (0, 6))}
RIGHT = {"same": (range(10, 31), (4, 4)), "wandered": (range(30, 48), (6, 0)), "new": (range(50, 60), (7, 7))}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("pair")
    left = audited(folder / "before.zarr", LEFT, flagged=["tag"])
    return left, audited(folder / "after.zarr", RIGHT, wrong=range(4))


def test_classes_of_one_name_stay_apart(tmp_path: Path) -> None:
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=90, names=["crane", "cat", "crane"])
    known = {"crane (class 0)": 0, "cat": 1, "crane (class 2)": 2}
    assert Audited.open(run, None).groups == {
        name: known[name] for name in known if known[name] in run.analysis().groups
    }
    compared = compare(run, run)
    assert {it.class_name for it in compared.classes} == known.keys()
    assert len(compared.pairs) == len(run.analysis().findings())


def test_an_audit_that_was_not_tested_is_told_beside_one_that_was(tmp_path: Path) -> None:
    tested, other = (stores.synthetic.make(tmp_path / name, samples=60) for name in ("a.zarr", "b.zarr"))
    assert compare(tested, other).notes == ()
    handle = other.analysis()
    bare = [dataclasses.replace(it, evidence={}, flagged=False) for it in handle.findings()]
    handle.write_findings(bare, Provenance(({"type": "findings", "ranking": "separation"},)))
    (note,) = compare(tested, other).notes
    assert "The second audit was not tested by intervention" in note and "spray verify" in note
    assert "The first audit" in compare(other, tested).notes[0]
    said = CliRunner().invoke(main, ["compare", str(tested.path), str(other.path)])
    assert "was not tested by intervention" in said.output.replace("\n", " ")
    again = tested.analysis()
    again.write_findings(again.findings(), Provenance(({"type": "findings", "ranking": "causal"},)))
    assert "other settings in the two audits (ranking)" in compare(tested, other).notes[1]


def test_strategies_of_the_same_samples_are_matched_by_their_members(pair: tuple[Run, Run]) -> None:
    found = compare(*pair)
    told = {it.change: (it.left and it.left.name, it.right and it.right.name) for it in found.pairs}
    assert told == {
        "vanished": ("tag", None),
        "kept": ("honest", "same"),
        "moved": ("wanders", "wandered"),
        "appeared": (None, "new"),
    }
    assert found.by == "members" and found.shared == N
    first = found.pairs[0]
    assert first.change == "vanished" and first.flagged and first.elsewhere == pytest.approx(0.6)
    kept = next(it for it in found.pairs if it.change == "kept")
    assert kept.jaccard == pytest.approx(20 / 21) and kept.overlap == 1.0 and kept.likeness > 0.7
    (entry,) = found.classes
    assert entry.class_name == "round" and entry.left is not None and entry.right is not None
    assert (entry.left.flagged, entry.right.flagged) == (1, 0)
    assert (entry.left.accuracy, entry.right.accuracy) == (1.0, pytest.approx(56 / 60))
    assert 0 < entry.adjusted_rand < 1
    same = compare(pair[0], pair[0])
    assert {it.change for it in same.pairs} == {"kept"} and same.classes[0].adjusted_rand == 1.0
    assert [it.change for it in compare(pair[1], pair[0]).pairs].count("vanished") == 1


def test_other_samples_are_matched_by_where_relevance_lies(pair: tuple[Run, Run], tmp_path: Path) -> None:
    strategies = {
        "same": (range(20), (0, 0)),
        "shifted": (range(20, 40), (4, 6)),
        "elsewhere": (range(40, 45), (7, 7)),
    }
    other = audited(tmp_path / "other.zarr", strategies, ids=[f"other {row}" for row in range(N)])
    found = compare(pair[0], other)
    assert found.by == "maps" and found.shared == 0
    told = {it.left.name: it for it in found.pairs if it.left is not None}
    assert told["tag"].change == "kept" and told["tag"].right.name == "same" and told["tag"].jaccard is None
    assert told["honest"].change == told["wanders"].change == "moved"
    assert told["honest"].shift is not None and told["honest"].right.name in ("shifted", "elsewhere")
    assert compare(pair[0], pair[1], by="maps").by == "maps"


@pytest.mark.parametrize("members", [N, N - 3])
def test_a_class_that_is_one_strategy_in_both_audits_is_kept(tmp_path: Path, members: int) -> None:
    """Its mean less that of the class is nothing, or noise: the maps themselves are compared."""
    runs = [
        audited(
            tmp_path / f"{side}.zarr",
            {"whole": (range(count), place)},
            ids=[f"{side} {row}" for row in range(N)],
            noise=side,
        )
        for side, (count, place) in enumerate([(N, (4, 4)), (members, (4, 5)), (members, (0, 0))])
    ]
    (kept,) = compare(runs[0], runs[1]).pairs
    assert kept.change == "kept" and kept.overlap == pytest.approx(0.5) and 0.5 < kept.likeness < 0.8
    (same,) = compare(runs[0], runs[0], by="maps").pairs
    assert same.change == "kept" and same.likeness == pytest.approx(1.0)
    (elsewhere,) = compare(runs[0], runs[2]).pairs
    assert elsewhere.change == "moved" and elsewhere.shift == (-4, -4)


def one_strategy_each(
    path: Path,
    names: Sequence[str] = ("cat", "dog", "cow"),
    *,
    by: str = "label",
    seed: int = 0,
    **attribution: object,
) -> Run:
    """A store of 24 images of three classes whose pixels are known, each class one strategy."""
    images = Images(24)
    images.classes = tuple(names)
    settled = Attribution(**{"block": 8, "grid": 8, **attribution})
    run = attribute_dataset(tiny_model(), as_audit_data(images), path, settled)
    (table,) = (name for name in run.tables() if name.startswith("relevance/"))
    facts = {"relevance": table, "column": "input.place", "group_by": by, "grid": [8, 8]}
    handle = run.create_analysis(Provenance(({"representation": "pooled", "seed": seed},)), facts=facts)
    nothing = np.zeros(0, np.int64)
    for group in range(3):
        rows = np.arange(group, 24, 3)
        handle.write(
            GroupAnalysis(
                group, "ok", rows, nothing, nothing, np.zeros(2), np.zeros((8, 2)), 1, 1, {}, {}, {}
            )
        )
    found = [
        Finding(f"c{group}.f0", group, "hdbscan", (0,), np.arange(group, 24, 3), 0.1, False, {}, None, None)
        for group in range(3)
    ]
    handle.write_findings(found, Provenance(({"name": "drawn"},)))
    return run


def test_a_class_by_two_names_is_one_where_the_samples_are_the_same(tmp_path: Path) -> None:
    one = one_strategy_each(tmp_path / "one.zarr", ["cat", "dog", "cow"])
    for at, (names, told) in enumerate(
        (
            (["cat", "hound", "cow"], "dog → hound"),
            (["dog", "cat", "cow"], "cat → dog, dog → cat"),
            (["Katze", "Hund", "Kuh"], "cat → Katze, dog → Hund, cow → Kuh"),
        )
    ):
        found = compare(one, one_strategy_each(tmp_path / f"{at}.zarr", names))
        assert [it.change for it in found.pairs] == ["kept"] * 3
        assert all(it.left.name == it.right.name for it in found.pairs)
        assert set(told.split(", ")) <= {it.class_name for it in found.pairs}
        assert found.notes == (
            f"Compared as one class, for they have the same samples under two names: {told}.",
        )


def test_what_else_than_model_and_data_differs_is_told(tmp_path: Path) -> None:
    one = one_strategy_each(tmp_path / "one.zarr")
    assert compare(one, one_strategy_each(tmp_path / "same.zarr", layers=("0",), block=6)).notes == ()
    for at, (changed, told) in enumerate(
        (
            (
                {"composite": "lrp_0"},
                "Explained by other relevance, epsilon_plus_flat input.place and lrp_0 ",
            ),
            ({"target": "prediction"}, "Explained by other relevance, epsilon_plus_flat input.place and "),
            (
                {"start": "unit"},
                "Relevance was computed with other settings in the two audits (start)",
            ),
            ({"by": "prediction"}, "Grouped by label in the first audit and by prediction in the second"),
            ({"seed": 1}, "Analysed with other settings in the two audits (seed)"),
        )
    ):
        (note,) = compare(one, one_strategy_each(tmp_path / f"{at}.zarr", **changed)).notes
        assert note.startswith(told) and "differ for that alone" in note


def test_ids_alone_do_not_say_that_a_class_has_another_name(pair: tuple[Run, Run], tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match="no class in common"):
        compare(pair[0], audited(tmp_path / "run.zarr", LEFT, classes=("circle", "square")))


def test_a_class_that_one_audit_did_not_analyse_neither_vanished_nor_appeared(
    pair: tuple[Run, Run], tmp_path: Path
) -> None:
    empty = audited(tmp_path / "empty.zarr", {}, status="empty")
    found = compare(pair[0], empty)
    assert {it.change for it in found.pairs} == {"unseen"} and found.counts().endswith("0 kept, 3 unseen")
    (note,) = found.notes
    assert note.startswith("Not analysed in the second audit: round (no samples).") and "vanished" in note
    assert "Not analysed in the first" in compare(empty, pair[0]).notes[0]
    assert "appeared" in compare(empty, pair[0]).notes[0]
    assert compare(empty, empty).notes == ()
    shown = CliRunner().invoke(main, ["compare", str(pair[0].path), str(empty.path), "--quiet"])
    assert "0 kept, 3 unseen" in shown.output.replace("\n", " ")
    page = reports.write_comparison(found, tmp_path / "c.html").read_text("utf-8")
    assert page.count("This class was not analysed here.") == 3 and "No such strategy" not in page
    assert "unseen" not in compare(*pair).counts()


def test_the_best_shift_is_found_and_jaccard_counts() -> None:
    one, other = box(1, 2).astype(float), box(5, 3).astype(float)
    assert best_shift(one, other) == (pytest.approx(1.0), (4, 1))
    assert best_shift(one, np.zeros((GRID, GRID)))[0] == 0.0
    assert jaccard(np.array([1, 2, 3]), np.array([3, 4])) == 0.25
    assert jaccard(np.zeros(0, int), np.zeros(0, int)) == 0.0
    assert Traits(np.zeros(0, int), None, None).region is None


def test_the_same_id_with_other_pixels_is_another_sample(tmp_path: Path) -> None:
    runs = []
    for name, change in (("one", 0.0), ("two", 0.5)):
        images = Images(24)
        images.images[:6] += change
        path = tmp_path / f"{name}.zarr"
        run = attribute_dataset(tiny_model(), as_audit_data(images), path, Attribution(block=8, grid=8))
        facts = {
            "relevance": "relevance/epsilon_plus_flat",
            "column": "input.place",
            "group_by": "label",
            "grid": [8, 8],
        }
        handle = run.create_analysis(Provenance(({"name": "none"},)), facts=facts)
        nothing = np.zeros(0, np.int64)
        empty = GroupAnalysis(
            0, "empty", nothing, nothing, nothing, np.zeros(0), np.zeros((0, 0)), 0, 1, {}, {}, {}
        )
        handle.write(empty)
        handle.write_findings([], Provenance(({"name": "none"},)))
        runs.append(run)
    found = compare(*runs)
    assert found.shared == 18 and "6 of 24 common ids have other pixels" in found.notes[0]
    assert found.pairs == () and found.columns() == {"class": [], "change": []}


def test_mistakes_are_named(pair: tuple[Run, Run], tmp_path: Path) -> None:
    bare = tmp_path / "bare.zarr"
    stores.create(bare, classes=["round"], samples=3, provenance={})
    with pytest.raises(ComparisonError, match="no analysis yet: run `spray analyze"):
        compare(pair[0], bare)
    others = audited(tmp_path / "others.zarr", LEFT, classes=("ship", "boat"))
    with pytest.raises(ComparisonError, match=r"no class in common: round; and ship"):
        compare(pair[0], others)
    fine = audited(tmp_path / "fine.zarr", LEFT, ids=[f"x{row}" for row in range(N)], grid=14)
    with pytest.raises(ComparisonError, match=r"different grids, 10×10 and 14×14"):
        compare(pair[0], fine)
    with pytest.raises(ComparisonError, match="no sample in common"):
        compare(pair[0], fine, by="members")


def test_different_grids_of_the_same_samples_leave_places_out(pair: tuple[Run, Run], tmp_path: Path) -> None:
    fine = audited(tmp_path / "fine.zarr", LEFT, grid=14)
    found = compare(pair[0], fine)
    assert {it.change for it in found.pairs} == {"kept"}
    assert all(it.overlap is None and it.likeness is None for it in found.pairs)


def test_the_command_prints_writes_and_does_not_overwrite(pair: tuple[Run, Run], tmp_path: Path) -> None:
    paths = [str(run.path) for run in pair]
    page, sheet = tmp_path / "c.html", tmp_path / "c.csv"
    base = ["compare", *paths, "--quiet", "--out", str(page), "--csv", str(sheet)]
    shown = CliRunner().invoke(main, base)
    assert shown.exit_code == 0, shown.output
    assert "vanished" in shown.output and "Flagged 1 → 0" in shown.output
    again = CliRunner().invoke(main, base)
    assert again.exit_code == 2 and "there already" in again.output
    told = CliRunner().invoke(main, [*base, "--force", "--json"])
    result = json.loads(told.output)
    assert result["changes"] == {"vanished": 1, "appeared": 1, "moved": 1, "kept": 1, "unseen": 0}
    assert result["strategies"][0]["left_name"] == "tag" and result["strategies"][0]["right_name"] is None
    with sheet.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["change"] == "vanished" and rows[0]["right_score"] == ""
    assert len(rows) == 4 and not list(tmp_path.glob(".*partial"))


@in_browser
def test_the_page_shows_both_sides_offline_and_hostile_names_do_nothing(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    classes = (f"{hostile}</h3>", "square")
    left = audited(
        tmp_path / "a.zarr",
        {f"{hostile}": LEFT["tag"], "b": LEFT["honest"]},
        classes=classes,
        flagged=[hostile],
    )
    right = audited(tmp_path / "b.zarr", {"b": LEFT["honest"]}, classes=classes)
    page = reports.write_comparison(compare(left, right), tmp_path / "c.html", title=hostile)
    seen: list[str] = []
    with chromium() as browser:
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
            view = context.new_page()
            view.on("request", lambda request: seen.append(request.url))
            view.on("dialog", lambda dialog: seen.append("dialog"))
            view.on("console", lambda message: seen.append(message.text))
            view.goto(f"file://{page}")
            assert view.locator("article.pair").count() == 2
            assert view.locator("article.vanished.flagged h3").inner_text() == f"{hostile}</h3>"
            assert view.locator("article.vanished .pictures svg path").count() == 1
            broken = view.evaluate("[...document.images].filter(it => !it.naturalWidth).length")
            assert broken == 0 and view.evaluate("document.images.length") == 18
            context.close()
    assert {url for url in seen if not url.startswith(("data:", f"file://{page}"))} == set()
