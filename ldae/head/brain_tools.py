"""Brain extraction by a program on the PATH."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from ldae.errors import CohortError
from ldae.volume import Volume, read_volume, write_volume

__all__ = ["TOOLS", "run_brain_tool"]

# Program and arguments, the file that it leaves, above 0 inside the brain, and where to get it. {scan} and {out} stand for files,
# {stem} for `out` without its ending.
TOOLS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "synthstrip": (
        ("mri_synthstrip", "-i", "{scan}", "-m", "{out}"),
        "{out}",
        "FreeSurfer, https://surfer.nmr.mgh.harvard.edu",
    ),
    # Versions differ in how they name the mask, not in the stripped image.
    "hd-bet": (("hd-bet", "-i", "{scan}", "-o", "{out}"), "{out}", "https://github.com/MIC-DKFZ/HD-BET"),
    "bet": (("bet", "{scan}", "{stem}", "-R", "-m", "-n"), "{stem}_mask.nii.gz", "FSL, https://fsl.fmrib.ox.ac.uk"),
}


def run_brain_tool(name: str, scan: Volume) -> Volume:
    """Mask of a T1w head's brain, 0 and 1 in the scan's space, by one of `TOOLS`.

    Raises:
        CohortError: if the program is not on the PATH, fails, or leaves no mask.
    """
    arguments, mask, source = TOOLS[name]
    program = shutil.which(arguments[0])
    if program is None:
        remedy = f"install it ({source}), or use the default brain extraction, template"
        msg = f"{name}: no program {arguments[0]!r} on the PATH; {remedy}"
        raise CohortError(msg)
    with tempfile.TemporaryDirectory(prefix="ldae-brain-") as folder:
        places = {"scan": f"{folder}/scan.nii.gz", "out": f"{folder}/out.nii.gz", "stem": f"{folder}/out"}
        write_volume(scan, places["scan"])
        command = [program, *(argument.format(**places) for argument in arguments[1:])]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "FSLOUTPUTTYPE": "NIFTI_GZ"}
        )
        result = Path(mask.format(**places))
        if done.returncode != 0 or not result.is_file():
            printed = " ".join((done.stderr or done.stdout).split())[-300:]
            msg = f"{name} failed with exit code {done.returncode} and left {'a' if result.is_file() else 'no'} mask: {printed}"
            raise CohortError(msg)
        found = read_volume(result)
    return Volume((found.data > 0).astype(np.float32), found.affine)
