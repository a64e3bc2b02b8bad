"""The probe's protocol on a manifest: frozen split, scans with the labels, and baselines on the same folds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from ldae.data.manifest import Manifest, Record
from ldae.errors import TaskError
from ldae.io.files import write_json
from ldae.tasks.encode import Embeddings, embeddings_of
from ldae.tasks.probe import (
    AgeResult,
    DiagnosisResult,
    LinearProbe,
    Samples,
    age_result,
    probe_age,
    probe_diagnosis,
)

__all__ = ["ProbeReport", "evaluate_age_probe", "evaluate_diagnosis_probe", "latent_pca"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ProbeReport:
    """A probe with its baselines.

    Attributes:
        result: of the embeddings under test.
        baselines: of the others, by name, on the same subjects and folds.
        probe: the fitted model.
        keys: of the test scans, in the order of the predictions.
    """

    result: DiagnosisResult | AgeResult
    baselines: dict[str, DiagnosisResult | AgeResult]
    probe: LinearProbe
    keys: list[str]

    def write(self, folder: Path, target: str) -> tuple[Path, Path]:
        """Write the results as probe_TARGET.json and the fitted probe as probe_TARGET_model.json.

        Args:
            folder: where.
            target: what is predicted, for the names.
        """
        results = {
            "result": asdict(self.result),
            "baselines": {name: asdict(each) for name, each in self.baselines.items()},
            "keys": self.keys,
            "penalty": self.probe.penalty,
        }
        return (
            write_json(folder / f"probe_{target}.json", results),
            self.probe.save(folder / f"probe_{target}_model.json"),
        )


def evaluate_diagnosis_probe(
    manifest: Manifest,
    embeddings: Embeddings,
    baselines: Mapping[str, Embeddings] | None = None,
    *,
    positive: str = "AD",
    negative: str = "CN",
    seed: int = 0,
) -> ProbeReport:
    """Positive against negative diagnosis at the scan; fitted on train and validation subjects, tested on test subjects.

    Args:
        manifest: with a frozen split and diagnoses.
        embeddings: under test.
        baselines: other embeddings of the same scans, by name.
        positive: diagnosis that counts as 1.
        negative: diagnosis that counts as 0.
        seed: of the bootstrap.

    Raises:
        TaskError: if scans lack embeddings or a class lacks subjects.
    """
    fitting, testing = _split(
        manifest, lambda r: r.diagnosis in (positive, negative), f"diagnosis {positive} or {negative}"
    )

    def samples(records: Sequence[Record], vectors: Embeddings, what: str) -> Samples:
        target = np.array([float(record.diagnosis == positive) for record in records])
        return Samples(vectors.of(records, what=what), target, tuple(r.participant_id for r in records))

    def run(vectors: Embeddings, what: str) -> tuple[DiagnosisResult, LinearProbe]:
        return probe_diagnosis(
            samples(fitting, vectors, what),
            samples(testing, vectors, what),
            positive=positive,
            negative=negative,
            seed=seed,
        )

    result, probe = run(embeddings, "the embeddings")
    others: dict[str, DiagnosisResult | AgeResult] = {
        name: run(vectors, f"the {name} baseline")[0] for name, vectors in (baselines or {}).items()
    }
    return ProbeReport(result, others, probe, [record.key for record in testing])


def evaluate_age_probe(
    manifest: Manifest,
    embeddings: Embeddings,
    baselines: Mapping[str, Embeddings] | None = None,
    *,
    seed: int = 0,
) -> ProbeReport:
    """Age at the scan in years; fitted on train and validation subjects, tested on test subjects.

    The median training age is always among the baselines.

    Args:
        manifest: with a frozen split and ages.
        embeddings: under test.
        baselines: other embeddings of the same scans, by name.
        seed: of the bootstrap.
    """
    fitting, testing = _split(manifest, lambda record: record.age is not None, "an age")

    def samples(records: Sequence[Record], vectors: Embeddings, what: str) -> Samples:
        target = np.array([float(record.age or 0.0) for record in records])
        return Samples(vectors.of(records, what=what), target, tuple(r.participant_id for r in records))

    def run(vectors: Embeddings, what: str) -> tuple[AgeResult, LinearProbe]:
        return probe_age(samples(fitting, vectors, what), samples(testing, vectors, what), seed=seed)

    train, test = (samples(records, embeddings, "the embeddings") for records in (fitting, testing))
    result, probe = run(embeddings, "the embeddings")
    median = np.full(len(test.target), np.median(train.target))
    others: dict[str, DiagnosisResult | AgeResult] = {"median": age_result(median, train, test, seed=seed)}
    others |= {name: run(vectors, f"the {name} baseline")[0] for name, vectors in (baselines or {}).items()}
    return ProbeReport(result, others, probe, [record.key for record in testing])


def latent_pca(latents: npt.NDArray[np.float32], records: Sequence[Record], *, components: int = 100) -> Embeddings:
    """Principal components of latents, fitted on train and validation subjects only.

    Args:
        latents: of every scan, (N, C, d, h, w).
        records: of each.
        components: at most; fewer if there are fewer fitting scans.
    """
    flat = latents.reshape(len(latents), -1).astype(np.float64)
    fitting = np.array([record.split in ("train", "validation") for record in records])
    count = min(components, int(fitting.sum()) - 1, flat.shape[1])
    pca = PCA(count, svd_solver="full").fit(flat[fitting])
    return embeddings_of(records, pca.transform(flat))


def _split(
    manifest: Manifest, wanted: Callable[[Record], bool], what: str
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Records to fit on and to test on; the split was frozen before any label was looked at."""
    parts = {
        name: tuple(r for r in manifest.in_split(name).records if wanted(r)) for name in ("train", "validation", "test")
    }
    fitting, testing = parts["train"] + parts["validation"], parts["test"]
    if not fitting or not testing:
        msg = f"{manifest.path}: {len(fitting)} scans to fit on and {len(testing)} to test on have {what}; both are needed"
        raise TaskError(msg)
    return fitting, testing
