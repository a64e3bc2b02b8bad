"""Words for a paper: a methods paragraph made from what the run recorded, and where each item of two checklists stands.

TRIPOD+AI: Collins et al., BMJ 2024;385:e078378. CLAIM: Mongan et al., Radiology: Artificial Intelligence 2020;2(2):e200029.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import mean, stdev

from ldae.data.manifest import SPLITS, Manifest, Record
from ldae.report.blocks import Cell, Listing, Row, Section, Table, Text
from ldae.report.run_folder import PROVENANCE, STAGES, RunFolder
from ldae.report.wording import class_names, joined

__all__ = ["publication"]


@dataclass(frozen=True)
class Item:
    """A topic of the checklists.

    Attributes:
        topic: in words.
        tripod: number in TRIPOD+AI.
        claim: number in CLAIM.
        where: it stands in this report; empty where only the authors can tell.
    """

    topic: str
    tripod: str
    claim: str
    where: str = ""


ITEMS = (
    Item("Title, abstract", "1, 2", "1, 2"),
    Item("Background, intended use, health inequalities", "3a-c", "3"),
    Item("Objectives", "4", "4, 6"),
    Item("Source of the data, dates, prospective or retrospective", "5a, 5b", "5, 7"),
    Item("Setting and eligibility of participants", "6a, 6b", "8"),
    Item("Selection of data subsets, definitions of variables, de-identification", "6c", "10-12"),
    Item(
        "Preparation of the data",
        "7",
        "9",
        "paragraph above; 'ldae cohort preprocess' leaves a record beside each scan",
    ),
    Item("Outcome: how diagnosis and age were assessed", "8a-c", "14-18"),
    Item("Predictors", "9a-c", "22", "paragraph above"),
    Item("Sample size, and what it is worth", "10", "19", "What was run on what; width of the intervals"),
    Item("Missing data", "11", "13", "scans left out are counted under Diagnosis and Age"),
    Item("Analytical methods, tuning, software", "12a-g", "22-27", "paragraph above; How to repeat it"),
    Item("Class imbalance", "13", "25", "paragraph above"),
    Item("Fairness", "14", "30", "tables by sex and site under Diagnosis and Age"),
    Item("Output of the model", "15", "22", "paragraph above"),
    Item("Training, validation and test data are disjoint", "16", "20, 21", "What was run on what; paragraph above"),
    Item("Ethical approval, funding, registration, involvement of patients", "17-19", "40, 42"),
    Item("Availability of data, code and models", "18e, 18f", "41", "How to repeat it; fingerprints in the paragraph"),
    Item("Flow and characteristics of participants", "20a-c", "33, 34", "What was run on what"),
    Item(
        "Development and full specification of the model", "21, 22", "22-26", "How to repeat it (whole configuration)"
    ),
    Item("Performance with intervals, also by group", "23a, 23b", "28, 29, 35, 36", "Key figures; Diagnosis; Age"),
    Item("Failures", "23a", "37", "worst scans under Reconstruction"),
    Item("Explanation of what the model uses", "21", "31", "Manipulation; 'ldae discover'"),
    Item("Updating of the model", "24", ""),
    Item("External evaluation", "23a", "32"),
    Item("Interpretation and limitations", "25, 26", "38", "Methods and limitations"),
    Item("Use in care, next steps", "27a-c", "39"),
)


def publication(run: RunFolder) -> Section:
    """A paragraph to paste, and the checklists."""
    rows = [
        Row(
            item.topic,
            [
                Cell(item.tripod, prose=True),
                Cell(item.claim, prose=True),
                Cell(item.where or "to be told by the authors", prose=True),
            ],
            reference=not item.where,
        )
        for item in ITEMS
    ]
    return Section(
        "paper",
        "For a paper: methods paragraph and checklists",
        [
            Text(
                "Made from what the run recorded. What it cannot know (who the participants were, how diagnoses were made, "
                "ethics, funding) is for the authors to tell; those rows are in italics."
            ),
            Listing("Methods paragraph", paragraph(run), open=True),
            Table(
                "Where items of TRIPOD+AI (2024) and CLAIM (2020) are reported",
                ("Item", "TRIPOD+AI", "CLAIM", "Reported"),
                rows,
            ),
        ],
    )


def paragraph(run: RunFolder) -> str:
    """Cohort, splits, preprocessing, model, training, protocol and fingerprints, in sentences."""
    found = []
    for write in (_cohort, _preparation, _model, _training, _probes, _statistics, _software):
        # What a damaged or foreign file lacks is left out.
        with suppress(KeyError, TypeError, AttributeError, ValueError):
            found.append(write(run))
    return "\n\n".join(each for each in found if each)


def _cohort(run: RunFolder) -> str:
    subjects, scans = run.result("n_subjects"), run.result("n_scans")
    if subjects is None or scans is None:
        return ""
    kind = (
        "simulated T1-weighted scans (a phantom cohort computed from the MNI152 template)"
        if run.phantom
        else "T1-weighted scans"
    )
    words = (
        f"The cohort held {scans} {kind} of {subjects} subjects, divided by subject, so that no one is in two splits"
    )
    if not isinstance(run.manifest, Manifest):
        return f"{words}."
    parts = [
        f"{split} ({_people([record for record in run.manifest.records if record.split == split])})"
        for split in SPLITS
        if any(record.split == split for record in run.manifest.records)
    ]
    return f"{words}: {joined(parts)}." if parts else f"{words}."


def _people(records: Sequence[Record]) -> str:
    """Counts, age at the first scan, sex and diagnosis of the subjects of some scans."""
    first: dict[str, Record] = {}
    for record in sorted(records, key=lambda each: (each.months is None, each.months or 0.0, each.age or 0.0)):
        first.setdefault(record.participant_id, record)
    parts = [f"{len(first)} subjects, {len(records)} scans"]
    ages = [record.age for record in first.values() if record.age is not None]
    if len(ages) > 1:
        parts.append(f"age at first scan {mean(ages):.1f} (SD {stdev(ages):.1f}) years")
    sexes = [record.sex for record in first.values() if record.sex is not None]
    if sexes:
        parts.append(f"{sum(sex == 'F' for sex in sexes)} of {len(sexes)} women")
    labels = [record.diagnosis for record in first.values() if record.diagnosis is not None]
    if labels:
        counts = ", ".join(f"{labels.count(name)} {name}" for name in sorted(set(labels)))
        parts.append(f"at first scan {counts}")
    return "; ".join(parts)


def _preparation(run: RunFolder) -> str:
    contract = run.preprocessing | (run.get(PROVENANCE, "config", "preprocessing") or {})
    if not {"shape", "voxel_size_mm", "percentiles"} <= contract.keys():
        return ""
    shape = " x ".join(str(n) for n in contract["shape"])
    low, high = contract["percentiles"]
    place = (
        "were computed without skulls in MNI152 space"
        if run.phantom
        else "were expected skull-stripped and aligned with the MNI152 template by an affine transform without deformation"
    )
    return (
        f"Scans {place}; they were sampled on a grid of {shape} voxels of {contract['voxel_size_mm']:g} mm, and scaled so that "
        f"the {low:g} and {high:g} percentiles of brain intensities became 0 and 1; the background was set to 0."
    )


def _model(run: RunFolder) -> str:
    config = run.config
    digest = run.result("model")
    identity = f" (weights SHA-256 {str(digest)[:16]})" if digest else ""
    words = (
        f"A latent diffusion autoencoder{identity} was used (arXiv 2504.08635; implementation: ldae): a 3D autoencoder "
        "compresses the scan, a denoising diffusion model describes the compressed scans, and a semantic encoder, trained "
        "without labels, reads a scan into a code that guides the denoiser by a gradient estimator"
    )
    if not isinstance(config, Mapping):
        return f"{words}."
    encoder = run.semantic_encoder
    code = f" of {encoder['semantic_width']} numbers" if "semantic_width" in encoder else ""
    sampling = config.get("sampling") or {}
    words = f"{words}; the semantic code{code} is the input of every probe."
    if encoder.get("symmetric"):
        words += (
            " The encoder reads a scan and its mirror image, left to right, as one: the code does not tell sides apart."
        )
    if encoder.get("whitening"):
        words += f" Codes were whitened over the training scans (to the power {encoder['whitening']:g})."
    if sampling.get("steps") is None:
        return words
    return f"{words} Scans were inverted and drawn by {sampling['steps']} steps of the solver {sampling.get('solver', 'ddim')}."


def _training(run: RunFolder) -> str:
    if not run.trained_here:
        return ""
    stages = []
    for stage in STAGES:
        plan, steps = (run.get(f"{stage}/stage.json", name) for name in ("plan", "steps"))
        if isinstance(plan, Mapping) and steps:
            stages.append(
                f"the {_STAGE[stage]} ({plan['trained']:,} parameters) for {steps} steps of {plan['batch_size']} scans"
            )
    seed = run.get(PROVENANCE, "seed")
    if not stages:
        return ""
    config = run.config or {}
    early = any((config.get(stage, {}).get("optimisation") or {}).get("patience") for stage in STAGES)
    return (
        f"In turn were trained {joined(stages)}, on training subjects alone, with AdamW and seed {seed}; an exponential "
        "moving average of the weights was kept, and validation subjects were used to watch training"
        + (" and to stop it early." if early else " only.")
    )


_STAGE = {
    "compression": "compression autoencoder",
    "denoiser": "denoiser",
    "representation": "semantic encoder with the gradient estimator",
}


def _probes(run: RunFolder) -> str:
    positive, negative = class_names(run)
    words = []
    for name, what in (
        ("diagnosis", f"{positive} against {negative} by logistic regression with balanced classes"),
        ("age", "age by ridge regression"),
    ):
        counts = run.get(f"tasks/probe_{name}.json", "counts")
        if isinstance(counts, Mapping):
            words.append(
                f"{what}, fitted on {counts['fitted_scans']} scans of {counts['fitted_subjects']} subjects and tested once on "
                f"{counts['asked_scans']} scans of {counts['asked_subjects']} other subjects"
            )
    if not words:
        return ""
    return (
        f"Linear probes predicted {joined(words)}. Features were standardised on the fitting subjects (training and validation "
        "split), and the penalty was chosen there, over folds of subjects where they are ten or more. The same probe was "
        "fitted on the baselines that are reported beside it. The output is a probability, or an age in years."
    )


def _statistics(run: RunFolder) -> str:
    probes = [run.shown(f"probe_{name}") or {} for name in ("diagnosis", "age")]
    resamples = [each["settings"]["resamples"] for each in probes if each]
    draws = f" ({resamples[0]} draws)" if resamples else ""
    compared = [each for probe in probes for each in probe.get("comparisons") or []]
    words = f"Intervals are 95 % percentile bootstrap intervals over subjects{draws}, all scans of a subject drawn together."
    if compared:
        words += (
            " Differences between kinds of features were taken on the same draws, with p values adjusted after Holm."
        )
    if any(each.get("delong") for each in compared):
        words += " AUCs were also compared by DeLong's test for clustered data (Obuchowski 1997)."
    if run.result("reconstruct") is not None:
        words += " Images were compared with the real scans (SSIM, PSNR, MSE)."
    return words


def _software(run: RunFolder) -> str:
    versions = run.get(PROVENANCE, "versions") or {}
    table = run.get(PROVENANCE, "manifest", "sha256")
    device, precision = run.result("device"), run.result("precision")
    parts = []
    if versions:
        parts.append("Software: " + ", ".join(f"{name} {each}" for name, each in versions.items()) + ".")
    if device:
        parts.append(f"Computed on {device} in {precision}.")
    if table:
        parts.append(f"Cohort table SHA-256 {str(table)[:16]}.")
    return " ".join(parts)
