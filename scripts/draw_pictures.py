"""Draw the pictures of README and guide with the shipped model, as in `python scripts/draw_pictures.py heads docs/pictures`.

The heads show no person: `ldae cohort synth --out heads --anatomy MAPS --subjects 24 --voxel-size 3 --min-motion 1.5
--seed 11`, where MAPS are label maps that the model never saw.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

import ldae
from ldae.io.model_names import find_direction
from ldae.report.plots.slice_panels import PanelRow, Tile, choose_cuts, draw_panel, symmetric_limit
from ldae.tasks.edit.deformation import deform, find_displacement
from ldae.tasks.edit.direction import manipulate_codes
from ldae.tasks.probe.linear import LinearProbe

NAME, STEPS = "ldae-t1-3mm", (-2, 0, 2)

heads, out = Path(sys.argv[1]), Path(sys.argv[2])
model = ldae.from_pretrained(NAME, precision="fp32")
contract = model.config.preprocessing
step = LinearProbe.load(find_direction("ventricles", NAME)).step

# Three visits of the head whose ventricles grow most.
truth = pd.read_csv(heads / "phantom_truth.tsv", sep="\t").groupby("participant_id")["ventricles_ml"]
growth = (truth.max() - truth.min())[truth.count() > 2]
visits = list(ldae.read_manifest(heads / "manifest.tsv")[growth.idxmax()])
visits = [visits[0], visits[len(visits) // 2], visits[-1]]
first, missing, last = (model.prepare_record(visit).data for visit in visits)
weight = (visits[1].months - visits[0].months) / (visits[2].months - visits[0].months)
codes = model.encode(visits)

before, between, after = model.decode_images([codes[0], ldae.interpolate(codes[0], codes[2], weight), codes[2]])
predicted = between + (1 - weight) * (first - before) + weight * (last - after)
(expected,) = model.decompress(
    model.expected_latents(model.draw_noise(1, torch.Generator().manual_seed(0)), codes[0].semantic[None])
)
decoded = model.decode_images([manipulate_codes(codes[0], step, amount) for amount in STEPS])
smaller, _, larger = deformed = [deform(first, find_displacement(decoded[1], image)) for image in decoded]


def cut_at(plane, label):
    """The section of a row, labelled."""
    (cut,) = choose_cuts(first.shape, (plane,), voxel_size_mm=contract.voxel_size_mm, centre_mm=contract.centre_mm)
    return replace(cut, label=f"{label}, {cut.label}")


differences = []


def change(image, reference):
    """A tile of the difference, whose scale all rows share."""
    differences.append(image - reference)
    return Tile(differences[-1], "difference", reference)


scan = Tile(first, "original")
months = [f"month {visit.months:.0f}" for visit in visits]
rows = [
    PanelRow(
        cut_at("axial", "scan to codes and back"),
        [scan, Tile(before, "synthetic"), Tile(expected, "synthetic"), change(before, first), change(expected, first)],
        [
            "scan",
            "from both codes",
            "from the semantic\ncode alone",
            "both codes\nminus scan",
            "semantic code\nminus scan",
        ],
    ),
    PanelRow(
        cut_at("axial", "edit: ventricles"),
        [Tile(smaller, "synthetic"), scan, Tile(larger, "synthetic"), change(smaller, first), change(larger, first)],
        ["2 steps smaller", "scan", "2 steps larger", "smaller\nminus scan", "larger\nminus scan"],
    ),
    PanelRow(
        cut_at("axial", "missing visit"),
        [
            scan,
            Tile(predicted, "synthetic"),
            Tile(missing, "original"),
            change(predicted, first),
            change(missing, first),
        ],
        [
            months[0],
            f"{months[1]}, predicted\n(last visit: {months[2]})",
            f"{months[1]}, true",
            "predicted\nchange",
            "true\nchange",
        ],
    ),
]
limit = symmetric_limit(differences)
label = "difference of intensities, of a range of 1: red is brighter, blue is darker"
(out / "hero.png").write_bytes(draw_panel(rows, [""] * 5, limit=limit, limit_label=label))

rows = [
    PanelRow(cut_at(plane, name), [Tile(image, "original" if image is first else "synthetic") for image in images])
    for plane in ("axial", "coronal")
    for name, images in (("decoded", decoded), ("deformed", deformed))
]
headers = ["2 steps to smaller\nventricles", "no step", "2 steps to larger\nventricles"]
(out / "deformed.png").write_bytes(draw_panel(rows, headers))
