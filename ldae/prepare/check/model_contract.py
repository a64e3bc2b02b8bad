"""Check of scans against the contract of a trained model; no weights are loaded."""

import warnings
from pathlib import Path

from ldae.atlas import load_template
from ldae.contract import Preprocessing, PreprocessingWarning
from ldae.errors import CheckpointError, ConfigError, VolumeError
from ldae.head.findings import ERROR, WARNING, Finding
from ldae.head.intensities import SkullState
from ldae.io.plain import from_plain
from ldae.volume import Volume

__all__ = ["check_contract", "read_contract"]

RAW = "run 'ldae cohort preprocess --manifest MANIFEST --out FOLDER' and give its manifest"
STRIPPED = "run 'ldae cohort preprocess --already-stripped --manifest MANIFEST --out FOLDER' and give its manifest"
# Of the template's brain that a brain in template space covers.
MIN_COVERED, COVERED_MM = 0.8, 6.0


def read_contract(folder: Path) -> Preprocessing:
    """The contract in a model folder's config.json.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    from ldae.io.checkpoints import read_config  # which loads torch; the processes that examine scans need none

    try:
        plain = read_config(Path(folder))["autoencoder"]["preprocessing"]
        return from_plain(Preprocessing, plain, where="preprocessing")
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        msg = f"{folder}/config.json: no contract that this version can read ({error!r}); copy the model folder again"
        raise CheckpointError(msg) from error


def check_contract(contract: Preprocessing, scan: Volume, skull: str) -> list[Finding]:
    """Breaches of the contract, with the command that mends each.

    Args:
        contract: of the model.
        scan: in any orientation.
        skull: content of the scan, see :class:`~ldae.head.intensities.SkullState`.
    """
    if skull == SkullState.HEAD:
        return [Finding(ERROR, "contract", "the model reads brains; skull and scalp are still there", RAW)]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PreprocessingWarning)
            contract.prepare(scan)
    except VolumeError as error:
        return [Finding(ERROR, "contract", str(error).split(";")[0], STRIPPED if skull == SkullState.BRAIN else RAW)]
    found = [
        Finding(WARNING, "contract", str(one.message).split(";")[0], "expect less of this scan; no command adds detail")
        for one in caught
        if issubclass(one.category, PreprocessingWarning)
    ]
    brain = load_template(COVERED_MM).brain_mask
    covered = float((scan.resample_to(brain.grid).data[brain.data > 0.5] > 0).mean())
    if covered < MIN_COVERED:
        message = f"the scan covers {100 * covered:.0f} % of the brain in MNI space, where the model looks"
        found.append(Finding(ERROR, "contract", message, STRIPPED))
    return found
