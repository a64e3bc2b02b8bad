"""Study: every task on the held-out subjects of a manifest, written where the report finds it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import write_json
from ldae.data.manifest import Manifest
from ldae.errors import TaskError, VolumeError
from ldae.io.plain import to_plain
from ldae.metrics.volumetry import measure_volumes
from ldae.tasks.code_usage import code_usage
from ldae.tasks.edit.change_map import effect_map
from ldae.tasks.edit.direction import MEASURED, hold_in_images, spread
from ldae.tasks.edit.evaluate import manipulate
from ldae.tasks.edit.manipulate import Edits
from ldae.tasks.encode import encode_scans, write_codes
from ldae.tasks.encoded_scans import EncodedScans, ScanBatch
from ldae.tasks.longitudinal.evaluate import evaluate_interpolation, save_cases
from ldae.tasks.longitudinal.trajectory import fit_trajectory_prior
from ldae.tasks.probe.baselines import RandomEncoder, SimpleFeatures, compress_sides, latent_components
from ldae.tasks.probe.embeddings import Embeddings, embeddings_of
from ldae.tasks.probe.evaluate import evaluate_probe
from ldae.tasks.probe.linear import LinearProbe
from ldae.tasks.probe.result import ProbeSettings
from ldae.tasks.probe.targets import choose_target
from ldae.tasks.reconstruct import reconstruct, save_shown
from ldae.tasks.sample import compare_samples, sample
from ldae.tasks.shown_images import save_images
from ldae.volume import Volume

__all__ = ["PARTS", "StudyProgress", "run_study"]

log = logging.getLogger(__name__)

StudyProgress = Callable[[str, int, int], None]
Images = npt.NDArray[np.float32]

SHOWN = 3
EDITED = 30
"""Test subjects whose scans are edited, each many times over."""
PROBED = ("diagnosis", "age")
PARTS = (
    "encode",
    "invert",
    "reconstruct",
    "code usage",
    *(f"probe {name}" for name in PROBED),
    "manipulate",
    "manipulate, age held",
    "interpolate",
)
"""Parts of a study in order, as its progress names them."""
# Known effects that edits are compared with: of the diagnosis on these real scans, and a map that the caller gives.
REAL, GIVEN = "real_scans", "given_map"


@dataclass(frozen=True)
class _Study:
    """Model, data and settings of every part of a study."""

    model: LatentDiffusionAutoencoder
    manifest: Manifest
    out: Path
    seed: int
    progress: StudyProgress

    @property
    def tasks(self) -> Path:
        """Folder of the tasks' files."""
        return self.out / "tasks"

    def bar(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(what, done, total)


class _MeanImage:
    """Voxelwise mean of the training scans, a batch at a time."""

    def __init__(self) -> None:
        self.sum, self.count = np.zeros(()), 0

    def see(self, batch: ScanBatch) -> None:
        training = [row for row, record in enumerate(batch.records) if record.split == "train"]
        self.sum = self.sum + batch.images[training].sum(axis=0, dtype=np.float64)
        self.count += len(training)

    def image(self) -> Images:
        mean: Images = (self.sum / self.count).astype(np.float32)
        return mean


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
    """Encode the cohort, then run every task on its test subjects. Images pass one batch at a time.

    A task that the cohort cannot answer (no diagnosis, no third session) is left out; `skipped` holds the reason.

    Args:
        model: the trained model.
        manifest: with a frozen split.
        out: folder; `codes.parquet` and `tasks/` are written there, and latents read from and kept in `cache/`.
        baselines: embeddings of the same scans to compare the semantic code with, by name.
        effect: known effect of the positive diagnosis on images, in template space, to compare the edits with.
        seed: of everything drawn.
        progress: called with (part, done, total of the part), the part as in :data:`PARTS`.

    Returns:
        The results, by task, as plain values.
    """
    study = _Study(model, manifest, out, seed, progress)
    splits = {record.split for record in manifest.records}
    if not {"train", "test"} <= splits:
        msg = f"{manifest.path}: a study needs training and test subjects; run 'ldae cohort split'"
        raise TaskError(msg)
    mean_image, random = _MeanImage(), RandomEncoder(model, seed)
    simple = SimpleFeatures(model.config.preprocessing.voxel_size_mm)
    scans = encode_scans(
        model,
        manifest.records,
        cache=out / "cache",
        visit=[mean_image.see, random.see, simple.see, compress_sides],
        progress=study.bar("encode"),
    )
    write_codes(out / "codes.parquet", scans)
    training = scans.of_split("train")
    # The reconstruction measures the round trip.
    test = scans.of_split("test").with_noise(model, measure=False, progress=study.bar("invert"))
    results: dict[str, Any] = {
        "preprocessing": to_plain(model.config.preprocessing),
        "n_subjects": len(manifest.subjects),
        "n_scans": len(manifest),
        "n_test_subjects": len(set(test.subjects)),
    }
    skipped: dict[str, str] = {}
    try:
        measure_volumes(model.config.preprocessing.restore(mean_image.image()))
    except VolumeError as error:
        skipped["volumes"] = str(error)
    results |= _reconstruction(study, test, mean_image.image())
    try:
        usage = code_usage(model, test, seed=seed, progress=study.bar("code usage"))
        usage.write(study.tasks)
        results["code_usage"] = usage.summary()
    except TaskError as error:
        skipped["code_usage"] = str(error)
    others = {
        "random_encoder": random.embeddings(),
        **simple.embeddings(),
        **latent_components(scans),
        **(baselines or {}),
    }
    results["probe"], probes = _probes(study, scans, others, skipped)
    if "diagnosis" in probes:
        effects = {} if effect is None else {GIVEN: effect.resample_to(model.config.preprocessing.grid).data}
        results["manipulate"] = _manipulation(study, test, probes, training, effects)
    else:
        skipped["manipulate"] = "there is no diagnosis probe whose direction could be followed"
    try:
        results["interpolate"] = _interpolation(study, test, training)
    except TaskError:
        skipped["interpolate"] = "no test subject has three dated sessions"
    results["samples"] = _samples(study, test, scans, simple, skipped)
    results["skipped"] = skipped
    return results


def _reconstruction(study: _Study, test: EncodedScans, mean_image: Images) -> dict[str, Any]:
    first = test.select(test.first_rows)
    result = reconstruct(study.model, first, mean_image=mean_image, seed=study.seed, progress=study.bar("reconstruct"))
    shown = save_shown(study.model, first, result, study.tasks / "reconstruct.npz", seed=study.seed)
    result.write(study.tasks, shown=shown)
    return {
        "compression": {name: result.compression[name] for name in ("ssim", "mse", "ssim_brain", "psnr")},
        "reconstruct": result.summary(),
    }


def _probes(
    study: _Study, scans: EncodedScans, others: Mapping[str, Embeddings], skipped: dict[str, str]
) -> tuple[dict[str, Any], dict[str, LinearProbe]]:
    """Summaries and linear probes of the targets that the cohort has."""
    found: dict[str, Any] = {}
    probes: dict[str, LinearProbe] = {}
    codes = embeddings_of(scans.records, scans.semantic, study.model.origin)
    for name in PROBED:
        try:
            report = evaluate_probe(
                choose_target(study.manifest, name, kind="regression" if name == "age" else "auto"),
                codes,
                others,
                ProbeSettings(seed=study.seed),
                progress=study.bar(f"probe {name}"),
            )
        except TaskError as error:
            skipped[f"probe.{name}"] = str(error)
            continue
        report.write(study.tasks)
        found[name] = report.summary()
        if report.probe is not None:
            probes[name] = report.probe
    return found, probes


def _manipulation(
    study: _Study,
    test: EncodedScans,
    probes: Mapping[str, LinearProbe],
    training: EncodedScans,
    effects: dict[str, Images],
) -> dict[str, Any]:
    """Edit the first scan of some test subjects toward and away from the positive diagnosis; again with age held.

    The response of images to the age's direction is measured on training subjects.
    """
    model, probe = study.model, probes["diagnosis"]
    nuisances = {name: each for name, each in probes.items() if name != "diagnosis"}
    first = test.select(spread(test.first_rows, EDITED))
    where: dict[str, Any] = {}
    try:
        effects = effects | {REAL: effect_map(test, "AD", "CN")}
    except TaskError as error:
        where["skipped"] = str(error)
    chosen = _spread_over_diagnoses(first)
    shown: dict[int, Edits] = {}

    def keep(row: int, edits: Edits) -> None:
        if row in chosen:
            shown[row] = edits

    plain = manipulate(
        model, first, probe, nuisances, effects=effects, seed=study.seed, visit=keep, progress=study.bar("manipulate")
    )
    results = {"plain": plain}
    if nuisances:
        measured = training.select(spread(training.first_rows, MEASURED)).with_noise(model, measure=False)
        results["projected"] = manipulate(
            model,
            first,
            probe,
            nuisances,
            step=hold_in_images(model, measured.codes, probe, list(nuisances.values())),
            effects=effects,
            seed=study.seed,
            progress=study.bar("manipulate, age held"),
        )
    where |= {name: each.where for name, each in results.items() if each.map is not None}
    if plain.map is None:
        where["skipped"] = f"a map over subjects needs three of them, got {len(first)}; edit more scans"
    findings = {name: asdict(each.findings) for name, each in results.items()}
    facts = [
        {
            "key": first.records[row].key,
            "diagnosis": first.records[row].diagnosis,
            "age": first.records[row].age,
            "predicted": edits.predicted,
            "volumes": edits.volumes,
        }
        for row, edits in shown.items()
    ]
    write_json(study.tasks / "manipulate.json", plain.plain() | {"findings": findings, "where": where, "shown": facts})
    save_images(
        study.tasks / "manipulate.npz",
        images=np.stack([edits.images for edits in shown.values()]),
        original=first.select(chosen).images(),
    )
    return {
        "steps": plain.steps,
        "probability": plain.predicted,
        "ventricle_change_ml": plain.volume_change_ml["ventricles_ml"],
        "volume_change_ml": plain.volume_change_ml,
        "monotone": plain.monotone,
        "scans": plain.scans,
        "findings": findings,
        "where": where,
    }


def _spread_over_diagnoses(scans: EncodedScans) -> list[int]:
    """Rows of one scan of each diagnosis, up to those that are shown."""
    first: dict[str | None, int] = {}
    for row, record in enumerate(scans.records):
        first.setdefault(record.diagnosis, row)
    return sorted(first.values())[:SHOWN]


def _interpolation(study: _Study, test: EncodedScans, training: EncodedScans) -> dict[str, Any]:
    """Predict missing sessions; without trajectories where too few training subjects have several sessions."""
    try:
        prior = fit_trajectory_prior(training.records, training.semantic)
    except TaskError:
        prior = None
    result = evaluate_interpolation(study.model, test, prior=prior, seed=study.seed, progress=study.bar("interpolate"))
    shown = save_cases(study.model, test, result, prior, study.tasks / "interpolate.npz")
    result.write(study.tasks, shown=shown)
    return result.summary()


def _samples(
    study: _Study, test: EncodedScans, scans: EncodedScans, blocks: SimpleFeatures, skipped: dict[str, str]
) -> dict[str, Any] | None:
    """Variations of one test scan's code, unconditional samples, and how near these come to real scans."""
    compared = None
    try:
        compared = compare_samples(study.model, scans, blocks, seed=study.seed)
    except TaskError as error:
        skipped["samples"] = str(error)
    first = test.select([0])
    variations = sample(study.model, SHOWN, seed=study.seed, semantic=first.codes[0].semantic)
    save_images(
        study.tasks / "sample.npz",
        original=first.images()[0],
        variations=np.stack(list(variations)),
        unconditional=np.stack(list(sample(study.model, SHOWN, seed=study.seed))),
    )
    write_json(study.tasks / "sample.json", {"key": first.records[0].key, "seed": study.seed, "compared": compared})
    return compared
