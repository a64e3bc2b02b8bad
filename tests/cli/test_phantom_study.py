import os
import subprocess
from itertools import pairwise
from pathlib import Path

from ldae.cli.main import read_command_line

ROOT = Path(__file__).parents[2]


def test_every_line_of_the_phantom_study_is_a_command(tmp_path):
    recorder = tmp_path / "ldae"
    recorder.write_text(f'#!/bin/sh\nprintf "%s\\037" "$@" >> {tmp_path}/lines\necho >> {tmp_path}/lines\n')
    recorder.chmod(0o755)
    out = str(tmp_path / "study")
    environment = {
        **os.environ,
        "LDAE": str(recorder),
        "OUT": out,
        "SUBJECTS": "24",
        "VOXEL_SIZE": "6",
        "CONFIG": "quick",
    }
    subprocess.run(["bash", ROOT / "scripts" / "phantom_study.sh"], env=environment, check=True)
    lines = [line.removesuffix("\037").split("\037") for line in (tmp_path / "lines").read_text().splitlines()]
    commands = [read_command_line(line)[0].path[0] for line in lines]
    assert commands[:4] == ["cohort", "cohort", "fit", "encode"]
    assert commands[-2:] == ["study", "report"]
    # What a line reads, a line before it wrote: `fit` and `encode` name files in their folder, the others the file itself.
    written = {Path(out) / "cohort"}
    for line in lines[1:]:
        given = {name: Path(value) for name, value in pairwise(line) if name.startswith("--")}
        read = [given[name] for name in ("--manifest", "--model") if name in given]
        read += [Path(line[1])] if line[0] == "probe" else []
        assert all(path in written or path.parent in written for path in read), line
        written |= {given["--out"]} if "--out" in given else set()
