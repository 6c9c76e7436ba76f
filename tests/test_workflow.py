"""The whole audit from Python: stages in order, resumed, shown, and refused early where it could not end."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from audit_tools import Images, contents, tiny_model
from torch import nn

import spray
from spray.analysis import Analysis
from spray.analysis.features import Channels, Pooled
from spray.analysis.graph import NearestNeighbours
from spray.attribution import Attribution
from spray.config import AnalysisConfig, AttributionConfig, AuditConfig, ConfigError, DataConfig, VerifyConfig
from spray.findings import Findings
from spray.findings.verification import Verification
from spray.image_folder import ImageFolder
from spray.loading import SpecError
from spray.workflow import (
    analysis_step,
    attribution_step,
    choose_device,
    findings_step,
    group_by_of,
    load_data,
    model_of,
)

ATTRIBUTION = Attribution(block=16, grid=8, thumbnails=8, layers=("3",))
ANALYSIS = Analysis(neighbours=NearestNeighbours(k=3), eigenvectors=4, picture="none")
FINDINGS = Findings(verification=Verification(members=10))
STEPS = {"attribution": ATTRIBUTION, "analysis": ANALYSIS, "findings": FINDINGS}


class Hostile(Images):
    classes = ("<script>alert(1)</script>", "b&w", "c")


def told(findings):
    return [(finding.name, finding.score, finding.rows.tolist(), finding.summary) for finding in findings]


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    return spray.audit(tiny_model(), Hostile(48), tmp_path_factory.mktemp("audit") / "a.zarr", **STEPS)


def test_an_audit_attributes_analyses_and_verifies(audit):
    assert audit.run.table("relevance/epsilon_plus_flat").complete
    assert audit.analysis.groups == [0, 1, 2]
    assert told(audit.findings) == told(audit.analysis.findings()) != []
    assert [finding.score for finding in audit.findings] == sorted(
        (f.score for f in audit.findings), reverse=True
    )
    assert set(audit.seconds) == {"attribute", "analyze", "verify"}
    assert told(audit.flagged) == told([finding for finding in audit.findings if finding.flagged])


def test_the_same_call_again_changes_nothing_and_another_analysis_joins(audit):
    before = contents(audit.run.path)
    again = spray.audit(tiny_model(), Hostile(48), audit.run.path, **STEPS)
    assert again.analysis.id == audit.analysis.id
    assert contents(audit.run.path) == before
    for column in ("3.channel", "3.place"):
        other = spray.audit(tiny_model(), Hostile(48), audit.run.path, column=column, **STEPS)
        assert other.analysis.facts["column"] == column
        assert other.analysis.groups == [0, 1, 2]
    assert before.items() <= contents(audit.run.path).items()
    joint = spray.audit(tiny_model(), Hostile(48), audit.run.path, group_by="all", **STEPS)
    assert joint.analysis.groups == [-1]
    assert joint.findings and "all classes" in joint._repr_html_()


def test_it_shows_itself_in_a_notebook_whatever_classes_are_called(audit):
    shown = audit._repr_html_()
    assert "<script>" not in shown
    assert "48 samples in 3 classes" in shown
    assert repr(audit).startswith("Audit(")
    assert shown.count("<tr>") == 1 + min(10, len(audit.findings))


def test_an_audit_is_opened_without_its_model_and_writes_its_report(audit, tmp_path):
    opened = spray.open_audit(audit.run.path, audit.analysis.id)
    assert told(opened.findings) == told(audit.findings)
    page = opened.report(tmp_path / "page.html")
    assert page.read_text(encoding="utf-8").lower().lstrip().startswith("<!doctype html>")
    assert opened.report() == audit.run.path.with_suffix(".html")
    with pytest.raises(Exception, match="open for reading"):
        opened.run.add_verdict(None)


@pytest.mark.parametrize("shape", [(12,), (2, 12)], ids=["vectors", "signals"])
def test_data_that_are_no_pictures(tmp_path, shape):
    torch.manual_seed(0)
    data = [(torch.randn(shape), row % 2) for row in range(24)]
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    attribution = Attribution(block=8, composite="epsilon_plus")
    audit = spray.audit(model, data, tmp_path / "a.zarr", attribution=attribution, analysis=ANALYSIS)
    assert audit.analysis.groups == [0, 1]
    assert all(audit.analysis.read(group).status == "ok" for group in (0, 1))
    assert audit.flagged == []


def test_all_stages_of_an_audit_run_on_the_device_that_is_named(tmp_path, monkeypatch):
    import spray.workflow

    asked = {}
    for stage in ("attribute_dataset", "analyze", "find"):
        made = getattr(spray.workflow, stage)

        def watched(*args, made=made, stage=stage, **options):
            asked[stage] = str(options["device"])
            return made(*args, **options)

        monkeypatch.setattr(spray.workflow, stage, watched)
    spray.audit(tiny_model(), Images(), tmp_path / "a.zarr", device="cpu:0", **STEPS)
    assert asked == dict.fromkeys(("attribute_dataset", "analyze", "find"), "cpu:0")


def test_a_column_that_will_not_be_there_is_refused_before_the_work(tmp_path):
    for column in ("4.channel", "input.full", "input.channel", "place"):
        with pytest.raises(ConfigError, match=r"3\.channel, 3\.place, input\.place"):
            spray.audit(tiny_model(), Images(), tmp_path / "a.zarr", column=column, **STEPS)
    assert not (tmp_path / "a.zarr").exists()


def test_configurations_become_steps():
    assert attribution_step(AttributionConfig()) == Attribution()
    assert attribution_step(AttributionConfig(target="2")).target == 2
    assert attribution_step(AttributionConfig(target=2)).target == 2
    assert attribution_step(AttributionConfig(target="prediction")).target == "prediction"
    assert analysis_step(AnalysisConfig()) == Analysis()
    assert findings_step(VerifyConfig()) == Findings()
    assert findings_step(VerifyConfig(seed=4)).verification.seed == 4
    chosen = findings_step(VerifyConfig(fills=("local mean", "blur"))).verification.fills
    assert [fill.name for fill in chosen] == ["local mean", "blur"]
    assert group_by_of("prediction") == "prediction"
    for make, config, words in (
        (group_by_of, "class", "label, prediction, all"),
        (findings_step, VerifyConfig(clustering="dbscan"), "hdbscan"),
        (findings_step, VerifyConfig(fills=("harmonic", "mean")), "local mean"),
        (findings_step, VerifyConfig(fills=("harmonic", "harmonic")), "2 different ones have to agree"),
        (findings_step, VerifyConfig(budget=-5), "budget is -5"),
        (findings_step, VerifyConfig(members=4), "Take 5 at the least"),
        (choose_device, "tpu", "cpu"),
        (choose_device, "cpu:first", "cpu"),
    ):
        with pytest.raises(ConfigError, match=words):
            make(config)
    with pytest.raises(ValueError, match="unknown picture"):
        analysis_step(AnalysisConfig(picture="pca"))


def test_devices(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="got 'cuda', and this machine has cpu"):
        choose_device("cuda")


def test_data_of_a_configuration(tmp_path):
    from PIL import Image

    for name in ("b", "a"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("L", (9, 9)).save(tmp_path / "photos" / name / "1.png")
    (tmp_path / "names.txt").write_bytes("\ufeffb \r\n\r\na\r\nc\r\n".encode())
    (tmp_path / "data.py").write_text(
        "import torch\nfrom spray.data import as_audit_data\n"
        "def load(): return [(torch.zeros(1, 2, 2), 0)]\n"
        "def ready(): return as_audit_data(load(), classes=['x'])\n"
        "def stream(): return iter(load())\n"
    )
    config = DataConfig(str(tmp_path / "photos"), str(tmp_path / "names.txt"), 8, 8, (0.5,), (0.5,))
    folder = load_data(config)
    assert isinstance(folder, ImageFolder)
    assert folder.classes == ("b", "a", "c")
    assert folder.sample(0).input.shape == (1, 8, 8)
    function = replace(config, spec=f"{tmp_path}/data.py:load")
    assert load_data(function).classes == ("b", "a", "c")
    assert load_data(replace(function, classes="")).classes == ()
    for changed, words in (
        (DataConfig(), "No data set given"),
        (replace(config, classes="absent.txt"), "no file of class names"),
        (replace(config, spec=f"{tmp_path}/data.py:ready"), "its own classes"),
        (replace(config, spec=f"{tmp_path}/data.py:stream"), "no map-style data set"),
    ):
        with pytest.raises(SpecError, match=words):
            load_data(changed)
    with pytest.raises(SpecError, match="No model given"):
        model_of(AuditConfig().model)


def test_what_an_audit_reports_of_its_progress(tmp_path):
    said = []
    spray.audit(
        tiny_model(), Images(48), tmp_path / "a.zarr", report=lambda *what: said.append(what), **STEPS
    )
    stages = list(dict.fromkeys(what for _, _, what, *_ in said))
    assert stages == ["attribute", "analysis", "verify"]
    for stage in stages:
        done = [(done, total) for done, total, what, *_ in said if what == stage]
        assert done == sorted(done)
        assert done[-1][0] == done[-1][1]


def test_pooling_is_kept_where_there_is_place_and_left_out_where_there_is_none(audit):
    from spray.workflow import suited_to

    table = "relevance/epsilon_plus_flat"
    assert suited_to(audit.run, table, "input.place", ANALYSIS) is ANALYSIS
    assert suited_to(audit.run, table, "3.channel", ANALYSIS).representation == Channels()
    positive = replace(ANALYSIS, representation=Pooled(sign="positive", norm="l1"))
    assert suited_to(audit.run, table, "3.channel", positive).representation == Channels("positive", "l1")
