"""Study: every task on the held-out subjects of a manifest, written where the report finds it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.data.manifest import Manifest
from ldae.errors import TaskError
from ldae.io.files import write_json
from ldae.io.plain import to_plain
from ldae.tasks.code_usage import diagnose
from ldae.tasks.edit.direction import MEASURED, hold_in_images, spread
from ldae.tasks.edit.evaluate import effect_map, evaluate_edits, map_edit
from ldae.tasks.edit.manipulate import DEFAULT_STEPS, Edits, manipulate, summarise_edits
from ldae.tasks.encode import EncodedScans, encode_scans
from ldae.tasks.longitudinal.interpolate import find_triples
from ldae.tasks.longitudinal.study import study_interpolation
from ldae.tasks.probe.baselines import latent_components, random_encoder
from ldae.tasks.probe.embeddings import Embeddings, embeddings_of, write_embeddings
from ldae.tasks.probe.evaluate import evaluate_probe
from ldae.tasks.probe.linear import LinearProbe
from ldae.tasks.probe.result import CODES, ProbeReport, ProbeSettings
from ldae.tasks.probe.targets import choose_target
from ldae.tasks.reconstruct import Reconstructions, evaluate_reconstruction, reconstruct
from ldae.tasks.sample import sample
from ldae.tasks.shown_images import save_images
from ldae.volume import Volume

__all__ = ["StudyProgress", "run_study", "summarise_probe"]

log = logging.getLogger(__name__)

StudyProgress = Callable[[str, int, int], None]
Images = npt.NDArray[np.float32]

SHOWN = 3
PROBED = ("diagnosis", "age")
# What edits are held against: the difference of the diagnoses in these real scans, and a map that the caller gives.
REAL, GIVEN = "real_scans", "given_map"


@dataclass(frozen=True)
class _Study:
    """What every part of a study needs."""

    model: LatentDiffusionAutoencoder
    manifest: Manifest
    out: Path
    seed: int
    progress: StudyProgress
    effect: Volume | None

    def bar(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(what, done, total)


def run_study(
    model: LatentDiffusionAutoencoder,
    manifest: Manifest,
    out: Path,
    *,
    baselines: Mapping[str, Embeddings] | None = None,
    effect: Volume | None = None,
    seed: int = 0,
    progress: StudyProgress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Encode the cohort, then reconstruct, diagnose, probe, manipulate, interpolate and sample on its test subjects.

    A task that the cohort cannot answer (no diagnosis, no third session) is left out, and `skipped` says why.

    Args:
        model: the trained model.
        manifest: with a frozen split.
        out: folder; `codes.parquet` and `tasks/` are written there.
        baselines: embeddings of the same scans to set beside the semantic code, by name.
        effect: what the positive diagnosis is known to change in images, in template space, to hold the edits against.
        seed: of everything drawn.
        progress: told (what, done, total).

    Returns:
        The results, by task, as plain values.
    """
    study = _Study(model, manifest, out, seed, progress, effect)
    scans = encode_scans(model, manifest.records, progress=study.bar("encode"))
    semantic = embeddings_of(scans.records, scans.semantic)
    write_embeddings(out / "codes.parquet", scans.records, scans.semantic)
    rows = [row for row, record in enumerate(scans.records) if record.split == "test"]
    fitting = [row for row, record in enumerate(scans.records) if record.split == "train"]
    if not rows or not fitting:
        msg = f"{manifest.path}: a study needs training and test subjects; run 'ldae cohort split'"
        raise TaskError(msg)
    test = scans.select(rows).with_noise(model, progress=study.bar("invert"))
    results: dict[str, Any] = {
        "preprocessing": to_plain(model.config.preprocessing),
        "n_subjects": len(manifest.subjects),
        "n_scans": len(manifest),
        "n_test_subjects": len({record.participant_id for record in test.records}),
    }
    images = reconstruct(model, test, seed=seed)
    results |= _reconstruction(study, test, images, scans.images[fitting].mean(axis=0))

    skipped: dict[str, str] = {}
    try:
        results["diagnose"] = _diagnose(study, test)
    except TaskError as error:
        skipped["diagnose"] = str(error)

    others = {
        "random_encoder": random_encoder(model, scans, seed=seed),
        **latent_components(model, scans),
        **(baselines or {}),
    }
    results["probe"] = {}
    probes: dict[str, LinearProbe] = {}
    for name in PROBED:
        try:
            report = evaluate_probe(
                choose_target(manifest, name, kind="regression" if name == "age" else "auto"),
                semantic,
                others,
                ProbeSettings(seed=seed),
                progress=study.bar(f"probe {name}"),
            )
        except TaskError as error:
            skipped[f"probe.{name}"] = str(error)
            continue
        report.write(out / "tasks")
        results["probe"][name] = summarise_probe(report)
        if report.probe is not None:
            probes[name] = report.probe
    if "diagnosis" in probes:
        results["manipulate"] = _manipulation(study, test, probes, scans.select(fitting))
    else:
        skipped["manipulate"] = "there is no diagnosis probe whose direction could be followed"
    triples = find_triples(test)
    if triples:
        results["interpolate"] = study_interpolation(
            model,
            test,
            images.both,
            triples,
            scans.select(fitting),
            out / "tasks",
            seed=seed,
            progress=study.bar("interpolate"),
        )
    else:
        skipped["interpolate"] = "no test subject has three dated sessions"
    _samples(study, test)
    results["skipped"] = skipped
    return results


def _reconstruction(study: _Study, test: EncodedScans, images: Reconstructions, mean_image: Images) -> dict[str, Any]:
    result = evaluate_reconstruction(study.model, test, images, mean_image=mean_image, seed=study.seed)
    order = sorted(range(len(test)), key=lambda row: result.per_scan[test.records[row].key])
    # Typical ones first, then the worst.
    shown = [*order[len(order) // 2 :][: SHOWN - 1], order[0]]
    write_json(
        study.out / "tasks" / "reconstruct.json", asdict(result) | {"shown": [test.records[r].key for r in shown]}
    )
    save_images(
        study.out / "tasks" / "reconstruct.npz",
        original=test.images[shown],
        both=images.both[shown],
        semantic_only=images.semantic_only[shown],
        compression=images.compression[shown],
    )
    both, alone = result.both, result.semantic_only
    return {
        "compression": {name: result.compression[name] for name in ("ssim", "mse", "ssim_brain", "psnr")},
        "reconstruct": {
            "steps": result.steps,
            "solver": result.solver,
            "ssim": both["ssim"],
            "mse": both["mse"],
            "ssim_brain": both["ssim_brain"],
            "ssim_semantic_only": alone["ssim"],
            "mse_semantic_only": alone["mse"],
            "ssim_mean_image": None if result.mean_image is None else result.mean_image["ssim"],
            "mse_mean_image": None if result.mean_image is None else result.mean_image["mse"],
            "round_trip_rms": result.round_trip_rms,
            "intervals": {name: asdict(each) for name, each in result.intervals.items()},
        },
    }


def _diagnose(study: _Study, test: EncodedScans) -> dict[str, Any]:
    """Whether the semantic code is used."""
    result = diagnose(study.model, test, seed=study.seed, progress=study.bar("diagnose"))
    write_json(study.out / "tasks" / "diagnose.json", asdict(result))
    use, images = result.use, result.images
    return {
        "verdict": use.verdict,
        **{name: asdict(getattr(use, name)) for name in ("share", "shuffled_share", "gap")},
        **asdict(result.spread),
        **{
            metric: {name: getattr(images, name)[metric] for name in ("right", "shuffled", "none")}
            for metric in ("ssim", "ssim_brain", "mse")
        },
        "image_gaps": {name: asdict(gap) for name, gap in images.gaps.items()},
    }


def summarise_probe(report: ProbeReport) -> dict[str, Any]:
    """What the results hold of a probe; all of it is in its own file."""
    own, first = report.scored[CODES], report.primary
    others = {name: each.figures[first] for name, each in report.scored.items() if name != CODES}
    return {
        first: asdict(own.figures[first]),
        **{name: each.value for name, each in own.figures.items() if name != first},
        "intervals": {name: asdict(each) for name, each in own.figures.items() if name != first},
        "baselines": {name: each.value for name, each in others.items()},
        "baseline_intervals": {name: asdict(each) for name, each in others.items()},
        "differences": {each.against: asdict(each.difference) | {"p_holm": each.p_holm} for each in report.comparisons},
        "train_subjects": report.counts["fitted_subjects"],
        "test_subjects": report.counts["asked_subjects"],
        "test_scans": report.counts["asked_scans"],
    }


def _manipulation(
    study: _Study, test: EncodedScans, probes: Mapping[str, LinearProbe], training: EncodedScans
) -> dict[str, Any]:
    """Edit the first scan of each test subject toward and away from the positive diagnosis; once more with age left alone.

    How images answer to the age's direction is measured on training subjects.
    """
    rows = test.first_rows
    probe = probes["diagnosis"]
    nuisances = {name: each for name, each in probes.items() if name != "diagnosis"}
    edits = manipulate(
        study.model,
        [test.codes[row] for row in rows],
        probe,
        steps=DEFAULT_STEPS,
        progress=study.bar("manipulate"),
    )
    result = summarise_edits(edits)
    first = test.select(rows)
    edited = {"plain": edits}
    if nuisances:
        measured = training.select(spread(training.first_rows, MEASURED)).with_noise(study.model)
        edited["projected"] = manipulate(
            study.model,
            first.codes,
            probe,
            steps=DEFAULT_STEPS,
            step=hold_in_images(study.model, measured.codes, probe, list(nuisances.values())),
            progress=study.bar("manipulate, age left alone"),
        )
    findings = {name: evaluate_edits(each, first, probe, nuisances, seed=study.seed) for name, each in edited.items()}
    effects: dict[str, Images] = {}
    if study.effect is not None:
        effects[GIVEN] = study.effect.resample_to(study.model.config.preprocessing.grid).data
    where: dict[str, Any] = {}
    try:
        effects[REAL] = effect_map(test.images, test, "AD", "CN")
    except TaskError as error:
        where["skipped"] = str(error)
    try:
        for name, each in edited.items():
            mapped = map_edit(each, first.images, effects)
            where[name] = {"changed_share": mapped.share, "effect_correlation": mapped.effect_correlations}
    except TaskError as error:
        where["skipped"] = str(error)
    plain = {name: asdict(each) for name, each in findings.items()}
    shown = _spread_over_diagnoses(test, rows)
    write_json(
        study.out / "tasks" / "manipulate.json",
        asdict(result)
        | {
            "monotone": result.monotone,
            "findings": plain,
            "where": where,
            "shown": [_edit_facts(test, rows[index], edits[index]) for index in shown],
        },
    )
    save_images(
        study.out / "tasks" / "manipulate.npz",
        images=np.stack([edits[index].images for index in shown]),
        original=test.images[[rows[index] for index in shown]],
    )
    return {
        "steps": result.steps,
        "probability": result.predicted,
        "ventricle_change_ml": result.volume_change_ml["ventricles_ml"],
        "volume_change_ml": result.volume_change_ml,
        "monotone": result.monotone,
        "scans": result.scans,
        "findings": plain,
        "where": where,
    }


def _edit_facts(test: EncodedScans, row: int, edits: Edits) -> dict[str, Any]:
    record = test.records[row]
    return {
        "key": record.key,
        "diagnosis": record.diagnosis,
        "age": record.age,
        "predicted": edits.predicted,
        "volumes": edits.volumes,
    }


def _spread_over_diagnoses(test: EncodedScans, rows: list[int]) -> list[int]:
    """Indices into `rows` of one scan of each diagnosis, up to those that are shown."""
    first: dict[str | None, int] = {}
    for index, row in enumerate(rows):
        first.setdefault(test.records[row].diagnosis, index)
    return sorted(first.values())[:SHOWN]


def _samples(study: _Study, test: EncodedScans) -> None:
    """Variations of one test scan's code, and unconditional samples."""
    save_images(
        study.out / "tasks" / "sample.npz",
        original=test.images[0],
        variations=sample(study.model, SHOWN, seed=study.seed, semantic=test.codes[0].semantic),
        unconditional=sample(study.model, SHOWN, seed=study.seed),
    )
    write_json(study.out / "tasks" / "sample.json", {"key": test.records[0].key, "seed": study.seed})
