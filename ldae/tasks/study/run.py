"""Study: every task on the held-out subjects of a manifest, written where the report finds it."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import write_json
from ldae.base.launch import is_follower
from ldae.base.ranks import join, leave, rank, together
from ldae.data.manifest import Manifest
from ldae.errors import CheckpointError, TaskError, VolumeError
from ldae.io.plain import to_plain
from ldae.metrics.volumetry import measure_volumes
from ldae.tasks.code_usage import code_usage
from ldae.tasks.edit.change_map import effect_map
from ldae.tasks.edit.direction import MEASURED, hold_in_images, spread
from ldae.tasks.edit.evaluate import manipulate
from ldae.tasks.edit.manipulate import Edits
from ldae.tasks.encode import write_codes
from ldae.tasks.encoded_scans import EncodedScans
from ldae.tasks.longitudinal.evaluate import evaluate_interpolation, save_cases
from ldae.tasks.longitudinal.trajectory import fit_trajectory_prior
from ldae.tasks.probe.baselines import SimpleFeatures, latent_components
from ldae.tasks.probe.embeddings import Embeddings, embeddings_of
from ldae.tasks.probe.evaluate import evaluate_probe
from ldae.tasks.probe.linear import LinearProbe
from ldae.tasks.probe.result import ProbeSettings
from ldae.tasks.probe.targets import choose_target
from ldae.tasks.reconstruct import reconstruct, save_shown
from ldae.tasks.sample import compare_samples, sample
from ldae.tasks.shown_images import save_images
from ldae.tasks.study.cohort_pass import CohortPass
from ldae.tasks.study.parts import Parts, study_key
from ldae.volume import Volume

__all__ = ["PARTS", "StudyProgress", "run_study"]

log = logging.getLogger(__name__)

StudyProgress = Callable[[str, int, int], None]
Images = npt.NDArray[np.float32]

SHOWN = 3
EDITED = 30
"""Test subjects whose scans are edited, each many times over."""
PROBED = ("diagnosis", "age")
PARTS = {
    "encode": 20,
    "invert": 11,
    "reconstruct": 12,
    "code usage": 17,
    "probe diagnosis": 4,
    "probe age": 5,
    "manipulate": 9,
    "manipulate, age held": 10,
    "interpolate": 7,
    "samples": 5,
}
"""Parts of a study in order, as its progress names them, with the demo's percentage of time."""
# Known effects that edits are compared with: of the diagnosis on these real scans, and a map that the caller gives.
REAL, GIVEN = "real_scans", "given_map"


@dataclass(frozen=True)
class _Study:
    """Model, data and settings of every part of a study."""

    model: LatentDiffusionAutoencoder
    manifest: Manifest
    out: Path
    seed: int
    parts: Parts
    progress: StudyProgress

    @property
    def tasks(self) -> Path:
        """Folder of the tasks' files."""
        return self.out / "tasks"

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
    """Encode the cohort, then run every task on its test subjects. Images pass one batch at a time.

    Processes that were started together share the encoding and the noise codes of the test scans; the first does the rest.

    A task that the cohort cannot answer (no diagnosis, no third session) is left out; `skipped` holds the reason.

    Args:
        model: the trained model.
        manifest: with a frozen split.
        out: folder; `codes.parquet` and `tasks/` are written there; `cache/` keeps latents, noise codes and the results of
            finished parts, so that the same call after an interruption goes on with the part that it was in.
        baselines: embeddings of the same scans to compare the semantic code with, by name.
        effect: known effect of the positive diagnosis on images, in template space, to compare the edits with.
        seed: of everything drawn.
        progress: called with (part, done, total of the part), the part as in :data:`PARTS`.

    Returns:
        The results, by task, as plain values; empty in every process but the first.

    Raises:
        TaskError: if the manifest has no training or no test subjects.
        PeerLostError: if another process has ended.
    """
    splits = {record.split for record in manifest.records}
    if not {"train", "test"} <= splits:
        msg = f"{manifest.path}: a study needs training and test subjects; run 'ldae cohort split'"
        raise TaskError(msg)
    folder = out / "cache" / f"study-{study_key(model, manifest, baselines or {}, effect, seed)}"
    parts = Parts(folder, out / "tasks")
    study = _Study(model, manifest, out, seed, parts, progress)
    join(model.device)
    with together():
        seen = _pass_over(study, folder / "encode.safetensors")
        scans = seen.scans
        # The reconstruction measures the round trip.
        test = scans.of_split("test").with_noise(model, progress=study.bar("invert"))
    leave()
    if is_follower():
        return {}
    write_codes(out / "codes.parquet", scans)
    training = scans.of_split("train")
    results: dict[str, Any] = {
        "preprocessing": to_plain(model.config.preprocessing),
        "n_subjects": len(manifest.subjects),
        "n_scans": len(manifest),
        "n_test_subjects": len(set(test.subjects)),
    }
    parts.result("volumes", lambda: _segmented(study, seen.mean_image))
    results |= parts.result("reconstruct", lambda: _reconstruction(study, test, seen.mean_image)) or {}

    @functools.cache
    def others() -> dict[str, Embeddings]:
        random = {"random_encoder": seen.random.embeddings()}
        return random | seen.simple.embeddings() | latent_components(scans) | dict(baselines or {})

    found = {"code_usage": parts.result("code_usage", lambda: _code_usage(study, test))}
    probed = {
        name: parts.result(f"probe.{name}", functools.partial(_probe, study, name, scans, others)) for name in PROBED
    }
    results["probe"] = {name: each for name, each in probed.items() if each is not None}
    probes = list(results["probe"])
    found |= {
        "manipulate": parts.result("manipulate", lambda: _manipulation(study, test, training, probes, effect)),
        "interpolate": parts.result("interpolate", lambda: _interpolation(study, test, training)),
        "samples": parts.result("samples", lambda: _samples(study, test, scans, seen.simple)),
    }
    results |= {name: each for name, each in found.items() if each is not None}
    results["skipped"] = parts.skipped
    return results


def _pass_over(study: _Study, path: Path) -> CohortPass:
    """The pass over all images, as an interrupted study left it, or made now."""
    cache = study.out / "cache"
    try:
        return CohortPass.load(path, study.model, study.manifest, cache, seed=study.seed)
    except CheckpointError:
        seen = CohortPass.make(study.model, study.manifest, cache, seed=study.seed, progress=study.bar("encode"))
    if not rank():
        seen.save(path)
    return seen


def _segmented(study: _Study, mean_image: Images) -> None:
    """Check that volumes can be measured in images as small as these."""
    try:
        measure_volumes(study.model.config.preprocessing.restore(mean_image))
    except VolumeError as error:
        raise TaskError(str(error)) from error


def _reconstruction(study: _Study, test: EncodedScans, mean_image: Images) -> dict[str, Any]:
    first = test.select(test.first_rows)
    result = reconstruct(study.model, first, mean_image=mean_image, seed=study.seed, progress=study.bar("reconstruct"))
    shown = save_shown(study.model, first, result, study.tasks / "reconstruct.npz", seed=study.seed)
    result.write(study.tasks, shown=shown)
    return {
        "compression": {name: result.compression[name] for name in ("ssim", "mse", "ssim_brain", "psnr")},
        "reconstruct": result.summary(),
    }


def _code_usage(study: _Study, test: EncodedScans) -> dict[str, Any]:
    usage = code_usage(study.model, test, seed=study.seed, progress=study.bar("code usage"))
    usage.write(study.tasks)
    return usage.summary()


def _probe(
    study: _Study, name: str, scans: EncodedScans, others: Callable[[], Mapping[str, Embeddings]]
) -> dict[str, Any]:
    """Probe of a target; its linear probe is written too."""
    report = evaluate_probe(
        choose_target(study.manifest, name, kind="regression" if name == "age" else "auto"),
        embeddings_of(scans.records, scans.semantic, study.model.origin),
        others(),
        ProbeSettings(seed=study.seed),
        progress=study.bar(f"probe {name}"),
    )
    report.write(study.tasks)
    return report.summary()


def _manipulation(
    study: _Study, test: EncodedScans, training: EncodedScans, probed: Sequence[str], effect: Volume | None
) -> dict[str, Any]:
    """Edit the first scan of some test subjects toward and away from the positive diagnosis; again with age held.

    The response of images to the age's direction is measured on training subjects.
    """
    if "diagnosis" not in probed:
        msg = "there is no diagnosis probe whose direction could be followed"
        raise TaskError(msg)
    probes = {name: LinearProbe.load(study.tasks / f"probe_{name}_model.json") for name in probed}
    model, probe = study.model, probes["diagnosis"]
    nuisances = {name: each for name, each in probes.items() if name != "diagnosis"}
    grid = model.config.preprocessing.grid
    effects = {} if effect is None else {GIVEN: effect.resample_to(grid).data}
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
        measured = training.select(spread(training.first_rows, MEASURED)).with_noise(model)
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


def _samples(study: _Study, test: EncodedScans, scans: EncodedScans, blocks: SimpleFeatures) -> dict[str, Any]:
    """Variations of one test scan's code, unconditional samples, and how near these come to real scans."""
    first = test.select([0])
    variations = sample(study.model, SHOWN, seed=study.seed, semantic=first.codes[0].semantic)
    save_images(
        study.tasks / "sample.npz",
        original=first.images()[0],
        variations=np.stack(list(variations)),
        unconditional=np.stack(list(sample(study.model, SHOWN, seed=study.seed))),
    )
    facts = {"key": first.records[0].key, "seed": study.seed}
    write_json(study.tasks / "sample.json", facts | {"compared": None})
    compared = compare_samples(study.model, scans, blocks, seed=study.seed, progress=study.bar("samples"))
    write_json(study.tasks / "sample.json", facts | {"compared": compared})
    return compared
