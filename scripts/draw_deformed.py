"""Draw a decoded edit above the deformed one, as in `python scripts/draw_deformed.py SCAN docs/pictures/deformed.png`.

SCAN is a brain in template space; those of `ldae cohort synth --varied --anatomy MAPS` show no person.
"""

import sys
from dataclasses import replace
from pathlib import Path

import ldae
from ldae.io.model_names import find_direction
from ldae.report.plots.slice_panels import PanelRow, Tile, choose_cuts, draw_panel
from ldae.tasks.edit.deformation import deform, find_displacement
from ldae.tasks.edit.direction import manipulate_codes
from ldae.tasks.probe.linear import LinearProbe

NAME, STEPS = "ldae-t1-3mm", (-2, 0, 2)

model = ldae.from_pretrained(NAME, precision="fp32")
step = LinearProbe.load(find_direction("ventricles", NAME)).step
volume = ldae.read_volume(sys.argv[1])
scan, codes = model.prepare(volume).data, model.encode(volume, preprocess=False)
decoded = model.decode_images([manipulate_codes(codes, step, amount) for amount in STEPS])
deformed = [deform(scan, find_displacement(decoded[1], image)) for image in decoded]
contract = model.config.preprocessing
rows = []
cuts = choose_cuts(scan.shape, ("axial", "coronal"), voxel_size_mm=contract.voxel_size_mm, centre_mm=contract.centre_mm)
for cut in cuts:
    for name, images in (("decoded", decoded), ("deformed", deformed)):
        tiles = [Tile(image, "original" if image is scan else "synthetic") for image in images]
        rows.append(PanelRow(replace(cut, label=f"{name}, {cut.label}"), tiles))
headers = ["2 steps to smaller\nventricles", "no step", "2 steps to larger\nventricles"]
Path(sys.argv[2]).write_bytes(draw_panel(rows, headers))
