"""The five opening sentences claim what the results support, on made-up results of every verdict."""

from pathlib import Path
from typing import Any

import pytest

from ldae.report.run_folder import RunFolder
from ldae.report.sections.findings import findings
from ldae.report.wording import ranks

STEPS = [-1.0, 0.0, 1.0]


def interval(value: float, low: float | None, high: float | None, **more: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high} | more


def sentences(folder: Path, **results: Any) -> list[str]:
    """The section's sentences of these results, which must be five."""
    section = findings(RunFolder(folder, {"results.json": results}))
    texts = [block.text for block in section.blocks]
    assert len(texts) == 5
    assert all(text.endswith(".") and ". " not in text for text in texts), "not one sentence each"
    return texts


def diagnosis(auc: dict[str, Any], **differences: dict[str, Any]) -> dict[str, Any]:
    return {"probe": {"diagnosis": {"auc": auc, "differences": differences}}}


def edits(**changes: list[float | None]) -> dict[str, Any]:
    return {"manipulate": {"steps": STEPS, "volume_change_ml": changes}}


def missing(**differences: dict[str, Any]) -> dict[str, Any]:
    errors = {"ldae_residual": 0.8, "voxel_linear": 0.82, "copy_nearest": 0.96}
    return {
        "interpolate": {
            "n": 60,
            "change_error": errors,
            "differences": {"change_error": {"ldae_residual": differences}},
        }
    }


def test_an_empty_run_claims_nothing(tmp_path: Path) -> None:
    *answers, doubt = sentences(tmp_path)
    assert all(text.startswith("Not measured: ") for text in answers)
    assert doubt == "Doubts: intervals leave out that another training gives another model."


@pytest.mark.parametrize(
    ("low", "verdict"),
    [(0.6, "predicts"), (0.5, "does not predict"), (0.4, "does not predict"), (None, "does not predict")],
)
def test_a_prediction_is_found_only_where_its_whole_interval_is_above_chance(
    tmp_path: Path, low: float | None, verdict: str
) -> None:
    text = sentences(tmp_path, **diagnosis(interval(0.7, low, 0.8)))[0]
    assert text.startswith(f"The code {verdict} AD against CN (AUC 0.700, 95 % interval ")
    assert "age" not in text


def test_predicted_and_missed_targets_stand_apart(tmp_path: Path) -> None:
    results = diagnosis(interval(0.9, 0.8, 0.95))
    results["probe"]["age"] = {"intervals": {"r2": interval(0.1, -0.1, 0.3)}}
    text = sentences(tmp_path, **results)[0]
    assert text == (
        "The code predicts AD against CN (AUC 0.900, 95 % interval 0.800 to 0.950; 0.5 is chance), "
        "and does not predict age (R\u00b2 0.100, 95 % interval \u22120.100 to 0.300; 0 is chance)."
    )


def test_baselines_are_beaten_level_or_better_by_their_differences(tmp_path: Path) -> None:
    differences = {
        "image_pca": interval(0.1, 0.02, 0.2, p_holm=0.01),
        "tissue_pca": interval(0.1, -0.02, 0.2, p_holm=0.3),
        "random_encoder": interval(0.1, 0.001, 0.2, p_holm=0.06),
        "true_volumes": interval(-0.1, -0.2, -0.02, p_holm=0.01),
    }
    results = diagnosis(interval(0.9, 0.8, 0.95), **differences)
    _, text, *_, doubt = sentences(tmp_path, **results)
    assert text == (
        "The code is better than 1 of 4 baselines in diagnosis, and ties with tissue components and random encoder "
        "(diagnosis), and is worse than true volumes (diagnosis)."
    )
    assert "the code does not beat the same encoder without training in diagnosis" in doubt
    # An error is better where it is smaller.
    results = {"probe": {"age": {"differences": {name: differences[name] for name in ("image_pca", "true_volumes")}}}}
    assert sentences(tmp_path, **results)[1] == (
        "The code is better than 1 of 2 baselines in age, and is worse than image components (age)."
    )
    level = {"tissue_pca": differences["tissue_pca"]}
    both = {"probe": {name: {"differences": level} for name in ("diagnosis", "age")}}
    text, doubt = sentences(tmp_path, **both)[1::3]
    assert text == "The code ties with tissue components (diagnosis and age)."
    assert "without training" not in doubt


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("used", "The decoder uses the code"),
        ("undecided", "It is undecided whether the decoder uses the code"),
        ("unhelpful", "The decoder does not use the code"),
        ("collapsed", "The decoder does not use the code"),
    ],
)
def test_the_code_is_used_where_the_verdict_says_so(tmp_path: Path, verdict: str, words: str) -> None:
    usage = {"verdict": verdict, "share": {"value": 0.3}, "shuffled_share": {"value": -0.34}}
    text = sentences(tmp_path, code_usage=usage)[2]
    assert text == (f"{words} (explained variance 30 % with the own code, \u221234 % with another subject's).")


def test_edits_follow_the_disease_only_where_every_step_does(tmp_path: Path) -> None:
    text = sentences(
        tmp_path,
        **edits(
            ventricles_ml=[-3.0, 0.0, 2.0],
            hippocampus_left_ml=[0.5, 0.0, 0.1],
            hippocampus_right_ml=[-0.5, 0.0, 0.4],
            brain_ml=[None, 0.0, -9.0],
        ),
    )[2]
    assert text == (
        "Edits toward AD change ventricles (\u22123.00 to +2.00 ml) as expected at every step, and change left hippocampus "
        "(+0.50 to +0.10 ml) as expected, but not at every step, and change right hippocampus (\u22120.50 to +0.40 ml) "
        "in the wrong direction."
    )
    assert sentences(tmp_path, **edits(ventricles_ml=[0.0, 0.0, 0.001]))[2].startswith("Not measured")


def test_a_missing_session_is_won_level_or_lost(tmp_path: Path) -> None:
    better, tie, worse = interval(-0.1, -0.2, -0.05), interval(0.0, -0.1, 0.1), interval(0.1, 0.05, 0.2)
    text = sentences(tmp_path, **missing(voxel_linear=tie, copy_nearest=better, latent_linear=better))[3]
    assert text == (
        "The prediction of a missing session (change error 0.800) is better than nearest copy (0.960), and ties with "
        "interpolated voxels (0.820)."
    )
    text = sentences(tmp_path, **missing(voxel_linear=worse))[3]
    assert text == "The prediction of a missing session (change error 0.800) is worse than interpolated voxels (0.820)."
    assert (
        sentences(tmp_path, **missing())[3]
        == "The prediction of a missing session (change error 0.800) was not compared."
    )


def test_doubts_are_those_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "ldae phantom"}]}')
    results = {"request": {"quick": True}, "n_test_subjects": 99, "interpolate": {"n": 49}}
    doubt = sentences(tmp_path, **results)[4]
    for words in ("quick run", "simulated", "99 test subjects are few", "49 missing sessions are few"):
        assert words in doubt
    doubt = sentences(tmp_path / "other", n_test_subjects=100, **missing())[4]
    assert "few" not in doubt
    assert "simulated" not in doubt


def test_a_difference_without_an_interval_is_a_tie() -> None:
    assert ranks({"x": interval(0.1, None, None)}, higher_is_better=True) == {"better": [], "tie": ["x"], "worse": []}
