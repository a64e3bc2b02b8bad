"""A subject's scan at given months, written as NIfTI."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.errors import TaskError
from ldae.io.bids import bids_number, bids_path
from ldae.tasks.encoded_scans import EncodedScans
from ldae.tasks.longitudinal.interpolate import draw_spread, interpolate_subject, nearest_session, with_residual
from ldae.tasks.native.spaces import Space

__all__ = ["write_months"]


def write_months(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    months: Sequence[float],
    out: Path,
    space: Space,
    *,
    residual: bool = True,
    draws: int = 0,
    seed: int = 0,
) -> Iterator[Path]:
    """Write an image a month, and on request a map of how much it depends on the noise code.

    Args:
        model: the trained model.
        scans: of one subject, encoded, with noise codes.
        months: since baseline.
        out: folder.
        space: in which the images are written.
        residual: in template space, add what compression lost of the two scans around the month.
        draws: noise codes to draw for the map of standard deviations; 0 writes none.
        seed: of the draws.

    Yields:
        Each file, once it is written.

    Raises:
        TaskError: for fewer than two sessions.
    """
    subject = scans.subjects[0]
    if len(scans) < 2:
        msg = f"subject {subject} has one session; two with months are needed to interpolate between"
        raise TaskError(msg)
    for between in interpolate_subject(scans, months):
        month, codes, ends = between.month, between.codes, (between.first, between.second)
        row = nearest_session(scans, month)
        session = scans.codes[row]
        image, *decoded = model.decode_images([codes, *(scans.codes[end] for end in ends)])
        # At a session's own month nothing has changed, whatever rounding there may be in decoding twice.
        reference = image if codes.same_image(session) else decoded[ends.index(row)]
        place = space.scan(scans.records[row], session)
        if residual and not space.needs_reference:
            image = with_residual(image, between, scans.select(ends).images(), np.stack(decoded))
        name = f"{scans.records[row].stem.partition('_')[0]}_ses-month{bids_number(month)}"
        start, modality = f"_space-{space.label}_desc-", model.config.preprocessing.modality
        facts = {
            "month": month,
            "session": scans.records[row].session_id,
            "between": [scans.records[end].session_id for end in dict.fromkeys(ends)],
            "estimate": "residual" if residual else "codes",
        }
        path = bids_path(out, name, f"{start}interpolated_{modality}.nii.gz")
        yield place.edited(image, reference).write(path, "interpolation", **facts)
        if draws:
            spread = draw_spread(model, codes, draws=draws, seed=seed)
            path = bids_path(out, name, f"{start}uncertainty_{modality}.nii.gz")
            yield place.spread(spread).write(path, "uncertainty", **facts, draws=draws, seed=seed)
