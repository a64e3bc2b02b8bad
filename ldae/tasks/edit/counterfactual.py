"""Minimal counterfactuals: the smallest edit of a scan at which a probe says something else."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.codes import Codes
from ldae.errors import TaskError
from ldae.tasks.edit.direction import manipulate_codes
from ldae.tasks.edit.manipulate import ready_step
from ldae.tasks.probe.linear import LinearProbe

__all__ = ["FARTHEST", "Counterfactual", "check_target", "find_counterfactuals"]

Images = npt.NDArray[np.float32]

FARTHEST = 6.0
"""Steps beyond which the search ends, unless it is told otherwise."""
BISECTIONS = 6


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """The smallest edit of a scan that takes a probe to a target.

    Attributes:
        amount: signed, in steps (standard deviations of the training cohort along the direction).
        before: what the probe says of the reconstruction, encoded anew.
        after: what it says of the edited image, encoded anew.
        image: the edited image, (D, H, W), on the model grid in [0, 1].
        reached: whether the target was reached within the range that was searched.
    """

    amount: float
    before: float
    after: float
    image: Images
    reached: bool


def check_target(probe: LinearProbe, target: float) -> None:
    """Refuse a target that a probe cannot reach.

    Raises:
        TaskError: if the probe is of two classes and the target is no probability.
    """
    if probe.logistic and not 0 < target < 1:
        msg = f"the target of a probe of two classes is a probability between 0 and 1, got {target:g}; give one"
        raise TaskError(msg)


def find_counterfactuals(
    model: LatentDiffusionAutoencoder,
    codes: Sequence[Codes],
    probe: LinearProbe,
    target: float = 0.5,
    *,
    nuisances: Sequence[LinearProbe] = (),
    step: npt.NDArray[np.float64] | None = None,
    farthest: float = FARTHEST,
    bisections: int = BISECTIONS,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> list[Counterfactual]:
    """The smallest step of each scan at which the probe, asked of the edited image encoded anew, passes a target.

    In standardised features the probe's gradient is the shortest way to any of its values (Wachter et al. 2018, in the space
    of codes); with nuisances, the shortest that leaves them alone. The step is doubled until the target is passed, then
    bisected: the answer lies within the last half of the bracket, on the far side.

    Args:
        model: the trained model.
        codes: of the scans, with noise codes.
        probe: whose answer is to change.
        target: probability, or value of a numeric probe.
        nuisances: probes whose value must not move, in codes.
        step: change of y that one step makes; the probe's, less the nuisances', if it is not given.
        farthest: steps beyond which the search ends.
        bisections: halvings of the bracket.
        batch_size: images at a time.
        progress: told (done, total) rounds.

    Raises:
        TaskError: if the target is no probability and the probe is logistic, or the probe is of other codes.
    """
    check_target(probe, target)
    step = ready_step(codes, probe, nuisances, step)
    rounds = 2 + math.ceil(math.log2(farthest)) + bisections
    done = 0

    def ask(rows: Sequence[int], amounts: npt.NDArray[np.float64]) -> tuple[dict[int, Images], dict[int, float]]:
        """Edited images of some scans and what the probe says of them."""
        nonlocal done
        images: dict[int, Images] = {}
        values: dict[int, float] = {}
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            decoded = model.decode_images([manipulate_codes(codes[row], step, float(amounts[row])) for row in part])
            images.update(zip(part, decoded, strict=True))
            semantic = model.semantic(torch.from_numpy(decoded)[:, None]).double().numpy()
            values.update(zip(part, probe.predict(semantic).tolist(), strict=True))
        done += 1
        if progress is not None:
            progress(min(done, rounds), rounds)
        return images, values

    everyone = list(range(len(codes)))
    near = np.zeros(len(codes))
    image, before = ask(everyone, near)
    sign = np.array([1.0 if before[row] < target else -1.0 for row in everyone])
    far, after = near.copy(), dict(before)

    def passed(row: int, value: float) -> bool:
        return bool(sign[row] * (value - target) >= 0)

    searching, reach = everyone, 1.0
    while searching:
        far[searching] = sign[searching] * min(reach, farthest)
        images, values = ask(searching, far)
        image.update(images)
        after.update(values)
        searching = [row for row in searching if not passed(row, values[row])]
        near[searching] = far[searching]
        if reach >= farthest:
            break
        reach *= 2
    missed = set(searching)
    found = [row for row in everyone if row not in missed]
    for _ in range(bisections):
        middle = (near + far) / 2
        images, values = ask(found, middle)
        for row in found:
            if passed(row, values[row]):
                far[row], image[row], after[row] = middle[row], images[row], values[row]
            else:
                near[row] = middle[row]
    if progress is not None:
        progress(rounds, rounds)
    return [Counterfactual(float(far[row]), before[row], after[row], image[row], row not in missed) for row in everyone]
