"""A methods paragraph made from what the run recorded, and the places of the items of two checklists.

TRIPOD+AI: Collins et al., BMJ 2024;385:e078378. CLAIM: Mongan et al., Radiology: Artificial Intelligence 2020;2(2):e200029.
"""

import csv
from collections.abc import Sequence
from statistics import mean, stdev

from ldae.data.manifest import SPLITS, Manifest, Record
from ldae.report.blocks import Cell, Listing, Row, Section, Table, Text
from ldae.report.run_folder import STAGES, RunFolder
from ldae.report.templating import asset, paragraphs
from ldae.report.wording import capital, joined, words

__all__ = ["paragraph", "publication"]

NAMES = {
    "compression": "the compression autoencoder",
    "denoiser": "the denoiser",
    "representation": "the semantic encoder with the gradient estimator",
}


def publication(run: RunFolder) -> Section:
    """A paragraph to paste, and the checklists."""
    rows = [
        Row(
            item["topic"],
            [
                Cell(item["tripod"], prose=True),
                Cell(item["claim"], prose=True),
                words(item["where"] or "to be reported by the authors"),
            ],
            reference=not item["where"],
        )
        for item in csv.DictReader(asset("templates/checklists.tsv").splitlines(), delimiter="\t")
    ]
    return Section(
        "paper",
        "For a paper: methods paragraph and checklists",
        [
            Text(
                "The paragraph contains what the run recorded. Items in italics are for the authors: participants, "
                "diagnostic criteria, ethics, funding."
            ),
            Listing("Methods paragraph", paragraph(run), open=True),
            Table(
                "Places where items of TRIPOD+AI (2024) and CLAIM (2020) are reported",
                ("Item", "TRIPOD+AI", "CLAIM", "Reported"),
                rows,
            ),
        ],
    )


def paragraph(run: RunFolder) -> str:
    """Cohort, splits, preprocessing, model, training, protocol and fingerprints, in sentences."""
    probes = [run.task(f"probe_{name}") for name in ("diagnosis", "age")]
    config = run.config or {}
    texts = paragraphs(
        "methods.txt.j2",
        run=run,
        encoder=run.semantic_encoder,
        splits=_splits(run),
        stages=capital(_stages(run)),
        early=any((config.get(stage, {}).get("optimisation") or {}).get("patience") for stage in STAGES),
        probes=_probes(run),
        resamples=next(
            (each.get("settings", "resamples") for each in probes if each.get("settings", "resamples")), None
        ),
        comparisons=[each for probe in probes for each in probe.get("comparisons") or []],
        versions=", ".join(f"{name} {each}" for name, each in (run.provenance.get("versions") or {}).items()),
    )
    return "\n\n".join(texts)


def _splits(run: RunFolder) -> str:
    if not isinstance(run.manifest, Manifest):
        return ""
    of = {split: [record for record in run.manifest.records if record.split == split] for split in SPLITS}
    parts = [f"{split} ({_subjects(records)})" for split, records in of.items() if records]
    return joined(parts)


def _subjects(records: Sequence[Record]) -> str:
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


def _stages(run: RunFolder) -> str:
    """The stages with their size; empty where the model was trained elsewhere or a stage's file is damaged."""
    parts = []
    for name in STAGES:
        stage = run.stage(name)
        if stage.content is None:
            continue
        trained, steps, batch = stage.get("plan", "trained"), stage.get("steps"), stage.get("plan", "batch_size")
        if not (isinstance(trained, int) and steps and batch):
            return ""
        parts.append(f"{NAMES[name]} ({trained:,} parameters) for {steps} steps of {batch} scans")
    return joined(parts) if run.trained_here else ""


def _probes(run: RunFolder) -> str:
    """The targets with the counts of their training and test; damaged ones are left out."""
    positive, negative = run.classes
    parts = []
    for name, what in (
        ("diagnosis", f"{positive} versus {negative} by logistic regression with balanced classes"),
        ("age", "age by ridge regression"),
    ):
        probe = run.task(f"probe_{name}")
        counts = [probe.get("counts", f"{side}_{of}") for side in ("trained", "tested") for of in ("scans", "subjects")]
        if None not in counts:
            scans, subjects, tested, others = counts
            parts.append(
                f"{what} (trained on {scans} scans of {subjects} subjects, tested on {tested} scans of {others} other subjects)"
            )
    return joined(parts)
