"""Discover: directions of the code on a cohort, with their correlations and a strip of images each."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import atomic_file, write_json
from ldae.data.identity import names_people
from ldae.data.manifest import COLUMNS
from ldae.tasks.edit.direction import manipulate_codes
from ldae.tasks.encoded_scans import EncodedScans, Progress
from ldae.tasks.explore.directions import (
    Direction,
    Neighbour,
    associations,
    decoder_directions,
    find_lookalikes,
    nearest_scans,
    principal_directions,
    reliability,
)
from ldae.tasks.explore.sparse import SparseFeatures, fit_sparse_features

__all__ = ["STEPS", "DirectionStrip", "DiscoverSettings", "Discovery", "discover"]

STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)
COLUMNS_TESTED = ("age", "sex", "diagnosis", "site", "months")
ACTIVE = 8
JACOBIAN_SCANS = 4
"""The decoder's directions are averaged over so many scans."""
SPARSE_FACTS = ("features", "dead", "active", "r2", "r2_trained", "trained_scans")
Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DiscoverSettings:
    """Number of directions of each kind.

    Attributes:
        principal: principal components of y.
        decoder: directions of the decoder's Jacobian; 0 for none.
        sparse: features of a sparse autoencoder; 0 for none.
        shown: sparse features that are shown, the most correlated first.
        neighbours: nearest scans of each scan.
        seed: of starts.
    """

    principal: int = 8
    decoder: int = 4
    sparse: int = 64
    shown: int = 4
    neighbours: int = 3
    seed: int = 0


@dataclass(frozen=True)
class DirectionStrip:
    """The most typical scan moved along one direction.

    Attributes:
        kind: `principal`, `decoder` or `sparse`.
        index: its place among its kind, from 0.
        name: the direction's correlations in words.
        images: decoded at each of `STEPS`, (steps, D, H, W) in [0, 1].
    """

    kind: str
    index: int
    name: str
    images: Images


@dataclass(frozen=True, eq=False)
class Discovery:
    """Directions of a cohort's codes, and what they go with.

    Attributes:
        scans: their number.
        subjects: their number.
        directions: of each kind, with their correlations.
        sparse: the sparse autoencoder, if one was asked for.
        reliability: intraclass correlation of each number of the code over sessions; None if it cannot be estimated.
        neighbours: nearest scans of each scan.
        lookalikes: scans of two subjects nearer than sessions of one.
        left_out: columns that were not correlated with, because they name people.
        seed: of starts.
    """

    scans: int
    subjects: int
    directions: dict[str, list[Direction]]
    sparse: SparseFeatures | None
    reliability: npt.NDArray[np.float64] | None
    neighbours: list[Neighbour]
    lookalikes: list[Neighbour]
    left_out: tuple[str, ...]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """The content of discover.json."""
        icc = self.reliability
        return {
            "scans": self.scans,
            "subjects": self.subjects,
            "directions": {kind: [each.plain() for each in of] for kind, of in self.directions.items()},
            "sparse": None if self.sparse is None else {name: getattr(self.sparse, name) for name in SPARSE_FACTS},
            "reliability": None if icc is None else {"median": float(np.median(icc)), "by_number": icc.tolist()},
            "neighbours": [asdict(each) for each in self.neighbours],
            "lookalikes": [asdict(each) for each in self.lookalikes],
            "left_out_columns": list(self.left_out),
            "seed": self.seed,
        }


def discover(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    out: Path,
    settings: DiscoverSettings | None = None,
    *,
    show: Callable[[DirectionStrip], None] = lambda strip: None,
    progress: Progress = lambda done, total: None,
) -> Discovery:
    """Find directions, name them by their correlations, and write discover.json and directions.npz.

    Args:
        model: the trained model.
        scans: encoded; noise codes are found where they are needed.
        out: folder.
        settings: number of directions of each kind.
        show: called with the strip of each direction.
        progress: called with (done, total): of the decoder's directions, then of strips.
    """
    settings = settings or DiscoverSettings()
    codes = scans.semantic
    further = sorted({name for record in scans.records for name in record.extra} - set(COLUMNS))
    identifiers = tuple(filter(names_people, further))
    columns = [*COLUMNS_TESTED, *(name for name in further if name not in identifiers)]
    found: dict[str, list[Direction]] = {"principal": principal_directions(codes, settings.principal)}
    if settings.decoder:
        places = scans.select(scans.first_rows[:JACOBIAN_SCANS]).with_noise(model)
        found["decoder"] = decoder_directions(
            model, places.codes, codes, settings.decoder, seed=settings.seed, progress=progress
        )
    sparse: SparseFeatures | None = None
    if settings.sparse:
        trained = np.array([record.split == "train" for record in scans.records])
        if not trained.any() or trained.all():  # no split to keep to: the first half of the subjects
            half = list(dict.fromkeys(scans.subjects))[: max(1, len(scans.first_rows) // 2)]
            trained = np.isin(scans.subjects, half)
        sparse = fit_sparse_features(
            codes, trained, features=settings.sparse, active=min(ACTIVE, settings.sparse), seed=settings.seed
        )
        spread = sparse.activations.std(axis=0)
        found["sparse"] = [
            Direction(step * size, 1.0) for step, size in zip(sparse.directions, spread, strict=True) if size > 0
        ]
    named = {kind: associations(each, codes, scans.records, columns) for kind, each in found.items()}
    if "sparse" in named:
        named["sparse"].sort(key=lambda each: -max((abs(a.correlation) for a in each.associations), default=0.0))
        named["sparse"] = named["sparse"][: settings.shown]
    shown = [(kind, index, each) for kind, of in named.items() for index, each in enumerate(of)]
    # The scan whose y is nearest to the mean.
    distance = np.square(codes - codes.mean(axis=0)).sum(axis=1)
    start = scans.select([int(distance.argmin())]).with_noise(model).codes[0]
    for done, (kind, index, direction) in enumerate(shown):
        images = model.decode_images([manipulate_codes(start, direction.step, amount) for amount in STEPS])
        show(DirectionStrip(kind, index, direction.name, images))
        progress(done + 1, len(shown))
    discovery = Discovery(
        scans=len(scans),
        subjects=len(set(scans.subjects)),
        directions=named,
        sparse=sparse,
        reliability=reliability(codes, scans.subjects),
        neighbours=nearest_scans(codes, scans.records, settings.neighbours),
        lookalikes=find_lookalikes(codes, scans.records),
        left_out=identifiers,
        seed=settings.seed,
    )
    with atomic_file(out / "directions.npz") as temporary:
        np.savez(temporary, **{kind: np.stack([each.step for each in of]) for kind, of in named.items() if of})  # type: ignore[arg-type]
    write_json(out / "discover.json", discovery.to_dict())
    return discovery
