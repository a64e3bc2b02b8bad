import json
import re
import weakref
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ldae.base.part import Part
from ldae.errors import TaskError
from ldae.image_files import Reading, reading
from ldae.io.checkpoints import load_tensors
from ldae.io.notice import SYNTHETIC
from ldae.metrics.volumetry import STRUCTURES
from ldae.tasks.code_usage import code_usage
from ldae.tasks.edit.direction import manipulate_codes
from ldae.tasks.edit.evaluate import manipulate
from ldae.tasks.edit.manipulate import DriftWarning, edit_scans
from ldae.tasks.encode import encode_manifest, encode_scans
from ldae.tasks.native.spaces import TemplateSpace, check_names
from ldae.tasks.probe.baselines import SimpleFeatures
from ldae.tasks.probe.embeddings import read_embeddings, write_embeddings
from ldae.tasks.probe.linear import LinearProbe
from ldae.tasks.reconstruct import reconstruct, save_shown, write_reconstructions
from ldae.tasks.sample import compare_samples, sample
from ldae.volume import Volume, read_volume, write_volume


class Tracked(np.ndarray):
    """An array that can be watched."""


def test_encoding_a_manifest_writes_one_row_a_scan(tiny_model, cohort, tmp_path):
    seen = []
    result = encode_manifest(
        tiny_model, cohort.records, tmp_path / "codes", noise=True, batch_size=4, progress=lambda *a: seen.append(a)
    )
    table = read_embeddings(result.codes)
    assert table.values.shape == (6, 16)
    assert seen == [(4, 12), (6, 12), (10, 12), (12, 12)]
    expected = tiny_model.encode(read_volume(cohort.records[4].image), preprocess=False).semantic.numpy()
    np.testing.assert_allclose(table.of(cohort.records)[4], expected, atol=1e-4)
    written, metadata = load_tensors(result.noise)
    kept = encode_scans(tiny_model, cohort.records, batch_size=4).with_noise(tiny_model, batch_size=4)
    assert len(written) == 2 * len(kept)
    for record, codes in zip(kept.records, kept.codes, strict=True):
        torch.testing.assert_close(written[record.key], codes.noise)
        torch.testing.assert_close(written[f"{record.key}:record"], codes.record)
    assert metadata == {"model": tiny_model.fingerprint(), "solver": "bdia, 3 steps"}
    facts = json.loads((tmp_path / "codes" / "encode.json").read_text())
    assert facts["solver"] == "bdia, 3 steps"
    assert "worst_round_trip_rms" not in facts, "nobody asked for it"
    assert result.worst_round_trip is None


def test_an_interrupted_encoding_goes_on_with_the_batch_that_it_was_in(tiny_model, cohort, tmp_path, monkeypatch):
    whole = encode_manifest(tiny_model, cohort.records, tmp_path / "whole", noise=True, round_trip=True, batch_size=2)
    facts = json.loads((tmp_path / "whole" / "encode.json").read_text())
    assert facts["worst_round_trip_rms"] == whole.worst_round_trip < 1e-4
    encode, invert, calls = tiny_model.encode_prepared, tiny_model.with_noise, []

    def fails_at(which, function):
        def called(*arguments, **keywords):
            calls.append(function.__name__)
            if len(calls) == which:
                raise KeyboardInterrupt
            return function(*arguments, **keywords)

        return called

    for last in (3, 3, None):  # in the third batch, in the second inversion, not at all
        calls.clear()
        monkeypatch.setattr(tiny_model, "encode_prepared", fails_at(last, encode))
        monkeypatch.setattr(tiny_model, "with_noise", fails_at(last, invert))
        with pytest.raises(KeyboardInterrupt) if last else nullcontext():
            again = encode_manifest(
                tiny_model, cohort.records, tmp_path / "again", noise=True, round_trip=True, batch_size=2
            )
    assert calls == ["with_noise"] * 2
    assert (tmp_path / "again" / "codes.parquet").read_bytes() == whole.codes.read_bytes()
    assert again.worst_round_trip == whole.worst_round_trip
    for name, tensor in load_tensors(whole.noise)[0].items():
        torch.testing.assert_close(load_tensors(again.noise)[0][name], tensor)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [
        "codes.parquet",
        "encode.json",
        "noise.safetensors",
    ]


def test_batches_of_an_interrupted_encoding_serve_the_same_reading_and_configuration_alone(
    tiny_model, cohort, tmp_path
):
    seen = []

    def encode():
        seen.clear()
        encode_scans(tiny_model, cohort.records, cache=tmp_path, keep=True, visit=[seen.append])
        return bool(seen)

    assert [encode(), encode()] == [True, False]
    with reading(Reading(assume_ras=True, spacing=(2.0, 2.0, 2.0))):
        assert [encode(), encode()] == [True, False]
    preprocessing = replace(tiny_model.config.preprocessing, percentiles=(1.0, 99.0))
    tiny_model.config = replace(tiny_model.config, preprocessing=preprocessing)
    assert [encode(), encode()] == [True, False]


def test_noise_codes_stay_in_a_file_until_they_are_taken(tiny_model, scans):
    light = encode_scans(tiny_model, scans.records, batch_size=4)
    known = list(scans.codes)
    assert all(each.noise is None for each in scans.codes.codes)
    inverted = tiny_model.with_noise(light.codes, light.latents())
    for found, each in zip(known, inverted, strict=True):
        assert torch.equal(found.semantic, each.semantic)
        torch.testing.assert_close((found.noise, found.record), (each.noise, each.record), atol=1e-4, rtol=0)
    chosen = scans.select([4, 1])
    assert [each.same_image(known[row]) for each, row in zip(chosen.codes, (4, 1), strict=True)] == [True, True]
    assert scans.codes[1:3][-1].same_image(known[2])


def test_scans_that_are_no_brains_in_template_space_are_left_out_or_marked(tiny_model, cohort, tmp_path):
    good = read_volume(cohort.records[0].image)
    inverted = np.where(good.data > 0, good.data.max() - good.data + 1, 0)
    labels = np.digitize(good.data, np.percentile(good.data[good.data > 0], [30, 60, 85]))
    elsewhere = good.affine.copy()
    elsewhere[:3, 3] += 40
    wrong = {
        1: (
            Volume(good.data[:, :, ::-1].copy(), good.affine),
            r"overlap .* \(Dice, at least 0.82 needed\), correlation",
        ),
        2: (Volume(inverted, good.affine), "looks like a brain"),
        3: (Volume(labels.astype(np.float32), good.affine), "labels, not a scan"),
        4: (Volume(good.data, elsewhere), "not a brain in template space"),
    }
    for row, (volume, _) in wrong.items():
        write_volume(volume, cohort.records[row].image)
    result = encode_manifest(tiny_model, cohort.records, tmp_path / "codes")
    assert result.encoded == 2
    assert list(result.failures) == [cohort.records[row].key for row in wrong]
    for row, (_, words) in wrong.items():
        assert re.search(words, result.failures[cohort.records[row].key])
    forced = encode_manifest(tiny_model, cohort.records, tmp_path / "forced", force=True)
    assert (forced.encoded, forced.failures, set(forced.forced)) == (6, {}, set(result.failures))
    table = pd.read_parquet(forced.codes)
    assert table["forced"].notna().tolist() == [row in wrong for row in range(6)]
    assert read_embeddings(forced.codes).values.shape == (6, 16)


def test_codes_that_are_not_finite_are_an_error(tiny_model, cohort, tmp_path, monkeypatch):
    broken = cohort.records[1].key
    encode = tiny_model.encode_prepared

    def with_nan(scans, *args, **options):
        codes = encode(scans, *args, **options)
        return [replace(each, semantic=each.semantic * (np.nan if row == 1 else 1)) for row, each in enumerate(codes)]

    monkeypatch.setattr(tiny_model, "encode_prepared", with_nan)
    with pytest.raises(TaskError, match=f"the codes of {broken} are not finite"):
        encode_manifest(tiny_model, cohort.records, tmp_path / "codes", batch_size=6)
    assert not (tmp_path / "codes" / "codes.parquet").exists()


def test_a_corrupt_scan_is_reported_and_stops_nothing(tiny_model, cohort, tmp_path):
    cohort.records[1].image.write_bytes(b"not gzip")
    result = encode_manifest(tiny_model, cohort.records, tmp_path / "codes", batch_size=2)
    assert result.encoded == 5
    assert list(result.failures) == [cohort.records[1].key]
    with pytest.raises(TaskError, match="none of 1 scans"):
        encode_manifest(tiny_model, cohort.records[1:2], tmp_path / "none")
    assert not (tmp_path / "none" / "codes.parquet").exists()


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("other.csv", "participant_id,session_id,f,note\na,1,0.1,x\nb,1,0.2,y", [[0.1], [0.2]]),
        ("other.tsv", "participant_id\tsession_id\tf\tnote\na\t1\t0.1\tx\nb\t1\t0.2\ty", [[0.1], [0.2]]),
        ("german.csv", "participant_id;f;g\na;0,1;2\nb;-3,25;4\n", [[0.1, 2.0], [-3.25, 4.0]]),
        ("people.csv", "participant_id,RID,f\na,7,0.1\nb,,0.2\n", [[0.1], [0.2]]),
        ("points.csv", "participant_id;f;g\na;0.1;2\nb;-3.25;4\n", [[0.1, 2.0], [-3.25, 4.0]]),
    ],
)
def test_embeddings_of_other_models_are_read(tmp_path, name, text, values):
    (tmp_path / name).write_text(text)
    assert read_embeddings(tmp_path / name).values.tolist() == values


def test_what_the_manifest_holds_is_no_feature(tmp_path):
    path = tmp_path / "all.csv"
    rows = {"participant_id": ["a", "b"], "mmse": [29, 21], "age": [70.0, 71.0], "f1": [0.1, 0.2], "f2": [1, 2]}
    pd.DataFrame(rows).to_csv(path, index=False)
    everything, features = read_embeddings(path), read_embeddings(path, ["participant_id", "mmse", "site"])
    assert (everything.names, everything.left_out) == (("mmse", "f1", "f2"), ("age",))
    assert (features.names, features.left_out) == (("f1", "f2"), ("mmse", "age"))
    assert features.values.tolist() == [[0.1, 1.0], [0.2, 2.0]]
    with pytest.raises(TaskError, match="no numeric column besides"):
        read_embeddings(path, list(rows))


def test_damaged_tables_are_named(tmp_path, cohort):
    np.save(tmp_path / "array.npy", np.eye(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(TaskError, match=r"array.npz: unreadable \(an array alone"):
        read_embeddings(tmp_path / "array.npz")
    values = np.random.default_rng(0).normal(size=(len(cohort.records), 40))
    path = write_embeddings(tmp_path / "codes.parquet", cohort.records, values)
    whole, reasons = path.read_bytes(), set()
    for at in np.random.default_rng(1).integers(0, len(whole), 60):
        packed = bytearray(whole)
        packed[at] ^= 0xFF
        path.write_bytes(packed)
        try:
            assert np.array_equal(read_embeddings(path).values, values)  # what was hit means nothing
        except TaskError as error:
            reasons.add(("codes.parquet: " in str(error), "CRC" in str(error)))
    assert reasons == {(True, True), (True, False)}


def test_arrays_and_tables_without_sessions_are_read(tmp_path, cohort):
    keys = {"participant_id": np.array(["a", "b"]), "session_id": np.array(["1", "1"])}
    np.savez(tmp_path / "tokens.npz", values=np.zeros((2, 5, 3), np.float32), **keys)
    assert read_embeddings(tmp_path / "tokens.npz").values.shape == (2, 5, 3)
    np.savez(tmp_path / "short.npz", values=np.zeros((3, 2)), **keys)
    with pytest.raises(TaskError, match="one key a scan"):
        read_embeddings(tmp_path / "short.npz")
    subjects = list(cohort.subjects)
    table = pd.DataFrame({"participant_id": subjects, "f": np.arange(len(subjects))})
    table.to_csv(tmp_path / "people.csv", index=False)
    people = read_embeddings(tmp_path / "people.csv")
    first = {record.participant_id: record for record in reversed(cohort.records)}
    assert people.of(list(first.values())).ravel().tolist() == [subjects.index(name) for name in first]
    with pytest.raises(TaskError, match="have no session_id"):
        people.of(cohort.records)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2", "participant_id"),
        ("participant_id,session_id,f\na,1,2\na,1,3", "two rows"),
        ("participant_id,session_id,f\na,1,2,3\nb,1,3,4", "line 2 has 4; line 3 has 4"),
        ("participant_id,session_id\na,1", "numeric column"),
        ("participant_id,session_id,f\na,1,2\n,1,3", "1 rows lack"),
        ("participant_id,session_id,f\na,1,2\nb,1,abc", "numbers and text"),
        ("participant_id,session_id,age\na,1,70\nb,1,71", "no numeric column besides"),
        ("participant_id,session_id,f\na,1,", "missing"),
        ("participant_id,session_id,f,g\na,1,1,1\nb,M06,1,", r"column g, row 2 \(b M06\), which is missing"),
        ("participant_id,session_id,f\na,1,inf", r"1 missing .* column f, row 1 \(a 1\), which is infinite"),
        ("", "the table is empty"),
    ],
)
def test_bad_embeddings_are_refused(tmp_path, text, words):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(TaskError, match=words):
        read_embeddings(path)
    with pytest.raises(TaskError, match="no such table"):
        read_embeddings(tmp_path / "none.csv")


def test_reconstruction_is_scored_against_the_real_scan(tiny_model, scans, tmp_path):
    seen, mean = [], scans.images().mean(axis=0)
    result = reconstruct(tiny_model, scans, mean_image=mean, seed=1, batch_size=4, visit=seen.append)
    assert result.scans == 6
    both, original, alone = (
        np.concatenate([getattr(b, n) for b in seen]) for n in ("both", "original", "semantic_only")
    )
    assert result.both["mse"] == pytest.approx(np.square(both.astype(float) - original).mean())
    assert result.per_scan.keys() == {record.key for record in scans.records}
    for name, value in (
        ("ssim", result.both["ssim"]),
        ("below_ceiling", result.compression["ssim"] - result.both["ssim"]),
        ("above_mean_image", result.semantic_only["ssim"] - result.mean_image["ssim"]),
        ("expected_above_mean_image", result.semantic_mean["ssim"] - result.mean_image["ssim"]),
    ):
        interval = result.intervals[name]
        assert interval.value == pytest.approx(value, abs=1e-9)
        assert interval.reason == "fewer than 5 subjects"
    assert reconstruct(tiny_model, scans, mean_image=mean, seed=1, batch_size=4) == result
    keys = save_shown(tiny_model, scans, result, tmp_path / "shown.npz", seed=1, batch_size=4)
    rows = [[record.key for record in scans.records].index(key) for key in keys]
    assert result.per_scan[keys[-1]] == min(result.per_scan.values())
    with np.load(tmp_path / "shown.npz") as shown:
        np.testing.assert_allclose(shown["semantic_only"], alone[rows], atol=2e-3)
    (path, *_) = write_reconstructions(seen[0], tmp_path / "out", TemplateSpace(tiny_model))
    np.testing.assert_array_equal(read_volume(path).data, both[0])
    assert read_volume(path).grid == tiny_model.config.preprocessing.grid
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["notice"] == SYNTHETIC
    assert (sidecar["synthetic"], sidecar["space"], sidecar["source"]) == (True, "template", "0_0.nii.gz")


def test_images_pass_one_batch_at_a_time(tiny_model, cohort, monkeypatch):
    """No task asks for more images than a batch, and none outlives it."""
    live, most = [], []
    prepare = tiny_model.prepare_record

    def counted(record):
        scan = prepare(record)
        kept = scan.data.view(Tracked)
        live.append(kept.shape)
        weakref.finalize(kept, live.pop)
        most.append(len(live))
        return replace(scan, data=kept)

    monkeypatch.setattr(tiny_model, "prepare_record", counted)
    scans = encode_scans(tiny_model, cohort.records[1:5], batch_size=1).with_noise(tiny_model, batch_size=1)
    reconstruct(tiny_model, scans, batch_size=1)
    code_usage(tiny_model, scans, batch_size=1, levels=2, pictured=2, resamples=20)
    assert max(most) <= 2


@pytest.fixture
def probe():
    rng = np.random.default_rng(0)
    return LinearProbe(rng.normal(size=16), rng.uniform(0.5, 2, 16), rng.normal(size=16), 0.1, 1.5, True, 1.0)


def test_one_step_moves_one_cohort_deviation_and_step_zero_is_the_reconstruction_bit_for_bit(tiny_model, scans, probe):
    y = np.random.default_rng(1).normal(size=(1, 16))
    moved = probe.value(y + probe.step) - probe.value(y)
    assert moved[0] == pytest.approx(1.5 * np.linalg.norm(probe.weights))
    ((edits,),) = edit_scans(tiny_model, scans.codes[:1], probe, steps=(-2.0, 0.0, 2.0))
    np.testing.assert_array_equal(edits.images[1], tiny_model.decode(scans.codes[0]).data)
    assert np.abs(edits.images[2] - edits.images[1]).max() > 0
    first = scans.codes[0]
    assert manipulate_codes(first, probe.step, 0.0) is first


def test_edits_go_on_where_codes_do_not_come_back_and_no_volume_can_be_measured(tiny_model, scans, probe):
    preprocessing = replace(tiny_model.config.preprocessing, centre_mm=(0.0, 0.0, 900.0))
    tiny_model.config = replace(tiny_model.config, preprocessing=preprocessing)
    codes = [replace(each, round_trip=0.3) for each in scans.codes[:2]]
    with pytest.warns(DriftWarning, match="2 of 2 codes come back"):
        batches = list(edit_scans(tiny_model, codes, probe, steps=(0.0,)))
    assert batches[0][0].volumes == {key: [None] for key in STRUCTURES}


def test_changes_are_measured_against_step_zero(tiny_model, scans, probe, tmp_path):
    seen = {}
    result = manipulate(tiny_model, scans, probe, steps=(-1.0, 0.0, 1.0), resamples=20, visit=seen.__setitem__)
    assert (result.scans, list(seen), result.map) == (6, list(range(6)), None)
    assert all(change[1] == 0 for change in result.volume_change_ml.values())
    assert result.predicted[1] == pytest.approx(np.mean([each.predicted[1] for each in seen.values()]))
    assert json.loads(result.write(tmp_path).read_text())["monotone"] == result.monotone
    with pytest.raises(TaskError, match="step 0"):
        manipulate(tiny_model, scans, probe, steps=(1.0,))


def test_results_that_would_have_one_name_are_refused(cohort):
    check_names(cohort.records)
    twin = replace(cohort.records[0], participant_id="sub-0.")
    assert twin.stem == cohort.records[0].stem == "sub-0_ses-M00"
    with pytest.raises(TaskError, match=r"sub-0_ses-M00 and sub-0\._ses-M00 would both be named"):
        check_names([cohort.records[0], twin])


def test_codes_and_probes_know_their_model_and_refuse_another(tiny_model, scans, probe, tmp_path):
    own = tiny_model.origin
    path = write_embeddings(tmp_path / "codes.parquet", scans.records, scans.semantic, own)
    assert read_embeddings(path).origin == own
    np.testing.assert_array_equal(read_embeddings(path).values, scans.semantic)
    kept = LinearProbe.load(replace(probe, origin=read_embeddings(path).origin).save(tmp_path / "probe.json"))
    assert kept.origin == own
    edit_scans(tiny_model, scans.codes[:1], kept, steps=(0.0,))
    other = replace(probe, origin=tiny_model.with_random_encoder().origin)
    with pytest.raises(TaskError, match=r"codes of two models do not compare: give --model the model that it is of"):
        edit_scans(tiny_model, scans.codes[:1], other, steps=(0.0,))
    with pytest.raises(TaskError, match="do not compare"):
        manipulate(tiny_model, scans, kept, {"age": other})
    with pytest.warns(UserWarning, match="names no model"):
        assert LinearProbe.load(probe.save(tmp_path / "old.json")).origin is None
    wide = LinearProbe(*[np.ones(5)] * 3, 0.0, 1.0, True, 1.0)
    with pytest.raises(TaskError, match="trained on 5 features"):
        manipulate(tiny_model, scans, wide)


def test_samples_are_compared_with_real_scans(tiny_model, scans):
    records = [
        replace(record, participant_id=f"sub-{split}{row}", split=split)
        for split in ("train", "test")
        for row, record in enumerate(list(scans.records) * 3)
    ]
    simple = SimpleFeatures(tiny_model.config.preprocessing.voxel_size_mm)
    twice = encode_scans(tiny_model, records, visit=[simple.see])
    found = compare_samples(tiny_model, twice, simple, most=6)
    assert found["count"] == 6
    # The same scans stand in both splits.
    assert found["training_scans"]["kernel_distance"] < found["gaussian"]["kernel_distance"]
    assert found["training_scans"] | {"coverage": 1.0, "novelty": None} == found["training_scans"]
    with pytest.raises(TaskError, match="5 subjects of each split"):
        compare_samples(tiny_model, twice.of_split("train"), simple)


def test_samples_follow_their_seed_whatever_the_batch(tiny_model, scans):
    y = scans.codes[0].semantic
    whole, parts = (np.stack(list(sample(tiny_model, 3, seed=4, semantic=y, batch_size=n))) for n in (3, 2))
    np.testing.assert_allclose(whole, parts, atol=1e-3)
    assert np.abs(whole[0] - whole[1]).max() > 0
    assert not np.array_equal(next(sample(tiny_model, 1, seed=4)), whole[0])
    shares = [list(sample(tiny_model, 3, seed=4, semantic=y, batch_size=2, part=Part(n, 2))) for n in (1, 2)]
    assert [len(each) for each in shares] == [2, 1]
    np.testing.assert_array_equal(np.stack(shares[0] + shares[1]), parts)
    with pytest.raises(TaskError, match="at least 1"):
        sample(tiny_model, 0, seed=0)
