"""Interventions on models whose strategy is known: only what is necessary and sufficient scores."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spray.findings.regions import TopRegion
from spray.findings.verification import (
    Candidate,
    ClassMaps,
    Evidence,
    Requirements,
    Verification,
    completed,
    verify,
)
from spray.findings.verification.effects import Effect
from spray.findings.verification.judge import LOGIT
from spray.memory import SpaceError

SIDE = 12
TAG = (slice(0, 3), slice(0, 3))
OBJECT = (slice(6, 10), slice(4, 9))
CPU = torch.device("cpu")
REGION = TopRegion(share=9 / SIDE**2, smooth=1)
STEP = Verification(members=30, screened=20, regions=(REGION,), permutations=999)


class Cues(nn.Module):
    """Class 1 by the tag's and the object's brightness, combined as told; class 0 else."""

    def __init__(self, combine: str) -> None:
        super().__init__()
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        tag = x[:, 0, *TAG].mean((1, 2)) - 0.5
        thing = x[:, 0, *OBJECT].mean((1, 2)) - 0.5
        both = torch.stack([tag, thing])
        cue = {"tag": tag, "either": both.amax(0), "both": both.amin(0), "neither": 0 * tag}[self.combine]
        return torch.stack([0 * cue, 16 * cue], dim=1)


def images(count: int, tagged: bool, thing: bool, seed: int) -> Tensor:
    x = torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 0.2
    if tagged:
        x[:, :, *TAG] = 1
    if thing:
        x[:, :, *OBJECT] = 1
    return x


def class_maps(maps: np.ndarray, hosts: int) -> ClassMaps:
    rows = np.arange(len(maps))
    return ClassMaps(1, rows, maps, np.arange(len(maps), len(maps) + hosts), np.zeros(hosts, np.int64))


def prove(combine: str, step: Verification = STEP) -> Evidence:
    """40 tagged and 60 plain members of class 1 (all with the object), 80 hosts without either."""
    data = torch.cat([images(40, True, True, 0), images(60, False, True, 1), images(80, False, False, 2)])
    maps = np.zeros((100, SIDE, SIDE))
    maps[:, *OBJECT] = 1
    maps[:40, *TAG] = 2
    region = np.zeros((SIDE, SIDE), bool)
    region[TAG] = True
    candidates = [Candidate(np.arange(40), region), Candidate(np.arange(40, 100), ~region)]
    found = verify(
        step, Cues(combine), lambda rows: data[torch.from_numpy(rows)], class_maps(maps, 80), candidates, CPU
    )
    assert found[0] is not None
    return found[0]


def test_a_shortcut_that_is_necessary_and_sufficient_is_proven() -> None:
    evidence = prove("tag")
    assert evidence.candidate and evidence.where == "fixed"
    assert evidence.score > 0.5
    assert Requirements().unmet(evidence) == ()
    assert evidence.flip_rates["shared"] == 1 and evidence.flip_rates["matched"] == 0
    assert np.argwhere(evidence.region).max() == 2
    assert evidence.hosts is not None and evidence.hosts.hosts == 1


@pytest.mark.parametrize("combine", ["either", "both", "neither"])
def test_what_is_not_both_does_not_even_become_a_candidate(combine: str) -> None:
    evidence = prove(combine)
    assert evidence.score < 0.02 and not evidence.candidate
    assert "tested on the other half" in Requirements().unmet(evidence)
    effects = {"either": evidence.transplant, "both": evidence.removal}
    if combine in effects:  # one half of the proof alone holds strongly
        assert effects[combine].mean > 0.8


@pytest.mark.parametrize("combine", ["either", "both", "neither"])
def test_what_is_not_both_fails_the_test_where_the_screen_lets_it_pass(combine: str) -> None:
    evidence = prove(combine, replace(STEP, screen=-1.0))
    assert evidence.candidate
    assert {"size of the effect", "significance"} <= set(Requirements().unmet(evidence))


def test_the_same_seed_gives_the_same_evidence_in_any_batches() -> None:
    first, second = prove("tag"), prove("tag", replace(STEP, batch=7))
    one, other = first.to_json(Requirements()), second.to_json(Requirements())
    assert one["p_value"] == other["p_value"]
    for part in ("removal", "transplant"):
        left, right = one[part], other[part]
        assert isinstance(left, dict) and isinstance(right, dict)
        assert left["net"] == pytest.approx(right["net"], abs=1e-6)


def test_the_words_of_the_store_have_every_figure() -> None:
    content = prove("tag").to_json(Requirements())
    removal = content["removal"]
    assert isinstance(removal, dict)
    assert set(removal["controls"]) == {"matched", "random", "other findings", "same place"}
    assert set(removal["measures"]) == {"probability", "logit", "flip"}
    assert set(removal["ways"]) == {"neighbour", "harmonic"}
    assert removal["measures"]["logit"]["net"] > removal["measures"]["probability"]["net"] > 0.5
    assert content["unmet"] == [] and content["pasted_on"] == 40


def test_what_the_whole_class_has_at_the_place_is_no_necessity_of_the_members() -> None:
    """Members are brighter at a place that counts in all images of the class: the same fill costs all of it as much."""
    data = torch.cat([images(40, True, True, 0), images(60, True, True, 1), images(80, False, False, 2)])
    maps = np.zeros((100, SIDE, SIDE))
    maps[:, *OBJECT] = 1
    maps[:40, *TAG] = 2
    candidates = [Candidate(np.arange(40))]
    step = replace(STEP, screen=-1.0, fills=STEP.fills[1:])
    (evidence,) = verify(
        step, Cues("tag"), lambda rows: data[torch.from_numpy(rows)], class_maps(maps, 80), candidates, CPU
    )
    assert evidence is not None and evidence.removal.mean > 0.8
    assert "same place" in evidence.removal.controls
    assert evidence.removal.size < 0.05 and "significance" in Requirements().unmet(evidence)


def test_members_have_to_be_a_mode_of_their_own() -> None:
    """A feature that comes by degrees is cut by its cluster: all members have more of it, and none stands apart."""
    evidence = prove("tag")
    assert evidence.mode is not None and evidence.mode > 0.9
    data = torch.cat([images(200, False, True, 1), images(80, False, False, 2)])
    degrees = torch.linspace(0, 1, 200)
    data[:200, :, *TAG] = degrees[:, None, None, None]
    maps = np.zeros((200, SIDE, SIDE))
    maps[:, *OBJECT] = 1
    maps[:, *TAG] = degrees.numpy()[:, None, None]
    step, read = replace(STEP, screen=-1.0), lambda rows: data[torch.from_numpy(rows)]
    (cut,) = verify(step, Cues("tag"), read, class_maps(maps, 80), [Candidate(np.arange(140, 200))], CPU)
    assert cut is not None and cut.mode is not None and cut.mode < 0.3
    assert "members that stand apart" in Requirements().unmet(cut)
    shown = Candidate(np.arange(140, 200), mode=0.8)
    (known,) = verify(step, Cues("tag"), read, class_maps(maps, 80), [shown], CPU)
    assert known is not None and known.mode == 0.8
    assert "members that stand apart" not in Requirements().unmet(known)


def test_one_fill_alone_confirms_nothing() -> None:
    evidence = prove("tag", replace(STEP, fills=STEP.fills[:1]))
    assert Requirements().unmet(evidence) == ("agreement of fills",)


def test_too_few_members_or_hosts_give_no_evidence() -> None:
    maps = np.ones((20, SIDE, SIDE))
    maps[:15, *TAG] = 2
    region = np.ones((SIDE, SIDE), bool)
    data = images(40, False, True, 0)

    def found(members: int, hosts: int) -> Evidence | None:
        candidates = [Candidate(np.arange(members), region)]
        (evidence,) = verify(
            STEP,
            Cues("tag"),
            lambda rows: data[torch.from_numpy(rows)],
            class_maps(maps, hosts),
            candidates,
            CPU,
        )
        return evidence

    assert found(5, 20) is None  # a cluster of one, or of five
    assert found(15, 2) is None
    assert found(15, 0) is None  # a data set of one class
    assert found(15, 20) is not None


def test_a_finding_that_is_its_whole_class_is_compared_with_nothing_and_so_not_confirmed() -> None:
    data = torch.cat([images(40, True, True, 0), images(40, False, False, 1)])
    maps = np.zeros((40, SIDE, SIDE))
    maps[:, *TAG] = 1
    (evidence,) = verify(
        STEP,
        Cues("tag"),
        lambda rows: data[torch.from_numpy(rows)],
        class_maps(maps, 40),
        [Candidate(np.arange(40), maps[0] > 0)],
        CPU,
    )
    assert evidence is not None and evidence.score > 0.5 and evidence.compared == 0
    missing = {"a comparison with the rest of the class", "members that stand apart"}
    assert set(Requirements().unmet(evidence)) == missing


def test_members_of_one_finding_are_no_hosts_of_it() -> None:
    """In a joint analysis everybody else may be a host; what carries the tag already cannot show its effect."""
    data = torch.cat([images(40, True, False, 0), images(160, False, False, 1)])
    maps = np.zeros((200, SIDE, SIDE))
    maps[:40, *TAG] = 1
    maps[40:, *OBJECT] = 1
    everyone = ClassMaps(1, np.arange(200), maps, np.arange(200), np.full(200, -1))
    (evidence,) = verify(
        STEP,
        Cues("tag"),
        lambda rows: data[torch.from_numpy(rows)],
        everyone,
        [Candidate(np.arange(40), maps[0] > 0)],
        CPU,
    )
    assert evidence is not None and evidence.flip_rates["shared"] == 1
    assert evidence.hosts is not None and evidence.hosts.classes is None and evidence.hosts.hosts == 1


def test_a_small_budget_takes_fewer_samples_never_too_few() -> None:
    step = Verification(members=100, screened=40, budget=6000)
    assert Verification().sizes(20, 5) == (40, 100)
    assert step.sizes(4, 2) == (40, 30)
    assert step.sizes(100, 50) == (10, 10)


def test_few_members_are_pasted_on_more_hosts_than_there_are_of_them() -> None:
    maps = np.zeros((100, SIDE, SIDE))
    maps[:, *OBJECT] = 1
    maps[:16, *TAG] = 2
    data = torch.cat([images(16, True, True, 0), images(84, False, True, 1), images(200, False, False, 2)])
    for each in (1, 3):
        step = replace(STEP, members=20, hosts_each=each)
        (found,) = verify(
            step,
            Cues("tag"),
            lambda rows: data[torch.from_numpy(rows)],
            class_maps(maps, 200),
            [Candidate(np.arange(16))],
            CPU,
        )
        assert found is not None and found.candidate
        assert found.pasted_on == 20 * each and found.transplant.compared("matched") == 8


def test_two_shortcuts_do_not_hide_each_other() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first, second = x[:, 0, :3, :3].mean((1, 2)), x[:, 0, -3:, -3:].mean((1, 2))
            cue = torch.maximum(first, second) - 0.5
            return torch.stack([0 * cue, 16 * cue], dim=1)

    data = images(240, False, False, 0)
    data[:40, :, :3, :3] = data[40:80, :, -3:, -3:] = 1
    maps = np.zeros((160, SIDE, SIDE))
    maps[:40, :3, :3] = maps[40:80, -3:, -3:] = 1
    maps[80:, *OBJECT] = 1
    candidates = [Candidate(np.arange(40), maps[0] > 0), Candidate(np.arange(40, 80), maps[40] > 0)]
    found = verify(
        STEP, Two(), lambda rows: data[torch.from_numpy(rows)], class_maps(maps, 80), candidates, CPU
    )
    assert [Requirements().unmet(one) for one in found if one is not None] == [(), ()]


def test_half_b_has_no_image_of_half_a_in_any_part() -> None:
    """Members of one finding are the rest beside another, and donors of a rival: what passed is decided by half A."""
    data = torch.cat([images(40, True, True, 0), images(120, False, True, 1), images(80, False, False, 2)])
    maps = np.zeros((160, SIDE, SIDE))
    maps[:, *OBJECT] = 1
    maps[:40, *TAG] = 2
    maps[40:80, -3:, -3:] = maps[80:120, -3:, :3] = 3
    seen: list[set[int]] = [set()]

    class Noted(Verification):
        def sizes(self, findings: int, candidates: int) -> tuple[int, int]:
            seen.append(set())
            return super().sizes(findings, candidates)

    def read(rows: np.ndarray) -> Tensor:
        seen[-1] |= set(rows.tolist())
        return data[torch.from_numpy(rows)]

    step = Noted(members=1000, screened=1000, regions=(REGION,), permutations=99)
    candidates = [Candidate(np.arange(start, start + 40)) for start in (0, 40, 80)]
    found = verify(step, Cues("tag"), read, class_maps(maps, 80), candidates, CPU)
    assert [one is not None and one.candidate for one in found] == [True, False, False]
    assert found[0] is not None and "other findings" in found[0].removal.controls
    _, screened, tested = seen
    assert len(screened) > 100 and len(tested) > 100
    assert not screened & tested


def test_what_is_told_of_effect_control_and_net_is_of_the_same_images_where_the_rest_is_small() -> None:
    data = torch.cat([images(100, True, True, 0), images(14, False, True, 1), images(200, False, False, 2)])
    maps = np.zeros((114, SIDE, SIDE))
    maps[:, *OBJECT] = 1
    maps[:100, *TAG] = 2
    step = replace(STEP, members=100, screened=100)
    read, net = (lambda rows: data[torch.from_numpy(rows)]), Cues("either")
    data[114:, :, *OBJECT] = torch.linspace(0, 1, 200)[
        :, None, None, None
    ]  # hosts in the order of what they are
    (evidence,) = verify(
        replace(step, screen=-1.0), net, read, class_maps(maps, 200), [Candidate(np.arange(100))], CPU
    )
    assert evidence is not None and evidence.compared == 7
    told = evidence.to_json(Requirements())["transplant"]
    assert isinstance(told, dict) and isinstance(told["controls"], dict)
    assert told["controls"]["matched"] > 0.1
    assert told["net"] == pytest.approx(told["mean"] - max(0.0, *told["controls"].values()))
    assert told["images"] == 50 and told["net_images"] == 7


def test_a_fixed_place_that_few_of_a_mixed_cluster_have_is_not_taken_for_one_that_moves() -> None:
    data = torch.cat([images(36, True, True, 0), images(184, False, True, 1), images(80, False, False, 2)])
    maps = np.random.default_rng(0).random((220, SIDE, SIDE)) * 0.1
    maps[:, *OBJECT] += 1
    maps[:36, *TAG] = 2
    (evidence,) = verify(
        STEP,
        Cues("tag"),
        lambda rows: data[torch.from_numpy(rows)],
        class_maps(maps, 80),
        [Candidate(np.arange(100))],
        CPU,
    )
    assert evidence is not None and evidence.where == "fixed"
    assert set(evidence.rows.tolist()) <= set(range(36)) and len(evidence.rows) > 30
    assert Requirements().unmet(evidence) == ()


def test_every_image_has_a_random_region_of_its_own() -> None:
    """One throw for all of them would make it a coin whether the control falls on what counts."""

    class Shaded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            shade = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE) / SIDE**2
            cue = 8 * x[:, 0, *TAG].mean((1, 2)) + (shade * x[:, 0]).mean((1, 2))
            return torch.stack([0 * cue, cue - 4], dim=1)

    data = torch.cat([images(1, True, True, 0).expand(40, -1, -1, -1), images(140, False, False, 1)])
    maps = np.zeros((100, SIDE, SIDE))
    maps[:, *OBJECT] = 1
    maps[:40, *TAG] = 2
    (evidence,) = verify(
        replace(STEP, screen=-1.0),
        Shaded(),
        lambda rows: data[torch.from_numpy(rows)],
        class_maps(maps, 80),
        [Candidate(np.arange(40))],
        CPU,
    )
    assert evidence is not None and evidence.candidate
    falls = evidence.removal.controls["random"]["harmonic"].values[:, LOGIT]
    assert len(falls) == 20 and len(np.unique(falls.round(6))) > 10  # of twenty images that are all the same


def test_log_odds_decide_where_told_so_and_are_put_on_a_scale_that_ends_at_one() -> None:
    ways = {"a": np.column_stack([np.zeros(8), np.full(8, 4.0), np.zeros(8)])}
    effect = Effect("removal", ways, {}, LOGIT)
    assert effect.net == 4 and effect.size == pytest.approx(np.tanh(1))
    assert effect.p_value == pytest.approx(2**-8)


@pytest.mark.parametrize(
    "labels", [[2], [2, 3], [2, 3, 4], [-1]], ids=["one class", "two", "three", "unknown"]
)
def test_what_works_on_few_hosts_only_depends_on_them(labels: list[int]) -> None:
    """A tag that counts on bright backgrounds alone, which a third of the hosts have."""

    class OnBright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            tag, bright = x[:, 0, *TAG].mean((1, 2)) - 0.5, x[:, 0, 4:, 9:].mean((1, 2)) > 0.5
            cue = torch.where(bright, 16 * tag, torch.full_like(tag, -8.0))
            return torch.stack([0 * cue, cue], dim=1)

    data = torch.cat([images(40, True, True, 0), images(60, False, True, 1), images(90, False, False, 2)])
    data[:130, :, 4:, 9:] = 1
    maps = np.zeros((100, SIDE, SIDE))
    maps[:, *OBJECT] = 1
    maps[:40, *TAG] = 2
    told = np.sort(np.resize(labels, 90))
    on = ClassMaps(1, np.arange(100), maps, np.arange(100, 190), told)
    step = replace(STEP, screen=0.0)
    (evidence,) = verify(
        step, OnBright(), lambda rows: data[torch.from_numpy(rows)], on, [Candidate(np.arange(40))], CPU
    )
    assert evidence is not None and evidence.hosts is not None and evidence.transplant.mean > 0.1
    assert 0.1 < evidence.hosts.hosts < 0.5
    assert "independence of the host" in Requirements().unmet(evidence)


def test_where_memory_runs_out_fewer_samples_are_tested_and_nothing_is_lost() -> None:
    """Beyond the judge's batches, too: what is held of all samples at once has to fit."""
    data = torch.cat([images(40, True, True, 0), images(60, False, True, 1), images(80, False, False, 2)])
    maps = np.zeros((100, SIDE, SIDE))
    maps[:, *OBJECT] = 1
    maps[:40, *TAG] = 2

    def read(rows: np.ndarray, most: int) -> Tensor:
        if len(rows) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 TB")
        return data[torch.from_numpy(rows)]

    def found(most: int) -> Evidence | None:
        maps_of_class, candidates = class_maps(maps, 80), [Candidate(np.arange(40))]
        return verify(STEP, Cues("tag"), partial(read, most=most), maps_of_class, candidates, CPU)[0]

    spared = found(12)
    assert spared is not None and spared.candidate and spared.pasted_on <= 12
    assert spared.score > 0.5
    region = Candidate(np.arange(30), spared.region)
    rows = completed(STEP, Cues("tag"), partial(read, most=30), class_maps(maps, 80), region, CPU)
    assert rows.tolist() == list(range(40))
    with pytest.raises(MemoryError, match="Prepare smaller images"):
        found(5)
    for most in (12, 3, 1):  # of the others of the class, too, and of the hosts
        few = completed(STEP, Cues("tag"), partial(read, most=most), class_maps(maps, 80), region, CPU)
        assert few.tolist() == list(range(40))
    with pytest.raises(SpaceError, match="for one image"):
        completed(STEP, Cues("tag"), partial(read, most=0), class_maps(maps, 80), region, CPU)
