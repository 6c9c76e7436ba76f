"""Findings of a small stored run: merged, tested, completed, ranked, flagged, worded, stored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import stores
from spray.analysis import Analysis, analyze
from spray.attribution import Attribution, attribute_dataset
from spray.data import as_audit_data
from spray.engine.errors import BadModel
from spray.findings import Findings, MismatchError, OwnRank, find
from spray.findings.class_findings import ClassFindings
from spray.findings.outcomes import Outcomes
from spray.findings.regions import TopRegion
from spray.findings.stage import concluded
from spray.findings.strategies import Strategy
from spray.findings.subject import Subject
from spray.findings.suspicion import Ranking, Weighted
from spray.findings.verification import Verification
from spray.findings.verification.fills import BlurFill, Fill, NeighbourFill
from spray.memory import SpaceError
from spray.models import model_digest
from stores import AnalysisHandle, Finding, GroupAnalysis, Run

SIDE = 12
REGION = TopRegion(share=9 / SIDE**2, smooth=1)
STEP = Findings(region=REGION, verification=Verification(members=40, regions=(REGION,), permutations=999))


class TagReader(nn.Module):
    """Class 1 has a bright object, but the tag in the corner counts as much; class 0 is dark."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.zeros(2, 1, SIDE, SIDE)
        weight[1, 0, :3, :3] = 1.2
        weight[1, 0, 6:10, 4:9] = 0.35
        self.linear = nn.Linear(SIDE**2, 2)
        with torch.no_grad():
            self.linear.weight.copy_(weight.flatten(1))
            self.linear.bias.copy_(torch.tensor([6.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


def case() -> tuple[Tensor, Tensor]:
    """50 tagged and 70 plain samples of class 1, 80 of class 0."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 1, SIDE, SIDE, generator=generator) * 0.3
    x[:120, :, 6:10, 4:9] += torch.rand(120, 1, 4, 5, generator=generator) * 0.9
    x[:50, :, :3, :3] = 1
    return x, (torch.arange(200) < 120).long()


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, AnalysisHandle, nn.Module, TensorDataset]:
    model, data = TagReader().eval(), TensorDataset(*case())
    run = attribute_dataset(
        model,
        as_audit_data(data, classes=["dark <b>", "bright"]),
        tmp_path_factory.mktemp("run") / "run.zarr",
        Attribution(composite="gradient_x_input", block=40),
    )
    return run, analyze(run, Analysis(picture="none")), model, data


@pytest.fixture(scope="module")
def found(audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset]) -> list[Finding]:
    run, handle, model, data = audited
    return find(run, handle, STEP, model=model, dataset=as_audit_data(data, classes=["dark <b>", "bright"]))


def test_the_planted_finding_comes_first_and_holds_exactly_the_tagged(found: list[Finding]) -> None:
    first, *rest = found
    assert first.group == 1 and first.flagged
    assert first.rows.tolist() == list(range(50))
    assert first.region is not None and first.region[:3, :3].all()
    assert not any(finding.flagged for finding in rest)
    assert all(first.score > finding.score for finding in rest)


def test_findings_of_full_maps_have_their_regions_in_the_pooled_cells(tmp_path: Path) -> None:
    model, data = TagReader().eval(), TensorDataset(*case())
    attribution = Attribution(composite="gradient_x_input", block=40, full=True, grid=6)
    run = attribute_dataset(model, data, tmp_path / "run.zarr", attribution)
    handle = analyze(run, Analysis(picture="none"), column="input.full")
    step = replace(STEP, region=TopRegion(share=4 / 36, smooth=1))
    first, *rest = find(run, handle, step, model=model, dataset=data)
    assert first.flagged and first.rows.tolist() == list(range(50))
    assert first.region is not None and first.region.shape == (6, 6) and first.region[0, 0]
    assert not any(finding.flagged for finding in rest)


def test_the_words_tell_the_numbers(found: list[Finding]) -> None:
    words = found[0].summary
    assert words.startswith("50 of 120 'bright' samples.")
    assert "top left" in words and "the model uses this region by itself" in words
    evidence = found[0].evidence
    assert f"{evidence['removal']['mean']:.2f}" in words  # type: ignore[index]
    assert f"(q = {evidence['q_value']:.2g})" in words


def test_findings_are_stored_as_returned_and_not_computed_twice(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset], found: list[Finding]
) -> None:
    run, handle, model, data = audited
    calls: list[str] = []
    again = find(
        run,
        handle,
        STEP,
        model=model,
        dataset=as_audit_data(data, classes=["dark <b>", "bright"]),
        report=lambda done, total, what: calls.append(what),
    )
    assert not calls
    for one, other in zip(found, again, strict=True):
        assert (one.name, one.score, one.flagged, one.summary) == (
            other.name,
            other.score,
            other.flagged,
            other.summary,
        )
        assert np.array_equal(one.rows, other.rows)
        assert dict(one.parts) == dict(other.parts)


def test_without_the_model_nothing_is_flagged_but_all_is_ranked(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset], tmp_path: Path
) -> None:
    run, handle, _, _ = audited
    untested = find(run, handle, replace(STEP, seed=1))
    assert untested and not any(finding.flagged for finding in untested)
    assert all(finding.parts["causal"] is None for finding in untested)
    assert "Not tested by intervention" in untested[0].summary
    scores = [finding.score for finding in untested]
    assert scores == sorted(scores, reverse=True)


def test_at_most_so_many_flags_per_class(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset],
) -> None:
    run, handle, model, data = audited
    strict = replace(STEP, ranking=Ranking(flags_per_class=0))
    found = find(
        run, handle, strict, model=model, dataset=as_audit_data(data, classes=["dark <b>", "bright"])
    )
    assert found[0].evidence["confirmed"] is True
    assert "Confirmed" in found[0].summary and "Not among the most suspicious" in found[0].summary
    assert not any(finding.flagged for finding in found)


def test_a_rank_of_ones_own_is_never_answered_from_another_function(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset], found: list[Finding]
) -> None:
    """Functions that only differ in what they close over, with the interventions' outcomes kept."""
    run, handle, model, data = audited
    dataset = as_audit_data(data, classes=["dark <b>", "bright"])

    def by_share(sign: float) -> list[float]:
        rank = OwnRank(lambda parts: sign * (parts["share"] or 0))
        return [
            it.score for it in find(run, handle, replace(STEP, ranking=rank), model=model, dataset=dataset)
        ]

    up, down = by_share(1), by_share(-1)
    assert len(up) == len(found) > 1
    assert sorted(down) == pytest.approx(sorted(-score for score in up)) and down[0] < 0 < up[0]
    known = handle.findings_provenance
    assert by_share(-1) == down and handle.findings_provenance == known


def test_another_model_or_other_data_are_refused(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset],
) -> None:
    run, handle, model, data = audited
    step = replace(STEP, seed=2)
    other = TagReader().eval()
    with torch.no_grad():
        other.linear.bias += 1
    names = ["dark <b>", "bright"]
    with pytest.raises(MismatchError, match="digest"):
        find(run, handle, step, model=other, dataset=as_audit_data(data, classes=names))
    images, labels = data.tensors
    fewer = as_audit_data(TensorDataset(images[1:], labels[1:]), classes=names)
    with pytest.raises(MismatchError, match="ids"):
        find(run, handle, step, model=model, dataset=fewer)

    class Torn(TensorDataset):
        def __getitem__(self, row: int) -> tuple[torch.Tensor, ...]:
            if row == 3:
                raise OSError("image file is truncated")
            return super().__getitem__(row)

    torn = as_audit_data(Torn(images, labels), classes=names)
    with pytest.raises(MismatchError, match=r"'3' was read.*cannot be read now.*truncated.*Put it back"):
        find(run, handle, step, model=model, dataset=torn)
    brighter = as_audit_data(TensorDataset(images + 0.01, labels), classes=names)
    with pytest.raises(MismatchError, match="other pixels"):
        find(run, handle, step, model=model, dataset=brighter)


def test_pictures_show_members_and_hosts_before_and_after(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset], found: list[Finding]
) -> None:
    stored = audited[0].samples.read("thumbnail").astype(int)
    tag = stored[0, 0, 0, 0]
    shots = found[0].pictures
    assert {name: shot.shape for name, shot in shots.items()} == dict.fromkeys(
        ("members", "removed", "hosts", "pasted"), (6, SIDE, SIDE, 1)
    )
    corner = {name: shot[:, :3, :3] for name, shot in shots.items()}
    assert (corner["members"] == tag).all() and (corner["removed"] < tag / 2).all()
    assert (corner["pasted"] == tag).all() and (corner["hosts"] < tag / 2).all()
    assert np.array_equal(shots["members"][:, 4:], shots["removed"][:, 4:])
    for shot in (*shots["members"], *shots["hosts"]):  # on the scale of the thumbnails
        assert np.abs(stored - shot).max((1, 2, 3)).min() <= 1


@pytest.mark.parametrize("fills", [(NeighbourFill(), BlurFill()), (BlurFill(), NeighbourFill())])
def test_what_is_shown_removed_is_gone_whatever_it_was_removed_by(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset], fills: tuple[Fill, ...]
) -> None:
    """Another member's content would put the same tag back."""
    run, handle, model, data = audited
    step = replace(STEP, verification=replace(STEP.verification, fills=fills), seed=5)
    first = find(run, handle, step, model=model, dataset=as_audit_data(data, classes=["dark <b>", "bright"]))[
        0
    ]
    corner = {name: shot[:, :3, :3].astype(int) for name, shot in first.pictures.items()}
    assert (corner["removed"] < corner["members"]).all()


def test_an_interrupted_test_goes_on_with_the_class_that_it_stopped_in(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, handle, model, data = audited
    step, names = replace(STEP, seed=3), ["dark <b>", "bright"]
    tested: list[int] = []
    genuine = ClassFindings.findings

    def stopping(self: ClassFindings, subject: Subject | None) -> list[Finding]:
        if tested and len(tested) < 2:
            tested.append(-1)
            raise KeyboardInterrupt
        tested.append(self.group)
        return genuine(self, subject)

    monkeypatch.setattr(ClassFindings, "findings", stopping)
    dataset = as_audit_data(data, classes=names)
    with pytest.raises(KeyboardInterrupt):
        find(run, handle, step, model=model, dataset=dataset)
    found = find(run, handle, step, model=model, dataset=dataset)
    assert tested == [0, -1, 1]
    find(run, handle, replace(step, ranking=Ranking(prior_weight=0.2)), model=model, dataset=dataset)
    assert tested == [0, -1, 1]  # another rank needs no new test
    assert found[0].flagged and stores.check(run.path) == []


class Fragile(TagReader):
    """Answers NaN for a tag without an object, which no image of the data has."""

    def forward(self, x: Tensor) -> Tensor:
        odd = (x[:, 0, :3, :3].mean((1, 2)) > 0.9) & (x[:, 0, 6:10, 4:9].mean((1, 2)) < 0.35)
        return torch.where(odd[:, None], torch.nan, super().forward(x))


def test_a_model_that_answers_nan_for_a_changed_image_costs_that_class_its_test_and_says_so(
    tmp_path: Path,
) -> None:
    model, data = Fragile().eval(), as_audit_data(TensorDataset(*case()), classes=["dark", "bright"])
    run = attribute_dataset(
        model, data, tmp_path / "run.zarr", Attribution(composite="gradient_x_input", block=40)
    )
    found = find(run, analyze(run, Analysis(picture="none")), STEP, model=model, dataset=data)
    untold = [finding for finding in found if finding.group == 1]
    assert untold and not any("removal" in finding.evidence or finding.flagged for finding in untold)
    assert all("The model answers NaN or infinity for" in finding.notes[0] for finding in untold)
    assert "Not tested by intervention" in untold[0].summary
    assert stores.check(run.path) == []


def test_what_is_one_cluster_by_density_and_several_strategies_by_the_eigengap_is_searched_by_these(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, model, data = audited
    handle = analyze(run, Analysis(picture="none", seed=6))
    read = AnalysisHandle.read

    def of_one_density(self: AnalysisHandle, group: int) -> GroupAnalysis:
        result = read(self, group)
        dense = result.clusterings["hdbscan"]
        one = replace(dense, labels=np.zeros_like(dense.labels))
        return replace(result, clusterings={**result.clusterings, "hdbscan": one})

    monkeypatch.setattr(AnalysisHandle, "read", of_one_density)
    named = as_audit_data(data, classes=["dark <b>", "bright"])
    first = find(run, handle, STEP, model=model, dataset=named)[0]
    assert first.clustering == "kmeans" and first.flagged and first.rows.tolist() == list(range(50))
    alone = find(run, handle, replace(STEP, clustering="hdbscan"), model=model, dataset=named)
    assert {one.clustering for one in alone} == {"hdbscan"} and not any(one.flagged for one in alone)
    one_strategy = replace(handle.read(1), strategies=1)
    assert STEP.of(handle).clustering_of(one_strategy) == "hdbscan"
    monkeypatch.undo()
    assert STEP.of(handle).clustering_of(handle.read(1)) == "hdbscan"


def test_many_candidates_need_more_significance(found: list[Finding]) -> None:
    """The same evidence among candidates without any: its q-value grows with their number."""
    first = found[0]
    alone = concluded([first], STEP)[0].evidence["q_value"]
    hopeless = [
        replace(first, name=f"other{i}", evidence={**first.evidence, "p_value": 1.0}) for i in range(19)
    ]
    among = {it.name: it.evidence for it in concluded([first, *hopeless], STEP)}
    assert among[first.name]["q_value"] == pytest.approx(20 * alone)
    assert among["other0"]["confirmed"] is False
    assert among[first.name]["confirmed"] is (20 * alone <= STEP.requirements.alpha)


def test_findings_of_a_stored_run_read_back(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset], found: list[Finding]
) -> None:
    run, handle, _, _ = audited
    assert stores.open(run.path).analysis(handle.id).findings()


def test_two_pieces_of_one_strategy_that_come_to_the_same_members_are_one_finding(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each half of the tagged images, tested by itself, is completed to all of them."""
    run, handle, model, data = audited
    pieces = [
        Strategy((number,), np.isin(np.arange(120), half), None)
        for number, half in enumerate((range(26), range(26, 50)))
    ]
    monkeypatch.setattr(ClassFindings, "_strategies", lambda self: list(pieces))
    subject = Subject.of(run, model, as_audit_data(data, classes=["dark <b>", "bright"]), "cpu")
    step = replace(STEP, contents=None, verification=replace(STEP.verification, members=60))
    (only,) = ClassFindings(run, handle, 1, step, Outcomes(run)).findings(subject)
    assert only.rows.tolist() == list(range(50)) and only.clusters == (0, 1) and only.evidence["unmet"] == []


def test_a_model_of_the_same_weights_that_answers_otherwise_is_refused(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset],
) -> None:
    """Its digest is that of its class and weights, and tells no other way of using them."""
    run, _, model, data = audited
    dataset = as_audit_data(data, classes=["dark <b>", "bright"])

    def halved(self: nn.Module, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1)) / 2
        return logits

    Other = type("TagReader", (TagReader,), {"forward": halved, "__module__": TagReader.__module__})
    other = Other()
    other.load_state_dict(model.state_dict())
    with pytest.raises(MismatchError, match="other answers"):
        Subject.of(run, other, dataset, "cpu")


@pytest.mark.parametrize("most", [0, 1])
def test_a_model_for_which_one_image_fits_is_asked_for_one_at_a_time(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset], most: int
) -> None:
    run, _, model, data = audited
    dataset = as_audit_data(data, classes=["dark <b>", "bright"])

    def cramped(self: nn.Module, x: Tensor) -> Tensor:
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        logits: Tensor = self.linear(x.flatten(1))
        return logits

    Little = type("TagReader", (TagReader,), {"forward": cramped, "__module__": TagReader.__module__})
    little = Little()
    little.load_state_dict(model.state_dict())
    if most:
        assert Subject.of(run, little, dataset, "cpu").run is run
    else:
        with pytest.raises(SpaceError, match=r"memory of cpu .* one image .* Prepare smaller images"):
            Subject.of(run, little, dataset, "cpu")


def test_a_store_that_was_opened_for_reading_is_refused_before_the_work(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, model, data = audited
    reading = stores.open(run.path)
    monkeypatch.setattr(ClassFindings, "findings", None)
    with pytest.raises(stores.StoreError, match="open for reading"):
        find(reading, reading.analysis(), replace(STEP, seed=77), model=model, dataset=data)


def test_a_model_in_training_mode_is_refused_before_a_pass_could_change_it(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset],
) -> None:
    run, _, _, data = audited
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(SIDE * SIDE, 2)).train()
    before = model_digest(model)
    with pytest.raises(BadModel, match=r"training mode.*model\.eval\(\)"):
        Subject.of(run, model, as_audit_data(data, classes=["dark <b>", "bright"]), "cpu")
    assert model_digest(model) == before


def test_what_was_tested_is_kept_where_it_is_only_ranked_anew(
    audited: tuple[Run, AnalysisHandle, nn.Module, TensorDataset], found: list[Finding]
) -> None:
    run, handle, _, _ = audited
    other = replace(STEP, ranking=Weighted((("share", 1.0),)))
    again = find(run, handle, other)
    assert {one.name: one.evidence["p_value"] for one in again if "p_value" in one.evidence} == {
        one.name: one.evidence["p_value"] for one in found if "p_value" in one.evidence
    }
    assert any(one.flagged for one in again) and [one.score for one in again] != [one.score for one in found]
