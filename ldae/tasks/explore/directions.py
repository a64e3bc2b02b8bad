"""Directions of a semantic code that no label was needed for, named only by their correlations."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.distance import cdist
from scipy.stats import f_oneway, pearsonr
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.codes import Codes
from ldae.data.manifest import Record
from ldae.diffusion import sample_latents
from ldae.errors import TaskError
from ldae.metrics.code_usage import share_between_subjects
from ldae.metrics.statistics import holm, rows_by_subject
from ldae.networks import semantic_predict
from ldae.tasks.encoded_scans import Progress
from ldae.tasks.probe.targets import values_of

__all__ = [
    "Association",
    "Direction",
    "Neighbour",
    "associations",
    "decoder_directions",
    "find_lookalikes",
    "nearest_scans",
    "principal_directions",
    "reliability",
]

Array = npt.NDArray[np.float64]

AT_ONCE = 4
"""Directions that pass through the sampler together."""
ITERATIONS = 8
"""Of the power method."""
NAMED_FROM = 0.3
"""Least correlation with a column that names a direction; it must also be significant."""


@dataclass(frozen=True)
class Association:
    """Correlation of a direction with a column of the manifest.

    Attributes:
        column: its name.
        correlation: Pearson's r of a number; the correlation ratio eta of text, which has no sign.
        p_holm: of no correlation, adjusted over all directions and columns; one scan a subject.
    """

    column: str
    correlation: float
    p_holm: float


@dataclass(frozen=True)
class Direction:
    """A direction of y.

    Attributes:
        step: change of y by one standard deviation of the cohort along it, (S,).
        strength: share of the variance of y, or the decoder's gain: change of the latent (rms) a step.
        associations: with columns, strongest first.
    """

    step: Array
    strength: float
    associations: tuple[Association, ...] = ()

    @property
    def name(self) -> str:
        """The columns that it correlates with, if any."""
        named = [
            f"{each.column} ({each.correlation:+.2f})"
            for each in self.associations
            if abs(each.correlation) >= NAMED_FROM and each.p_holm < 0.05
        ]
        return ", ".join(named) if named else "no column"

    def plain(self) -> dict[str, Any]:
        """What discover.json holds of it."""
        return {
            "name": self.name,
            "strength": self.strength,
            "associations": [asdict(each) for each in self.associations],
        }


@dataclass(frozen=True)
class Neighbour:
    """A pair of scans with similar codes.

    Attributes:
        key: of the scan.
        other: of its neighbour.
        distance: of their codes, in standard deviations, root mean square over numbers.
    """

    key: str
    other: str
    distance: float


def principal_directions(codes: Array, count: int) -> list[Direction]:
    """At most `count` principal components of y, (N, S), strongest first; the sign makes the largest weight positive.

    Raises:
        TaskError: for fewer than three scans.
    """
    if len(codes) < 3:
        msg = f"directions need three scans or more, got {len(codes)}; encode more"
        raise TaskError(msg)
    centred = codes - codes.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    variance = np.square(singular) / (len(codes) - 1)
    found = []
    for value, axis in list(zip(variance, axes, strict=True))[:count]:
        sign = np.sign(axis[np.abs(axis).argmax()])
        found.append(Direction(sign * axis * np.sqrt(value), float(value / max(variance.sum(), 1e-12))))
    return found


def decoder_directions(
    model: LatentDiffusionAutoencoder,
    codes: Sequence[Codes],
    semantics: Array,
    count: int,
    *,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> list[Direction]:
    """Directions in which the decoded latents change most a standard deviation: right singular vectors of its Jacobian.

    Block power iteration on J'J (Halko et al. 2011), averaged over the codes of some scans, with noise codes; the Jacobian is
    never formed, only its products with vectors through the sampler. Units are standard deviations of the cohort's semantic
    codes, (N, S). Progress is of scans, each once an iteration.

    Raises:
        TaskError: if a noise code is missing.
    """
    if any(each.noise is None for each in codes):
        msg = "the decoder's directions need noise codes; encode the scans with them"
        raise TaskError(msg)
    scale = torch.from_numpy(semantics.std(axis=0)).float()
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(scale), count, generator=generator))[0]
    gains = torch.ones(count)
    for iteration in range(ITERATIONS):
        product = torch.zeros_like(basis)
        for row, each in enumerate(codes):
            progress(iteration * len(codes) + row, ITERATIONS * len(codes))
            product += _normal_product(model, each, scale, basis) / len(codes)
        basis, triangle = torch.linalg.qr(product)
        gains = triangle.diagonal().abs()
    order = gains.argsort(descending=True)
    return [
        Direction((scale * basis[:, index]).double().numpy(), float(gains[index].sqrt())) for index in order.tolist()
    ]


def _normal_product(model: LatentDiffusionAutoencoder, codes: Codes, scale: Tensor, basis: Tensor) -> Tensor:
    """J'J times each column, per latent element, with y in standard deviations, (S, count)."""
    device = model.device
    assert codes.noise is not None
    noise = codes.noise[None].to(device)
    record = None if codes.record is None else codes.record[:, None].to(device)
    units = scale.to(device)

    def decode(shift: Tensor) -> Tensor:
        predict = semantic_predict(model.networks, codes.semantic.to(device)[None] + units * shift[None], model.config)
        return sample_latents(
            predict, noise, schedule=model.networks.schedule, sampling=model.config.sampling, record=record
        ).float()

    zero = torch.zeros(len(units), device=device)
    # The fused attention kernels know no forward-mode derivative.
    with sdpa_kernel(SDPBackend.MATH):
        pull_back = torch.func.vjp(decode, zero)[1]

        def product(column: Tensor) -> Tensor:
            along = torch.func.jvp(decode, (zero,), (column,))[1]
            (back,) = pull_back(along / along.numel())
            return back

        return torch.vmap(product, in_dims=1, out_dims=1, chunk_size=AT_ONCE)(basis.to(device)).detach().cpu()


def associations(
    directions: Sequence[Direction], codes: Array, records: Sequence[Record], columns: Sequence[str]
) -> list[Direction]:
    """The directions of codes, (N, S), with their correlations with columns of the manifest, constant ones left out.

    Of each subject the first scan counts.
    """
    if not directions:
        return []
    first = [int(rows[0]) for rows in rows_by_subject([record.participant_id for record in records])]
    people = [records[row] for row in first]
    scores = (codes[first] - codes[first].mean(axis=0)) @ np.stack([each.step for each in directions], axis=1)
    scores /= np.maximum(scores.std(axis=0), 1e-12)
    found: list[tuple[int, str, float, float]] = []
    for name in columns:
        values = values_of(people, name)
        known = np.array([value is not None for value in values])
        present = [value for value in values if value is not None]
        if len(set(present)) < 2 or known.sum() < 4:
            continue
        numeric = all(isinstance(value, int | float) for value in present)
        if not numeric and len(set(present)) > len(present) / 2:  # hashes, dates, names: every one its own group
            continue
        for index, score in enumerate(scores[known].T):
            if numeric:
                r, p = pearsonr(score, np.array(present, dtype=float))
            else:
                r, p = _correlation_ratio(score, [str(value) for value in present])
            found.append((index, name, float(r), float(p)))
    ranked: list[list[Association]] = [[] for _ in directions]
    for (index, name, r, _), p in zip(found, holm([p for *_, p in found]), strict=True):
        ranked[index].append(Association(name, r, p))
    for of in ranked:
        of.sort(key=lambda association: -abs(association.correlation))
    return [replace(each, associations=tuple(of)) for each, of in zip(directions, ranked, strict=True)]


def _correlation_ratio(score: Array, labels: Sequence[str]) -> tuple[float, float]:
    """Eta, the root of the share of variance between groups, and the p of its F test (Fisher 1925)."""
    names = sorted(set(labels))
    groups = [score[[label == name for label in labels]] for name in names]
    between = sum(len(group) * (group.mean() - score.mean()) ** 2 for group in groups)
    eta = float(np.sqrt(between / max(float(np.square(score - score.mean()).sum()), 1e-12)))
    usable = [group for group in groups if len(group) > 1]
    p = float(f_oneway(*usable).pvalue) if len(usable) > 1 else 1.0
    return eta, p if np.isfinite(p) else 1.0


def _distances(codes: Array, records: Sequence[Record]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Root mean square differences of standardised codes, and which pairs are of one subject, (N, N) each."""
    standard = (codes - codes.mean(axis=0)) / np.maximum(codes.std(axis=0), 1e-12)
    subjects = np.array([record.participant_id for record in records])
    return cdist(standard, standard) / np.sqrt(codes.shape[1]), subjects[:, None] == subjects[None]


def nearest_scans(codes: Array, records: Sequence[Record], count: int = 3) -> list[Neighbour]:
    """The `count` nearest scans of other subjects, for each scan, by codes, (N, S)."""
    distances, same = _distances(codes, records)
    distances[same] = np.inf
    found = []
    for row, record in enumerate(records):
        nearest = [other for other in np.argsort(distances[row])[:count] if np.isfinite(distances[row, other])]
        found += [Neighbour(record.key, records[other].key, float(distances[row, other])) for other in nearest]
    return found


def find_lookalikes(codes: Array, records: Sequence[Record]) -> list[Neighbour]:
    """Scans of two subjects that are nearer than sessions of one subject usually are: perhaps one brain under two names.

    Each pair whose distance is below the median distance between sessions of one subject, and below half of the first
    percentile of distances between subjects; nearest first. Codes are (N, S).
    """
    distances, same = _distances(codes, records)
    between, within = distances[~same], distances[same & ~np.eye(len(codes), dtype=bool)]
    limit = 0.5 * np.percentile(between, 1) if len(between) else 0.0
    if len(within):
        limit = min(limit, np.median(within))
    pairs = [
        Neighbour(records[i].key, records[j].key, float(distances[i, j]))
        for i, j in zip(*np.nonzero(np.triu(~same & (distances < limit))), strict=True)
    ]
    return sorted(pairs, key=lambda pair: pair.distance)


def reliability(codes: Array, subjects: Sequence[str]) -> Array | None:
    """Test-retest reliability ICC(1) of each number of y, (N, S), over sessions of one subject (Shrout and Fleiss 1979).

    Change between sessions lowers it: of repeated scans of one day that of the scanner, of later visits also that of the
    subject. None if there is only one subject, or none has two sessions.
    """
    if len(set(subjects)) in (1, len(subjects)):
        return None
    return np.array([share_between_subjects(column[:, None], subjects) or 0.0 for column in codes.T])
