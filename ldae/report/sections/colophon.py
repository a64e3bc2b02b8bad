"""The report's last sections: methods, limitations, and how to reproduce the run."""

import shlex

import yaml

from ldae.report.blocks import Absence, Block, Listing, Section, Text
from ldae.report.run_folder import RunFolder

__all__ = ["methods", "probe_methods", "reproduction"]


def methods(run: RunFolder) -> Section:
    """Method and limitations."""
    positive, negative = run.classes
    subjects = run.results.get("n_test_subjects")
    few = f" {subjects} test subjects are few." if isinstance(subjects, int) and subjects < 100 else ""
    texts = (
        "Method. A compression autoencoder maps each skull-stripped T1-weighted scan in MNI152 space to a latent volume. A "
        "diffusion model (the denoiser) learns the distribution of these latents. A semantic encoder maps the scan to a short "
        "code, and a gradient estimator guides the denoiser by that code. The deterministic sampler, run backward, gives the "
        "noise code. (Latent diffusion autoencoder, arXiv 2504.08635; after PDAE, arXiv 2212.12990.)",
        "Evaluation. Subjects, not scans, were split into training, validation and test before any label was used. Probes are "
        "linear. Features are standardised, and the regularisation strength is chosen, within the training and validation "
        f"subjects. {positive} is the positive class against {negative}; other diagnoses are excluded from that probe. 95 % "
        "intervals are percentiles over resampled test subjects. Images are compared with the real scans, not with their "
        "reconstructions.",
        "Limitations. Intervals contain the sampling of test subjects, not that of the training: another seed gives another "
        "model. Baselines and codes were tested on the same subjects, so overlapping intervals do not rank them; the paired "
        "differences do. Volumes of ventricles and hippocampi come from a template-based measure that compares images; it is "
        "no segmentation, and underestimates large ventricles by about a fifth. Typical and worst scans are chosen by SSIM, "
        "not by a reader. Age and disease are correlated in such cohorts, and the diagnosis probe is not adjusted for age; "
        f"'ldae probe --confounds age' does that.{few}",
    )
    warning = (
        "Reconstructed, edited, interpolated and sampled images are synthetic. They must not be used for diagnosis."
    )
    return Section("methods", "Methods and limitations", [*map(Text, texts), Text(warning, "warning")])


def probe_methods() -> Section:
    """Methods of a probe, for a report without a model."""
    texts = (
        "Features are standardised with the mean and standard deviation of the training subjects. The regularisation "
        "strength is chosen by cross-validation within the training subjects. Confounds, principal components and medians "
        "for missing values are estimated there too. Scans of one subject are never in both training and test.",
        "Intervals are the 2.5th and 97.5th percentile of resamples of whole subjects with all their scans (Efron and "
        "Tibshirani 1993). They contain the sampling of test subjects, not the training of the embeddings' model. Differences "
        "use the same resamples. Their p values are twice the share of resamples beyond zero, adjusted for all comparisons "
        "(Holm 1979); the smallest possible value is two divided by the number of resamples. DeLong's test (1988) treats "
        "scans of one subject as a cluster (Obuchowski 1997). The permutation test exchanges labels between subjects, one "
        "scan each, with fixed predictions.",
        "In cross-validation, the models of different folds share training subjects, so intervals are slightly too narrow. "
        "DeLong's test and the permutation test are omitted there.",
    )
    return Section("methods", "Methods", list(map(Text, texts)))


def reproduction(run: RunFolder) -> Section:
    """Commands and configuration."""
    request = run.results.get("request") or {}
    manifest = run.provenance.get("manifest", "path") or request.get("manifest") or "manifest.tsv"
    seed = run.provenance.get("seed")
    seed = request.get("seed", 0) if seed is None else seed
    out = shlex.quote(str(run.path))
    if "quick" in request:
        options = " --quick" if request["quick"] else ""
        options += f" --subjects {request['subjects']}" if request.get("subjects") else ""
        commands = [f"ldae demo --out {out} --seed {seed}{options}"]
        text = "One command makes the cohort, trains, and writes this report. Finished parts are not repeated."
    else:
        model = shlex.quote(str(request["model"])) if "model" in request else f"{out}/model"
        cohort = shlex.quote(str(manifest))
        commands = [f"ldae study --model {model} --manifest {cohort} --out {out} --seed {seed}"]
        text = "One command runs every task with the trained model and writes this report."
        if "model" not in request:
            commands.insert(0, f"ldae fit all --config config.yaml --manifest {cohort} --out {out}")
            text = "Save the configuration below as config.yaml. These commands then train and write this report."
    blocks: list[Block] = [Text(text), Listing("Commands", "\n".join(commands), open=True)]
    if run.config is not None:
        configuration = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
        blocks.append(Listing("The resolved configuration (YAML)", configuration))
    else:
        blocks.append(Absence("run.json is not in the run folder, so the training's configuration cannot be shown."))
    return Section("repeat", "Reproduction", blocks)
