"""Directions that are there are found, and named by nothing but what they go with."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ldae.errors import TaskError
from ldae.metrics.code_usage import share_between_subjects
from ldae.tasks.explore.directions import (
    Direction,
    associations,
    decoder_directions,
    find_lookalikes,
    nearest_scans,
    principal_directions,
    reliability,
)
from ldae.tasks.explore.sparse import fit_sparse_features
from tests.records import record_of


def people(n, sessions=1, **columns):
    return tuple(
        record_of(f"s{i // sessions}", f"M{i % sessions}", extra={k: v[i] for k, v in columns.items()})
        for i in range(n * sessions)
    )


def test_principal_directions_are_the_variances():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    codes = 3 + rng.normal(size=(5000, 6)) * [5, 3, 1, 0.1, 0.1, 0.1] @ axes
    first, second = principal_directions(codes, 2)
    assert abs(first.step @ axes[0]) == pytest.approx(5, rel=0.05)
    assert abs(second.step @ axes[1]) == pytest.approx(3, rel=0.05)
    assert first.strength == pytest.approx(25 / 35.03, rel=0.05)
    with pytest.raises(TaskError, match="three scans"):
        principal_directions(codes[:2], 2)


def test_names_come_from_correlations_alone():
    rng = np.random.default_rng(1)
    codes = rng.normal(size=(200, 4))
    codes[:, 2] *= 5
    age, group = codes[:, 2] + rng.normal(size=200), np.where(codes[:, 2] > 0, "a", "b").tolist()
    records = people(200, years=age.tolist(), group=group, noise=rng.normal(size=200).tolist(), one=[1] * 200)
    found = associations(principal_directions(codes, 3), codes, records, ["years", "group", "noise", "one"])
    strongest = found[0].associations[0]
    assert {"years", "group"} == {each.column for each in found[0].associations[:2]}
    assert strongest.p_holm < 1e-6
    assert "noise" not in found[0].name
    assert found[1].name == Direction(np.ones(2), 0.5).name == "no column"
    assert {each.column for each in found[0].associations} == {"years", "group", "noise"}


def test_the_decoders_directions_are_those_of_its_jacobian(tiny_model, scans):
    few = tiny_model.with_sampling(["steps=2"])
    codes = few.with_noise(scans.codes[:1], scans.select([0]).latents())
    scale = scans.semantic.std(axis=0)
    # In a wider block the first directions are found sooner.
    directions = decoder_directions(few, codes, scans.semantic, 5)[:2]
    units = np.eye(len(scale))
    shifts = torch.from_numpy(np.concatenate([0.05 * units, -0.05 * units]) * scale).float()
    moved = [codes[0].with_semantic(codes[0].semantic + shift) for shift in shifts]
    forward, backward = few.latents_of(moved).double().flatten(1).numpy().reshape(2, len(units), -1)
    jacobian = (forward - backward).T / 0.1 / np.sqrt(forward.shape[1])
    _, singular, axes = np.linalg.svd(jacobian, full_matrices=False)
    assert [each.strength for each in directions] == pytest.approx(singular[:2], rel=0.05)
    assert abs(directions[0].step / scale @ axes[0]) > 0.95
    with pytest.raises(TaskError, match="need noise codes"):
        decoder_directions(few, [replace(codes[0], noise=None)], scans.semantic, 5)


def test_neighbours_are_of_other_people_and_lookalikes_stand_out():
    rng = np.random.default_rng(2)
    centres = np.repeat(rng.normal(size=(20, 8)), 2, axis=0)
    codes = centres + 0.1 * rng.normal(size=centres.shape)
    records = people(20, sessions=2)
    found = nearest_scans(codes, records, count=2)
    assert len(found) == 80
    assert all(each.key.split("_")[0] != each.other.split("_")[0] for each in found)
    assert find_lookalikes(codes, records) == []
    codes[7] = codes[20] + 0.01
    pairs = find_lookalikes(codes, records)
    assert {pairs[0].key, pairs[0].other} == {records[7].key, records[20].key}
    assert all({pair.key, pair.other} <= {records[7].key, records[20].key, records[21].key} for pair in pairs)


def test_reliability_is_the_share_between_people():
    rng = np.random.default_rng(3)
    subjects = [f"s{i // 3}" for i in range(3000)]
    codes = np.repeat(rng.normal(size=(1000, 2)) * [2.0, 0.0], 3, axis=0) + rng.normal(size=(3000, 2))
    icc = reliability(codes, subjects)
    assert icc == pytest.approx([0.8, 0.0], abs=0.03)
    assert share_between_subjects(codes[:, :1], subjects) == pytest.approx(icc[0], abs=1e-9)
    assert reliability(codes[:5], list("abcde")) is None
    assert reliability(codes[:5], ["a"] * 5) is None


def test_sparse_features_give_back_what_is_sparse():
    rng = np.random.default_rng(4)
    true = rng.normal(size=(12, 16))
    strength = rng.exponential(size=(600, 12)) * (rng.random((600, 12)) < 0.15)
    codes = strength @ true
    fitted, sizes = np.arange(600) < 450, {"features": 24, "active": 4}
    found = fit_sparse_features(codes, fitted, steps=600, **sizes)
    assert found.r2 > 0.8
    assert found.active <= 4
    assert found.activations.min() >= 0
    again = fit_sparse_features(codes, fitted, steps=600, **sizes)
    np.testing.assert_array_equal(again.directions, found.directions)
    noise = fit_sparse_features(rng.normal(size=codes.shape), fitted, steps=300, **sizes)
    assert noise.r2 < 0.6 < found.r2
    with pytest.raises(TaskError, match="on both sides"):
        fit_sparse_features(codes, np.ones(600, dtype=bool), **sizes)
