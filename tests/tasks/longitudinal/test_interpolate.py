"""Missing sessions: the ends are the sessions, lines are lines, and everything is scored on the real scan."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldae.errors import TaskError
from ldae.metrics.change import change_error
from ldae.tasks.longitudinal.comparison import METRICS, RIVALS, compare_groups
from ldae.tasks.longitudinal.evaluate import evaluate_interpolation, read_truth, save_cases, shown_cases
from ldae.tasks.longitudinal.interpolate import (
    METHODS,
    Sessions,
    draw_spread,
    find_triples,
    interpolate_subject,
    predict_between,
    with_residual,
)
from ldae.tasks.longitudinal.trajectory import TrajectoryPrior, fit_trajectory_prior, line_weights
from tests.records import record_of
from tests.tasks.fixed_source import FixedSource


def prior_of(scans, *, slope=0.0, slope_variance=1.0, noise_variance=1e-9):
    """A prior that is the same for all dimensions of the scans' codes."""
    width = scans.semantic.shape[1]
    return TrajectoryPrior(np.full((1, width), slope), np.full(width, slope_variance), np.full(width, noise_variance))


def relabelled(scans, rows, records, images=None):
    """Scans under other records, with their own images or others."""
    chosen = scans.select(rows)
    source = FixedSource(records, chosen.images() if images is None else images, chosen.latents())
    return replace(chosen, records=tuple(records), source=source)


def test_the_residual_gives_back_a_session_and_is_the_evaluated_estimate_between_two(tiny_model, scans):
    sessions = Sessions.of(tiny_model, scans)
    images, decoded = sessions.images, sessions.decoded
    (own,) = interpolate_subject(scans.select([0, 1, 2]), [12])
    np.testing.assert_allclose(with_residual(decoded[1], own, images[[1, 1]], decoded[[1, 1]]), images[1], atol=1e-6)
    (between,) = interpolate_subject(scans.select([0, 2]), [12])
    image = tiny_model.decode_images([between.codes])[0]
    estimate = with_residual(image, between, images[[0, 2]], decoded[[0, 2]])
    evaluated = predict_between(tiny_model, sessions, find_triples(scans)[:1])["ldae_residual"][0]
    np.testing.assert_allclose(estimate, evaluated, atol=1e-5)


def test_every_three_sessions_are_a_triple(scans):
    triples = find_triples(scans)
    assert [(t.first, t.target, t.second, t.weight) for t in triples] == [(0, 1, 2, 0.5), (3, 4, 5, 0.5)]
    assert triples[0].gap_months == 24
    record = replace(scans.records[0], session_id="M06", months=6.0)
    more = replace(scans.select([0, 1, 2, 0]), records=(*scans.records[:3], record))
    found = {(t.first, t.target, t.second) for t in find_triples(more)}
    assert found == {(0, 1, 2), (0, 3, 1), (0, 3, 2), (3, 1, 2)}


def test_ends_of_an_interpolation_are_the_sessions(scans):
    start, between, end = interpolate_subject(scans.select([0, 1, 2]), [0, 15, 24])
    assert torch.equal(start.codes.semantic, scans.codes[0].semantic)
    assert torch.equal(end.codes.noise, scans.codes[2].noise)
    assert (between.first, between.second, between.weight) == (1, 2, 0.25)
    assert [(each.first, each.second, each.weight) for each in (start, end)] == [(0, 0, 0.0), (2, 2, 0.0)]
    with pytest.raises(TaskError, match="lies outside"):
        interpolate_subject(scans.select([0, 1, 2]), [30])


def test_every_method_is_scored_on_the_real_scan(tiny_model, scans, tmp_path):
    result = evaluate_interpolation(tiny_model, scans, prior=prior_of(scans), batch_size=1)
    assert result.n == result.subjects == 2
    assert (result.own, result.ventricle_yardstick) == ("trajectory_residual", "measured")
    assert evaluate_interpolation(tiny_model, scans).own == "ldae_residual"
    assert set(result.means) == set(METRICS)
    # Of three sessions the line through the other two is their blend.
    assert list(result.means["ssim"]) == [name for name in METHODS if name != "voxel_trajectory"]
    assert len(result.table) == 2 * (len(METHODS) - 1)
    assert result.intervals == {}, "two subjects have no interval"
    results, rows = result.write(tmp_path)
    assert json.loads(results.read_text())["groups"]["gap"]["24 months and more"]["n"] == 2
    assert len(pd.read_csv(rows)) == len(result.table)
    triples, images = find_triples(scans), scans.images()
    predicted = predict_between(tiny_model, Sessions.of(tiny_model, scans), triples[:1])
    np.testing.assert_allclose(predicted["voxel_linear"][0], (images[0] + images[2]) / 2)
    # Where nothing changes between the ends, the residual puts back exactly the detail that compression lost.
    still = relabelled(scans, [0, 1, 0], scans.records[:3])
    same = predict_between(tiny_model, Sessions.of(tiny_model, still), triples[:1])
    np.testing.assert_allclose(same["ldae_residual"][0], images[0], atol=1e-4)
    with pytest.raises(TaskError, match="three dated sessions"):
        evaluate_interpolation(tiny_model, scans.select([0, 1]))


def test_a_line_of_ones_own_through_two_sessions_is_the_blend(tiny_model, scans):
    """With a prior that knows nothing, the line through both given sessions is the line between their codes."""
    triples = find_triples(scans)
    prior = prior_of(scans, slope=0.3, slope_variance=1e9)
    predicted = predict_between(tiny_model, Sessions.of(tiny_model, scans), triples, prior)
    np.testing.assert_allclose(predicted["trajectory"], predicted["ldae"], atol=1e-4)
    np.testing.assert_allclose(predicted["voxel_trajectory"], predicted["voxel_linear"], atol=1e-6)


def test_lines_use_every_other_session(tiny_model, scans):
    """Sessions on a line in time are predicted exactly, whichever of them are given; a code that stays adds nothing to it."""
    months = (0.0, 6.0, 18.0, 24.0)
    records = tuple(replace(scans.records[0], session_id=f"M{m:g}", months=m) for m in months)
    images = np.stack([scans.images()[0] * (0.2 + m / 40) for m in months]).astype(np.float32)
    still = relabelled(scans, [0, 0, 0, 0], records, images)
    triples = find_triples(still)
    assert len(triples) == 4
    prior = prior_of(scans, noise_variance=1.0)
    predicted = predict_between(tiny_model, Sessions.of(tiny_model, still), triples, prior)
    truth = images[[triple.target for triple in triples]]
    np.testing.assert_allclose(predicted["voxel_trajectory"], truth, atol=1e-6)
    np.testing.assert_allclose(predicted["trajectory_residual"], truth, atol=1e-4)


def test_a_second_scan_of_the_missing_month_is_not_used(tiny_model, scans):
    months = (0.0, 12.0, 12.0, 24.0)
    records = tuple(replace(scans.records[0], session_id=f"s{i}", months=m) for i, m in enumerate(months))
    twice = relabelled(scans, [0, 1, 1, 2], records)
    triples = [triple for triple in find_triples(twice) if triple.target == 1]
    predicted = predict_between(tiny_model, Sessions.of(tiny_model, twice), triples)
    images = twice.images()
    np.testing.assert_allclose(predicted["voxel_trajectory"][0], (images[0] + images[3]) / 2, atol=1e-6)


@given(
    st.lists(st.floats(0, 120), min_size=2, max_size=6, unique=True).filter(
        lambda months: max(months) - min(months) > 1
    ),
    st.floats(-60, 180),
    st.floats(-5, 5),
    st.floats(-1, 1),
)
def test_weights_of_a_line_read_any_line_exactly(months, month, level, slope):
    weights = line_weights(np.array(months), month)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert weights @ (level + slope * np.array(months)) == pytest.approx(level + slope * month, abs=1e-4)
    first, last = min(months), max(months)
    share = (month - first) / (last - first)
    np.testing.assert_allclose(line_weights(np.array([first, last]), month), [1 - share, share], atol=1e-9)
    for few in ([], [first], [first, first]):
        with pytest.raises(TaskError, match="two months or more"):
            line_weights(np.array(few), month)


def test_references_and_truth_take_the_place_of_the_scans(tiny_model, scans, tmp_path):
    triples = find_triples(scans)
    keys = [(record.participant_id, record.session_id) for record in scans.records]
    table = pd.DataFrame(keys, columns=["participant_id", "session_id"])
    table["ventricle_mm"] = [0.0, 1.0, 2.0, 0.0, 10.0, 20.0]
    table["ventricles_ml"] = 30.0
    table.to_csv(tmp_path / "truth.tsv", sep="\t", index=False)
    truth = read_truth(tmp_path / "truth.tsv")
    twins = {record.key: twin for record, twin in zip(scans.records, scans.records[::-1], strict=True)}
    result = evaluate_interpolation(tiny_model, scans, references=twins, truth=truth)
    assert result.plain()["ventricle_yardstick"] == "truth"
    half = dict(list(truth.items())[:3])
    assert evaluate_interpolation(tiny_model, scans, truth=half).ventricle_yardstick == "mixed"
    voxel = tiny_model.config.preprocessing.voxel_size_mm
    moved = result.table.drop_duplicates(["participant_id"])["boundary_voxels"].tolist()
    assert moved == pytest.approx([2 / voxel, 20 / voxel])
    assert sum(each["n"] for each in result.groups["boundary"].values()) == 2
    blend = result.table[result.table["method"] == "voxel_linear"]["mse"].to_numpy()
    images = scans.images()
    other = [np.square((images[t.first] + images[t.second]) / 2 - images[::-1][t.target]).mean() for t in triples]
    np.testing.assert_allclose(blend, other, rtol=1e-4)
    table.loc[0, "ventricles_ml"] = np.nan
    table.to_csv(tmp_path / "gap.tsv", sep="\t", index=False)
    gap = read_truth(tmp_path / "gap.tsv")
    assert sum("ventricles_ml" in each for each in gap.values()) == len(scans) - 1, "an empty cell is no value"
    (tmp_path / "mixed.tsv").write_text("participant_id\tsession_id\tventricles_ml\na\t1\t12.5\nb\t1\t12,5\n")
    with pytest.raises(TaskError, match="ventricles_ml holds numbers and text, such as '12,5'"):
        read_truth(tmp_path / "mixed.tsv")
    (tmp_path / "bad.tsv").write_text("a,b")
    with pytest.raises(TaskError, match="no table of true values"):
        read_truth(tmp_path / "bad.tsv")


@pytest.mark.parametrize(
    ("errors", "cases"),
    [
        ([0.4], {"only": 0}),
        ([0.9, 0.4], {"typical": 1, "worst": 0}),
        ([0.5, 0.9, 0.4], {"typical": 0, "worst": 1}),
        ([0.7, 0.7, 0.7], {"typical": 1, "worst": 2}),
    ],
)
def test_a_typical_and_the_worst_case_are_chosen_by_the_own_method(errors, cases):
    errors = {"own": np.array(errors), "voxel_linear": np.array(errors[::-1])}
    assert shown_cases(SimpleNamespace(own="own", change_errors=errors.__getitem__)) == cases


@pytest.mark.parametrize("with_prior", [True, False])
def test_shown_images_are_those_that_were_scored(tiny_model, scans, tmp_path, with_prior):
    prior = prior_of(scans) if with_prior else None
    result = evaluate_interpolation(tiny_model, scans, prior=prior)
    shown = save_cases(tiny_model, scans, result, prior, tmp_path / "cases.npz")
    assert result.own == ("trajectory_residual" if with_prior else "ldae_residual")
    assert [each["case"] for each in shown] == ["typical", "worst"]
    errors = [each["change_error"][result.own] for each in shown]
    assert errors[0] <= errors[1]
    with np.load(tmp_path / "cases.npz") as arrays:
        for at, facts in enumerate(shown):
            first, target, predicted, blend = (
                arrays[name][at].astype(np.float32) for name in ("first", "target", "predicted", "voxel_linear")
            )
            assert change_error(predicted, target, first) == pytest.approx(errors[at], rel=0.02)
            assert np.abs(arrays["codes_alone"][at] - predicted).max() > 0.01
            assert change_error(blend, target, first) == pytest.approx(facts["change_error"]["voxel_linear"], rel=0.02)


def test_a_spread_is_none_where_nothing_is_drawn(tiny_model, scans):
    spread = draw_spread(tiny_model, scans.codes[0], draws=3, seed=1)
    assert spread.shape == tiny_model.config.preprocessing.shape
    assert spread.min() >= 0
    assert spread.max() > 0
    np.testing.assert_allclose(draw_spread(tiny_model, scans.codes[0], draws=3, seed=1), spread)
    with pytest.raises(TaskError, match="at least 2"):
        draw_spread(tiny_model, scans.codes[0], draws=1)


def visits(months, subject="s"):
    return tuple(record_of(subject, f"M{month:02.0f}", months=float(month)) for month in months)


def changing_cohort(rng, people=400, noise=0.5, slope=0.1, slope_sd=0.05):
    records, codes = [], []
    for person in range(people):
        months = np.sort(rng.choice([0, 6, 12, 18, 24, 36], size=rng.integers(2, 5), replace=False))
        records += visits(months, f"s{person}")
        own = slope + slope_sd * rng.normal()
        codes += [rng.normal() * 0 + own * month + noise * rng.normal() for month in months]
    return records, np.array(codes)[:, None]


def test_the_prior_finds_slopes_and_noise_that_are_there():
    records, codes = changing_cohort(np.random.default_rng(0))
    prior = fit_trajectory_prior(records, codes)
    assert prior.slope[0, 0] == pytest.approx(0.1, abs=0.01)
    assert np.sqrt(prior.slope_variance[0]) == pytest.approx(0.05, abs=0.015)
    assert np.sqrt(prior.noise_variance[0]) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(TaskError, match="needs three subjects"):
        fit_trajectory_prior(visits([0, 12]), np.zeros((2, 1)))


@given(st.floats(-1, 1), st.floats(-5, 5), st.floats(0.01, 10), st.floats(0.01, 10), st.floats(-24, 60))
def test_people_on_a_line_of_the_cohorts_slope_stay_on_it(slope, level, between, noise, month):
    prior = TrajectoryPrior(np.array([[slope]]), np.array([between]), np.array([noise]))
    months = np.array([0.0, 6.0, 24.0])
    predicted = prior.predict((level + slope * months)[:, None], months, month)
    assert predicted[0] == pytest.approx(level + slope * month, abs=1e-6)


def test_few_sessions_follow_the_cohort_and_many_themselves():
    prior = TrajectoryPrior(np.array([[1.0]]), np.array([0.01]), np.array([1.0]))
    assert prior.predict(np.array([[5.0]]), np.array([12.0]), 24.0)[0] == 17.0
    months = np.arange(0.0, 600.0, 6.0)
    assert prior.predict(3 * months[:, None], months, 700.0)[0] == pytest.approx(2100, rel=1e-3)
    with pytest.raises(TaskError, match="no session"):
        prior.predict(np.empty((0, 1)), np.empty(0), 3.0)


def test_the_line_predicts_better_than_one_persons_own():
    """Shrinkage lowers the error of extrapolation where people have few, noisy sessions (Laird and Ware 1982)."""
    rng = np.random.default_rng(3)
    prior = fit_trajectory_prior(*changing_cohort(rng))
    own = replace(prior, slope_variance=np.array([1e9]))
    errors = {"prior": [], "own": []}
    for _ in range(300):
        slope = 0.1 + 0.05 * rng.normal()
        months = np.array([0.0, 6.0])
        codes = (slope * months + 0.5 * rng.normal(size=2))[:, None]
        for name, each in (("prior", prior), ("own", own)):
            errors[name].append((each.predict(codes, months, 24.0)[0] - slope * 24) ** 2)
    assert np.mean(errors["prior"]) < 0.5 * np.mean(errors["own"])


def test_differences_within_a_group_are_those_of_its_cases_alone():
    rng = np.random.default_rng(0)
    methods = ["ldae_residual", *RIVALS]
    case = np.repeat(np.arange(24), len(methods))
    table = pd.DataFrame({metric: rng.normal(size=len(case)) for metric in METRICS})
    table["participant_id"], table["method"] = [f"sub-{each % 12}" for each in case], methods * 24
    table["boundary_voxels"] = np.where(case % 2, 1.5, 0.2)
    table = table.assign(gap_months=12.0, diagnosis=None)
    moved = compare_groups(table, methods, 100, 0)["boundary"]["over 1 voxel"]
    chosen = table[table["boundary_voxels"] > 1]
    for metric, of in moved["differences"].items():
        for rival, each in of["ldae_residual"].items():
            mine, other = (chosen.loc[chosen["method"] == name, metric].mean() for name in ("ldae_residual", rival))
            assert each["value"] == pytest.approx(mine - other)
            assert each["low"] <= each["value"] <= each["high"]
    assert set(moved["differences"]) == {"change_error", "change_correlation"}
