"""The report's last pages: how the figures came about, what they cannot tell, and how to repeat them."""

import shlex
from collections.abc import Mapping

from ldae.report.blocks import Absence, Block, Listing, Section, Text
from ldae.report.run_folder import PROVENANCE, RunFolder
from ldae.report.wording import class_names

__all__ = ["methods", "probe_methods", "repeat"]


def methods(run: RunFolder) -> Section:
    """Method and limitations."""
    positive, negative = class_names(run)
    subjects = run.result("n_test_subjects")
    blocks: list[Block] = [
        Text(
            "Method. A compression autoencoder reduces each skull-stripped T1-weighted scan in MNI152 space to a "
            "latent volume. A diffusion model (the denoiser) learns how such latents are distributed. A semantic "
            "encoder reads the scan into a short code, and a gradient estimator bends the denoiser by that code, so "
            "that denoising leads back to this very scan; running the deterministic sampler backward gives the "
            "noise code. (Latent diffusion autoencoder, arXiv 2504.08635; after PDAE, arXiv 2212.12990.)"
        ),
        Text(
            "Evaluation. Subjects, not scans, were divided into training, validation and test before any label was "
            "looked at. Probes are linear: features are standardised and the penalty is chosen inside the training "
            f"subjects (training and validation split). {positive} is the positive class against {negative}; other "
            "diagnoses are left out of that probe. 95 % intervals are percentiles over resampled test subjects. "
            "Images are compared with the real scans, not with their reconstructions."
        ),
        Text(
            "Limitations. Intervals hold the chance of who was tested, not of the training: another seed would give "
            "another model. Baselines and code were tested on the same subjects, so overlapping intervals do not "
            "settle which is better; the tables of differences do. Ventricles and hippocampi are measured by a template-based "
            "yardstick that makes "
            "images comparable and is no segmentation; large ventricles come out about a fifth too small. The "
            "typical and worst scans are chosen by SSIM, not by a reader. Age and disease go together in such "
            "cohorts, and the diagnosis probe was not adjusted for age; 'ldae probe --confounds age' does that."
            + (f" {subjects} test subjects are few." if isinstance(subjects, int) and subjects < 100 else "")
        ),
        Text(
            "Reconstructed, edited, interpolated and sampled images are synthetic. They must not be used for "
            "diagnosis.",
            "warning",
        ),
    ]
    return Section("methods", "Methods and limitations", blocks)


def probe_methods() -> Section:
    """How a probe's figures came about, for a report without a model."""
    blocks: list[Block] = [
        Text(
            "Features are standardised with the mean and standard deviation of the fitting subjects; penalties are chosen by "
            "folds of the fitting subjects; confounds, principal components and medians for missing values are fitted there "
            "too. Scans of one person are never on both sides."
        ),
        Text(
            "Intervals are the 2.5th and 97.5th percentile of resamples that draw whole subjects with all their scans (Efron "
            "and Tibshirani 1993). They hold the chance of who was tested, not of the training of the embeddings' model. "
            "Differences are taken on the same resamples; their p values are twice the share of resamples beyond zero, "
            "adjusted for all comparisons (Holm 1979), and cannot be smaller than two in the number of resamples. DeLong's "
            "test (1988) takes scans of one subject as a cluster (Obuchowski 1997). The permutation test exchanges labels "
            "between subjects, one scan each, while predictions stay."
        ),
        Text(
            "In cross-validation the models of different folds share subjects, so that intervals are a little too short; "
            "DeLong's and the permutation test are left out there."
        ),
    ]
    return Section("methods", "How these figures came about", blocks)


def repeat(run: RunFolder) -> Section:
    """Commands and configuration."""
    request = run.result("request") or {}
    manifest = run.get(PROVENANCE, "manifest", "path") or request.get("manifest") or "manifest.tsv"
    seed = run.get(
        PROVENANCE,
        "seed",
    )
    seed = request.get("seed", 0) if seed is None else seed
    out = shlex.quote(str(run.path))
    if "quick" in request:
        options = " --quick" if request["quick"] else ""
        options += f" --subjects {request['subjects']}" if request.get("subjects") else ""
        commands = [f"ldae demo --out {out} --seed {seed}{options}"]
        words = "One command makes the cohort, trains, and writes this report. The same command again finds all done."
    elif "model" in request:
        commands = [
            f"ldae study --model {shlex.quote(str(request['model']))} --manifest {shlex.quote(str(manifest))} "
            f"--out {out} --seed {seed}"
        ]
        words = "One command runs every task with the trained model and writes this report."
    else:
        commands = [
            f"ldae fit all --config config.yaml --manifest {shlex.quote(str(manifest))} --out {out}",
            f"ldae study --model {out}/model --manifest {shlex.quote(str(manifest))} --out {out} --seed {seed}",
        ]
        words = "Save the configuration below as config.yaml; then these commands train and write this report."
    blocks: list[Block] = [Text(words), Listing("Commands", "\n".join(commands), open=True)]
    if isinstance(run.config, Mapping):
        import yaml

        text = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
        blocks.append(Listing("The whole resolved configuration (YAML)", text))
    else:
        blocks.append(Absence("run.json is not in the run folder, so the training's configuration cannot be shown."))
    return Section("repeat", "How to repeat it", blocks)
