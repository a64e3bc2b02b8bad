"""Brain extraction by a program on the PATH."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ldae.errors import CohortError
from ldae.volume import Volume, read_volume, write_volume

__all__ = ["TOOLS", "BrainTool", "run_brain_tool"]


@dataclass(frozen=True)
class BrainTool:
    """Command line of a program.

    Attributes:
        arguments: program and arguments; `{scan}` and `{out}` stand for the files, `{stem}` for `out` without its ending.
        result: the file that it leaves, above 0 inside the brain, as `{out}` or `{stem}...`.
        source: of the program, for the error message.
    """

    arguments: tuple[str, ...]
    result: str
    source: str


TOOLS = {
    "synthstrip": BrainTool(
        ("mri_synthstrip", "-i", "{scan}", "-m", "{out}"), "{out}", "FreeSurfer, https://surfer.nmr.mgh.harvard.edu"
    ),
    # Versions differ in how they name the mask, not in the stripped image.
    "hd-bet": BrainTool(("hd-bet", "-i", "{scan}", "-o", "{out}"), "{out}", "https://github.com/MIC-DKFZ/HD-BET"),
    "bet": BrainTool(
        ("bet", "{scan}", "{stem}", "-R", "-m", "-n"), "{stem}_mask.nii.gz", "FSL, https://fsl.fmrib.ox.ac.uk"
    ),
}


def run_brain_tool(name: str, scan: Volume) -> Volume:
    """Brain mask by a program.

    Args:
        name: of the tool, a key of `TOOLS`.
        scan: a T1w head.

    Returns:
        0 and 1 in the scan's space.

    Raises:
        CohortError: if the program is not on the PATH, fails, or leaves no mask.
    """
    tool = TOOLS[name]
    program = shutil.which(tool.arguments[0])
    if program is None:
        remedy = f"install it ({tool.source}), or use the default brain extraction, template"
        msg = f"{name}: no program {tool.arguments[0]!r} on the PATH; {remedy}"
        raise CohortError(msg)
    with tempfile.TemporaryDirectory(prefix="ldae-brain-") as folder:
        places = {"scan": f"{folder}/scan.nii.gz", "out": f"{folder}/out.nii.gz", "stem": f"{folder}/out"}
        write_volume(scan, places["scan"])
        command = [program, *(argument.format(**places) for argument in tool.arguments[1:])]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "FSLOUTPUTTYPE": "NIFTI_GZ"}
        )
        result = Path(tool.result.format(**places))
        if done.returncode != 0 or not result.is_file():
            printed = " ".join((done.stderr or done.stdout).split())[-300:]
            msg = f"{name} failed with exit code {done.returncode} and left {'a' if result.is_file() else 'no'} mask: {printed}"
            raise CohortError(msg)
        found = read_volume(result)
    return Volume((found.data > 0).astype(np.float32), found.affine)
