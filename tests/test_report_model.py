"""The report as data: what is read from a store, ranked and packed, without a browser."""

from __future__ import annotations

import base64
import gzip
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import stores
import stores.synthetic
from reports.blocks import blocks
from reports.carriers import read_models
from reports.images import ATLAS_SIDE, atlas, packed, quantise
from reports.model import ReportModel, top_probability
from reports.payload import column_payload, finite, page_payload, script_json, subject_payload
from reports.theme import (
    CLUSTER_COLOURS,
    COLOUR_MAPS,
    FLAGGED,
    SCALES,
    THEMES,
    contrast,
    rgb,
    style_variables,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stores.synthetic.make(tmp_path_factory.mktemp("report") / "run.zarr", samples=240)


@pytest.fixture(scope="module")
def model(run):
    return ReportModel.from_run(run)


def unpacked(record):
    content = base64.b64decode(record["data"])
    if record["gzip"]:
        content = gzip.decompress(content)
    return np.frombuffer(content, dtype=record["dtype"]).reshape(record["shape"])


def test_classes_stand_in_the_order_of_their_top_findings(run, model):
    findings = run.analysis().findings()
    order = list(dict.fromkeys(finding.group for finding in findings))
    assert [group.index for group in model.groups][: len(order)] == order
    assert model.groups[0].findings[0].key == findings[0].name
    assert model.groups[0].findings[0].flagged
    assert model.ranking == tuple(finding.name for finding in findings)


def test_members_are_those_of_the_finding_and_signed_by_the_stores_digest(run, model):
    for finding in run.analysis().findings():
        group = model.group(finding.group)
        subject = next(entry for entry in group.findings if entry.key == finding.name)
        np.testing.assert_array_equal(np.sort(group.samples.rows[subject.members]), finding.rows)
        ids = [str(name) for name in run.samples.read("id", finding.rows)]
        assert subject.digest == stores.members_digest(ids)


def test_members_come_most_central_first(model):
    subject = model.groups[0].findings[0]
    analysis = model.groups[0].analysis
    vectors = analysis.vectors[:, : max(2, analysis.strategies)].astype(float)
    unit = np.array([v / n if (n := np.sqrt((v * v).sum())) > 0 else v for v in vectors])[subject.members]
    distances = [float(np.sqrt(((row - unit.mean(0)) ** 2).sum())) for row in unit]
    assert distances == sorted(distances)


def test_every_cluster_can_be_judged_and_clusters_partition_the_class(model):
    for group in model.groups:
        for name, clustering in group.analysis.clusterings.items():
            clusters = [entry for entry in group.subjects if entry.clustering == name]
            assert {entry.key for entry in clusters} == {
                f"c{group.index}.{name}.{label}" for label in np.unique(clustering.labels)
            }
            together = np.concatenate([entry.members for entry in clusters])
            np.testing.assert_array_equal(np.sort(together), np.arange(len(clustering.labels)))


def test_confidence_is_the_softmax_of_the_prediction(run, model):
    group = model.groups[0]
    logits = run.samples.read("logits", group.samples.rows).astype(np.float64)
    plain = np.array([np.exp(row).max() / np.exp(row).sum() for row in logits])
    np.testing.assert_allclose(group.samples.confidence, plain, rtol=1e-9)
    assert top_probability(np.array([[1e4, 0.0]]))[0] == 1.0
    assert np.isnan(top_probability(np.array([[np.nan, 0.0]]))[0])


def test_accuracy_leaves_unknown_labels_out(model):
    samples = model.groups[0].samples
    unknown = samples.correct[samples.label < 0]
    assert np.isnan(unknown).all()
    known = samples.label >= 0
    np.testing.assert_array_equal(samples.correct[known], samples.label[known] == samples.prediction[known])


def test_a_store_without_analysis_says_what_to_do(tmp_path):
    run = stores.create(tmp_path / "bare.zarr", classes=["a"], samples=1, provenance={})
    with pytest.raises(ValueError, match="spray analyze"):
        ReportModel.from_run(run)


def test_an_unknown_class_is_named(model):
    with pytest.raises(KeyError, match="class 99"):
        model.group(99)


@pytest.mark.parametrize("step", [1, 4])
def test_quantised_maps_keep_sign_and_scale(step):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(5, 4, 4)).astype(np.float32) * np.array([1e-6, 1, 1e6, 1, 1])[:, None, None]
    maps[3] = 0
    maps[4, 0, 0] = np.nan
    codes, scale = quantise(maps, step)
    assert codes.dtype == np.int8
    assert np.abs(codes.astype(int)).max() == 127
    for one, code, s in zip(maps[:3], codes[:3], scale[:3], strict=True):
        np.testing.assert_allclose(code * float(s) / 127, one, atol=float(s) * step / 253)
    assert set(np.abs(codes[codes % step != 0]).tolist()) <= {127}
    assert scale[3] == 0
    assert not codes[3:].any()
    assert np.isnan(scale[4])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_atlas_holds_every_picture_in_its_place(channels):
    rng = np.random.default_rng(1)
    levels = rng.integers(30, 220, size=(7, 1, 1, channels))
    pictures = np.broadcast_to(levels, (7, 20, 28, channels)).astype(np.uint8)
    sheet = atlas(pictures)
    pixels = np.asarray(Image.open(io.BytesIO(sheet.webp)).convert("RGB"), dtype=int)
    assert sheet.size == (20, 28)
    for i, level in enumerate(levels.reshape(7, channels)):
        y, x = (i // sheet.columns) * sheet.stride[0], (i % sheet.columns) * sheet.stride[1]
        tile = pixels[y + 2 : y + 18, x + 2 : x + 26]  # colour is coded at half resolution: edges may blend
        assert np.abs(tile - np.resize(level, 3)).max() <= 12, (
            "a tile shows another picture, or its neighbour"
        )


def test_an_atlas_that_cannot_be_drawn_says_so():
    with pytest.raises(ValueError, match="smaller thumbnails"):
        atlas(np.zeros((2, ATLAS_SIDE + 1, 1, 1), dtype=np.uint8))
    assert atlas(np.zeros((0, 8, 8, 1), dtype=np.uint8)) is None


def test_packed_arrays_come_back_and_are_the_same_text_each_time():
    values = np.arange(12, dtype=np.int16).reshape(3, 4) - 5
    for compress in (False, True):
        record = packed(values, compress=compress)
        assert record == packed(values.copy(), compress=compress)
        np.testing.assert_array_equal(unpacked(record), values)
    big_endian = packed(values.astype(">i2"))
    np.testing.assert_array_equal(unpacked(big_endian), values)


def test_colour_maps_are_symmetric_in_length_and_light_or_dark_in_the_middle():
    for entry in COLOUR_MAPS.values():
        table = entry.table()
        assert table.shape == (255, 3)
        middle = table[127].astype(int)
        assert np.ptp(middle) <= 2, f"{entry.name}: zero has a hue"
    bwr = COLOUR_MAPS["bwr"].table()
    assert bwr[0].tolist() == [0, 0, 255]
    assert bwr[127].tolist() == [255, 255, 255]
    assert bwr[254].tolist() == [255, 0, 0]


@pytest.mark.parametrize("theme", THEMES)
def test_text_has_a_contrast_of_five_to_one(theme):
    colours = THEMES[theme]
    grounds = ("card", "page", "well", "raised")
    for text in ("ink", "muted", "accent", "alarm", "good", "unsure"):
        for ground in grounds:
            assert contrast(colours[text], colours[ground]) >= 5, f"{text} on {ground} in {theme}"
    for text in ("ink", "muted", "alarm"):
        assert contrast(colours[text], colours["alarm-soft"]) >= 5, f"{text} on alarm-soft in {theme}"
    for text in ("ink", "muted", "accent"):
        assert contrast(colours[text], colours["accent-soft"]) >= 5, f"{text} on accent-soft in {theme}"
    for ground in ("alarm", "good", "unsure"):
        assert contrast(colours["card"], colours[ground]) >= 5, f"card on {ground} in {theme}"


def test_contrast_agrees_with_its_definition():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#777777") == pytest.approx(1)


def test_flagged_findings_have_a_colour_of_their_own():
    assert FLAGGED not in CLUSTER_COLOURS
    assert f"--alarm-fill:{FLAGGED};" in style_variables()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lightness_alone_tells_the_order_of_numbers_and_colour_blind_eyes_see_it(theme):
    assert len(SCALES[theme]) >= 7
    stops = np.array([rgb(stop) for stop in SCALES[theme]]) / 255
    linear = np.where(stops <= 0.04045, stops / 12.92, ((stops + 0.055) / 1.055) ** 2.4)
    kinds = {  # without one kind of cones (Machado, Oliveira and Fernandes 2009, severity 1)
        "all": np.eye(3),
        "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    }
    for kind, cones in kinds.items():
        light = np.clip(linear @ np.array(cones).T, 0, 1) @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(np.cbrt(light)) > 0.04).all(), kind
    card, far = THEMES[theme]["card"], SCALES[theme][-1 if theme == "light" else 0]
    assert contrast(card, far) > 2, "the end that is nearest to the card"


def test_paper_is_light():
    printed = style_variables().split("@media print")[1]
    assert f"--ink:{THEMES['light']['ink']};" in printed


def test_json_cannot_leave_its_script_element():
    hostile = {"</script><script>alert(1)</script>": "<!-- \u2028 & \ud800"}
    text = script_json(hostile)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == hostile
    text.encode("utf-8")


def test_numbers_without_a_json_form_become_null():
    assert finite({"a": [float("nan"), np.float32(2), np.int64(3), (1, float("inf"))]}) == {
        "a": [None, 2.0, 3, [1, None]]
    }


def test_the_payload_of_a_class_holds_what_the_store_holds(run, model):
    group = model.groups[0]
    made = {name: json.loads(text) for name, text in blocks(run, model, set())}
    chunk = made[f"chunk-{model.analysis}-{group.index}"]
    (page,) = (made[name] for name in chunk["pages"]["names"])
    np.testing.assert_array_equal(unpacked(chunk["rows"]), group.samples.rows)
    maps = unpacked(page["maps"]).astype(float) * unpacked(page["scale"])[:, None, None] / 127
    stored = run.table("relevance/epsilon_plus_flat").read("input.place", group.samples.rows)
    np.testing.assert_allclose(maps, stored, atol=float(np.abs(stored).max()) / 60)
    for subject in group.subjects:
        np.testing.assert_array_equal(unpacked(chunk["members"][subject.key]), subject.members)
    assert chunk["ids"] == list(group.samples.ids)


def test_the_page_knows_findings_with_region_mean_map_and_evidence(run, model):
    page = page_payload([model], run.verdicts(), [])
    finding = run.analysis().findings()[0]
    told = page["analyses"][0]["groups"][0]["subjects"][0]
    assert told["summary"] == finding.summary
    np.testing.assert_array_equal(unpacked(told["region"]).astype(bool), finding.region)
    assert unpacked(told["mean_map"]).shape == finding.mean_map.shape
    assert set(told["evidence"]) == set(finding.evidence)


def test_a_report_is_built_where_torch_is_not_installed(tmp_path, run):
    script = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import reports\n"
        f"print(reports.build({str(run.path)!r}, {str(tmp_path / 'r.html')!r}))\n"
        "assert not {'sklearn', 'umap', 'spray'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.html").stat().st_size > 1_000_000


def test_the_same_store_gives_the_same_bytes(tmp_path, run):
    import reports

    one, other = (reports.build(run.path, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert one == other


def test_mean_maps_of_clusters_are_means_of_maps_scaled_to_their_largest_relevance(run, model, monkeypatch):
    monkeypatch.setattr("reports.blocks.PAGE", 32)  # several pages: the sums must go on across them
    group = model.groups[0]
    made = {name: json.loads(text) for name, text in blocks(run, model, set())}
    chunk = made[f"chunk-{model.analysis}-{group.index}"]
    assert len(chunk["pages"]["names"]) > 1
    maps = run.table("relevance/epsilon_plus_flat").read("input.place", group.samples.rows)
    units = np.array([m / np.abs(m).max() if np.abs(m).max() > 0 else m for m in maps])
    for subject in group.subjects:
        if subject.kind == "cluster":
            plain = units[subject.members].mean(0)
            told = unpacked(chunk["means"][subject.key]) / 127
            np.testing.assert_allclose(told, plain / np.abs(plain).max(), atol=0.02)


def test_pictures_of_two_analyses_are_written_once(run, model):
    written = set()
    first = [name for name, _ in blocks(run, model, written)]
    again = [name for name, _ in blocks(run, model, written)]
    assert any(name.startswith("pictures-") for name in first)
    assert again == [name for name in first if not name.startswith("pictures-")]


def test_a_large_report_becomes_a_folder_and_says_why(tmp_path, run, monkeypatch):
    import reports

    small = reports.write(run.path, tmp_path / "r.html")
    assert small.carrier == "file" and small.path == tmp_path / "r.html"
    assert "one file may hold 25" in small.reason
    monkeypatch.setattr(reports.carriers, "FILE_BYTES", 1000)
    large = reports.write(run.path, tmp_path / "r.html")
    assert large.carrier == "folder" and large.path == tmp_path / "r" / "index.html"
    assert "more than" in large.reason
    assert large.bytes == sum(p.stat().st_size for p in (tmp_path / "r").rglob("*") if p.is_file())
    asked = reports.write(run.path, tmp_path / "r.html", carrier="file")
    assert asked.carrier == "file" and "asked for" in asked.reason
    assert not list(tmp_path.glob(".*")), "something half-written was left behind"
    with pytest.raises(ValueError, match="auto, file, folder"):
        reports.write(run.path, tmp_path / "r.html", carrier="zip")


def test_a_report_takes_the_place_of_a_report_and_of_nothing_else(tmp_path, run, monkeypatch):
    import reports

    photos = tmp_path / "photos"
    (photos / "blocks").mkdir(parents=True)
    (photos / "index.html").write_text('<p id="report">mine')
    (photos / "blocks" / "a.js").write_text("mine")
    (photos / "a.jpg").write_text("mine")
    for changed in ("a.jpg", "index.html"):
        for carrier, limit in (("folder", 25_000_000), ("auto", 1000)):
            monkeypatch.setattr(reports.carriers, "FILE_BYTES", limit)
            with pytest.raises(FileExistsError, match=r"photos, and something else.*photos-report\.html"):
                reports.write(run.path, tmp_path / "photos.html", carrier=carrier)
        assert (photos / changed).is_file() and sorted(p.name for p in tmp_path.iterdir()) == ["photos"]
        (photos / "a.jpg").unlink(missing_ok=True)
        (photos / "index.html").write_text(
            "mine"
        )  # the page of somebody else, beside scripts of somebody else
    (photos / "blocks" / "a.js").rename(photos / "blocks" / "a.jpg")
    with pytest.raises(FileExistsError):
        reports.write(run.path, tmp_path / "photos.html", carrier="folder")
    for other in ("file", "link"):
        (tmp_path / "file").write_text("mine")
        if other == "link":
            (tmp_path / "link").symlink_to(photos)
        with pytest.raises(FileExistsError, match="something else has that name"):
            reports.write(run.path, tmp_path / f"{other}.html", carrier="folder")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(IsADirectoryError, match=r"photos/report\.html"):
        reports.write(run.path, photos)
    monkeypatch.undo()
    with pytest.raises(
        FileExistsError, match=r"file is there already and is no report.*--out .*file-report\.html"
    ):
        reports.write(run.path, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    assert reports.write(run.path, tmp_path / "photos.html").carrier == "file", (
        "a file beside a folder is fine"
    )


def test_an_older_folder_stays_until_the_new_one_stands(tmp_path, run, monkeypatch):
    import pathlib

    import reports

    first = reports.write(run.path, tmp_path / "r.html", carrier="folder", title="first")
    again = reports.write(run.path, tmp_path / "r.html", carrier="folder", title="second")
    assert again.path == first.path and "second" in first.path.read_text()
    move = pathlib.Path.replace

    def stumble(self, target):
        if self.name == ".r.html.partial":
            raise OSError("no space")
        return move(self, target)

    monkeypatch.setattr(pathlib.Path, "replace", stumble)
    with pytest.raises(OSError, match="no space"):
        reports.write(run.path, tmp_path / "r.html", carrier="folder", title="third")
    assert "second" in first.path.read_text() and not list(tmp_path.glob(".*"))


def test_members_that_have_a_region_each_are_not_told_to_share_one(run):
    import dataclasses

    model = ReportModel.from_run(run)
    shared = next(
        subject for group in model.groups for subject in group.findings if subject.region is not None
    )
    assert subject_payload(shared)["region"] is not None
    moving = dataclasses.replace(shared.finding, evidence={**shared.finding.evidence, "where": "moving"})
    each = dataclasses.replace(shared, finding=moving)
    assert each.region is None and subject_payload(each)["region"] is None
    assert subject_payload(each)["mean_map"] == subject_payload(shared)["mean_map"]


def test_analyses_are_named_by_what_tells_them_apart(tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60)
    first = run.analysis()
    groups = [first.read(group) for group in first.groups]
    made = [
        run.write_analysis(stores.Provenance((step,)), groups, facts=first.facts)
        for step in (
            {"name": "Analysis", "representation": {"name": "pooled", "size": 7, "sign": "positive"}},
            {"name": "Analysis", "representation": {"name": "channels", "sign": "signed"}},
            {"name": "Analysis", "representation": {"name": "channels", "sign": "signed"}, "seed": 1},
        )
    ]
    names = {model.analysis: model.name for model in read_models(run)}
    assert len(set(names.values())) == 4
    assert names[first.id] == "LRP epsilon plus flat"
    assert names[made[0].id] == "LRP epsilon plus flat · pooled to 7 · positive"
    assert names[made[2].id] == f"LRP epsilon plus flat · channels · {made[2].id[:6]}"


def test_the_newest_analysis_that_was_searched_is_shown_first(tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60)
    first = run.analysis()
    made = stores.Provenance(({"name": "later"},))
    later = run.write_analysis(made, [first.read(0)], facts=first.facts)
    assert [model.analysis for model in read_models(run)] == [first.id, later.id]
    assert [model.facts["searched"] for model in read_models(run)] == [True, False]
    later.write_findings([], made)
    assert [model.facts["searched"] for model in read_models(run)] == [True, True]
    assert read_models(run)[0].analysis == later.id, "that nothing was found is an answer"


def test_what_an_analysis_lacks_and_on_what_it_was_computed_is_told(tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60)
    first = run.analysis()
    assert ReportModel.from_run(run).facts["circumstances"] == []
    table = run.create_table(
        "relevance/mixed",
        list(run.table(stores.synthetic.RELEVANCE).columns.values()),
        rows_per_shard=30,
        provenance=stores.Provenance(({"name": "mixed"},)),
    )
    for shard, rows in enumerate(table.shards):
        values = {name: run.table(stores.synthetic.RELEVANCE).read(name, rows) for name in table.columns}
        table.write(shard, values, facts={"threads": 1 + shard, "batch": 8})
    handle = run.create_analysis(
        stores.Provenance(({"name": "begun"},)),
        facts={**first.facts, "relevance": table.name},
        groups=first.groups,
    )
    handle.write(first.read(0))
    told = ReportModel.from_run(run, handle.id).facts["circumstances"]
    missing = ", ".join(run.classes[group] for group in first.groups if group)
    assert told[0].startswith(f"Not written yet: {len(first.groups) - 1} groups ({missing})")
    assert told[1:] == [
        "relevance/mixed was computed on 2 kinds of machines; equal inputs may differ in their last bits.",
        "relevance/mixed ran out of memory in 2 shards, which were computed in batches of 8.",
    ]


def test_columns_whose_values_repeat_travel_as_codes():
    told = column_payload(["a", "b", "a", "a", "b", "a"])
    codes = np.frombuffer(base64.b64decode(told["codes"]["data"]), np.uint16)
    assert [told["values"][code] for code in codes] == ["a", "b", "a", "a", "b", "a"]
    assert column_payload(["a", "b", "c"]) == {"values": ["a", "b", "c"], "codes": None}


def test_a_class_of_several_pages_brings_what_is_looked_at_first(run, model, monkeypatch):
    monkeypatch.setattr("reports.blocks.PAGE", 32)
    group = model.groups[0]
    chunks = {name: json.loads(text) for name, text in blocks(run, model, set()) if name.startswith("chunk")}
    front = chunks[f"chunk-{model.analysis}-{group.index}"]["front"]
    positions = np.frombuffer(base64.b64decode(front["positions"]["data"]), np.uint32)
    for subject in group.subjects:
        assert set(subject.members[:12].tolist()) <= set(positions.tolist())
        assert set(subject.members[-6:].tolist()) <= set(positions.tolist())
    assert front["page"]["maps"]["shape"][0] == len(positions)
