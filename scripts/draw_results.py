"""Draw the pictures of the README from a run folder, as in `python scripts/draw_results.py runs/demo docs/pictures`."""

import json
import sys
from pathlib import Path

import numpy as np

from ldae.report.plots.panels import cuts_of, difference
from ldae.report.plots.slice_panels import PanelRow, Tile, draw_panel, symmetric_limit
from ldae.report.run_folder import open_run

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
run = open_run(folder)
images = {name: np.load(folder / "tasks" / f"{name}.npz") for name in ("reconstruct", "manipulate")}
out.mkdir(parents=True, exist_ok=True)

scan, both, mean = (images["reconstruct"][name][0].astype(np.float32) for name in ("original", "both", "semantic_mean"))
missed = [difference(each, scan) for each in (both, mean)]
rows = [
    PanelRow(
        cut,
        [
            Tile(scan, "original"),
            *(Tile(each, "synthetic") for each in (both, mean)),
            *(Tile(each, "difference", scan) for each in missed),
        ],
    )
    for cut in cuts_of(run, scan)
]
headers = [
    "scan",
    "from both codes",
    "expected from the\nsemantic code alone",
    "both codes\nminus scan",
    "semantic code\nminus scan",
]
picture = draw_panel(
    rows, headers, limit=symmetric_limit(missed), limit_label="difference of intensities, of a range of 1"
)
(out / "reconstruction.png").write_bytes(picture)

edited = images["manipulate"]["images"][0].astype(np.float32)
less, zero, more = edited[0], edited[len(edited) // 2], edited[-1]
changes = [difference(each, zero) for each in (less, more)]
rows = [
    PanelRow(
        cut,
        [
            *(Tile(each, "synthetic") for each in (less, zero, more)),
            *(Tile(each, "difference", zero) for each in changes),
        ],
    )
    for cut in cuts_of(run, zero)
]
steps = json.loads((folder / "tasks" / "manipulate.json").read_text(encoding="utf-8"))["steps"]
headers = [
    f"{-steps[0]:g} steps away from AD",
    "no edit",
    f"{steps[-1]:g} steps toward AD",
    "change, away",
    "change, toward",
]
picture = draw_panel(
    rows, headers, limit=symmetric_limit(changes), limit_label="change of intensities, of a range of 1"
)
(out / "edit.png").write_bytes(picture)
