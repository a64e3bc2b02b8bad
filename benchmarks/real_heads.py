"""What a model makes of raw heads that it was not trained on, and of the same heads scanned otherwise.

    python benchmarks/real_heads.py HEADS --volumes VOLUMES --out FOLDER [--model ldae-t1-3mm] [--workers 2]

HEADS is a manifest of raw T1-weighted heads, one a subject; VOLUMES a table (CSV) of their true volumes, with a column
`participant_id`. Each head is altered (turned by 10 degrees, other voxels, another bias field), and both are taken from raw to
code. Printed are: how many altered heads are nearest to their own original, the cosine of their centred codes, how well both
codes give the scan back at the model's grid, what edits along the direction `ventricles` change, and how well a ridge on the
codes tells the volumes of the one that is left out.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ldae
from ldae.atlas import load_template
from ldae.io.model_names import find_direction
from ldae.metrics.images import compare_images
from ldae.metrics.volumetry import known_volumes
from ldae.phantom.scanner import bias_field
from ldae.prepare.check.shape_spread import ventricle_ml
from ldae.prepare.preprocess.intake import open_scans
from ldae.tasks.edit.deformation import deform, find_displacement
from ldae.tasks.edit.direction import manipulate_codes
from ldae.tasks.probe.linear import LinearProbe
from ldae.volume import Grid, Volume, read_volume, write_volume

ALPHAS = np.logspace(-1, 5, 13)


def altered(scan: Volume, seed: int) -> Volume:
    """The same head turned by 10 degrees, on other voxels, under another bias field."""
    rng = np.random.default_rng(seed)
    axis = rng.standard_normal(3)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(10 * axis / np.linalg.norm(axis), degrees=True).as_matrix()
    biased = Volume(scan.data * bias_field(scan.grid, 0.15 * rng.standard_normal(9)), turn @ scan.affine)
    size = np.array(scan.grid.shape) * scan.spacing
    spacing = np.array(scan.spacing) * rng.uniform(0.9, 1.3, 3)
    affine = scan.affine @ np.diag([*(spacing / scan.spacing), 1.0])
    d, h, w = np.ceil(size / spacing).astype(int).tolist()
    return biased.resample_to(Grid((d, h, w), affine))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", type=Path)
    parser.add_argument("--volumes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="ldae-t1-3mm")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    model = ldae.from_pretrained(options.model, precision="fp32")
    files = []
    for seed, record in enumerate(ldae.read_manifest(options.heads).records):
        scan = read_volume(record.image)
        for session, each in (("1", scan), ("2", altered(scan, seed))):
            path = options.out / f"{record.participant_id}_ses-{session}_T1w.nii.gz"
            files.append(path if path.is_file() else write_volume(each, path))
    opened = open_scans(files, options.out, contract=lambda: model.config.preprocessing, workers=options.workers)
    print(f"raw to code: {len(opened.manifest)} of {len(files)}", opened.failures or "")
    codes = model.encode(list(opened.manifest.records))
    y = pd.DataFrame([each.numpy() for each in codes])
    y.index = pd.MultiIndex.from_frame(opened.manifest.table[["participant_id", "session_id"]])
    first, second = (y.xs(f"ses-{session}", level=1) for session in "12")
    both = first.index.intersection(second.index)
    centred = [(each.loc[both] - first.mean()).to_numpy() for each in (first, second)]
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in centred]
    cosine = unit[1] @ unit[0].T
    nearest = (cosine.argmax(axis=1) == np.arange(len(both))).sum()
    print(f"altered heads nearest to their own: {nearest} of {len(both)}")
    print(f"cosine of centred codes: median {np.median(np.diag(cosine)):.3f}, lowest {np.diag(cosine).min():.3f}")

    records = [record for record in opened.manifest.records if record.session_id == "ses-1"]
    images = np.stack([model.prepare_record(record).data for record in records])
    chosen = [each for each, record in zip(codes, opened.manifest.records, strict=True) if record.session_id == "ses-1"]
    latents = model.compress(torch.from_numpy(images)[:, None])
    mean = model.decompress(torch.zeros_like(latents[:1]))
    for name, found in (
        ("both codes", model.decode_images(chosen)),
        ("compression", model.decompress(latents)),
        ("mean image of training", np.repeat(mean, len(images), axis=0)),
    ):
        agreement = compare_images(found, images).mean()
        print(
            f"{name}: SSIM {agreement['ssim']:.3f}, in the brain {agreement['ssim_brain']:.3f}, MSE {agreement['mse']:.5f}"
        )

    template = load_template(1.0).resample_to(model.config.preprocessing.grid)
    inside = binary_dilation(template.ventricles.data > 0.3, iterations=4) & (template.brain_mask.data > 0.5)
    outside = (template.brain_mask.data > 0.5) & ~inside
    step = LinearProbe.load(find_direction("ventricles", options.model)).step
    found = {"decoded": [], "deformed": []}
    for each, image, record in zip(chosen, images, records, strict=True):
        decoded = list(model.decode_images([manipulate_codes(each, step, amount) for amount in (-2, -1, 0, 1, 2)]))
        deformed = [deform(image, find_displacement(decoded[2], edited)) for edited in decoded]
        for name, edited in (("decoded", decoded), ("deformed", deformed)):
            volumes = [Volume(data, model.config.preprocessing.grid.affine) for data in edited]
            measured = (
                [ventricle_ml(volume) for volume in volumes],
                [known_volumes(v)["ventricles_ml"] for v in volumes],
            )
            change = np.abs(edited[-1] - edited[0])
            found[name].append((*measured, change[outside].mean() / change[inside].mean()))
            print(record.participant_id, name, *(np.round(each, 1).tolist() for each in measured))
    for name, edits in found.items():
        for measure, index in (("by Otsu's threshold", 0), ("by fluid fractions", 1)):
            rising = sum(bool((np.diff(each[index]) > 0).all()) for each in edits)
            print(
                f"{name} edits along ventricles, -2 to 2: volume {measure} rises at every step in {rising} of {len(edits)}"
            )
        ratio = np.mean([each[2] for each in edits])
        print(f"{name}: change 12 mm and more outside the template's ventricles over change inside {ratio:.3f}")

    truth = pd.read_csv(options.volumes).set_index("participant_id").loc[[record.participant_id for record in records]]
    rivals = {"code": first.loc[truth.index].to_numpy(), "image components": images.reshape(len(images), -1)}
    for column in truth.columns:
        row = []
        for name, features in rivals.items():
            steps = [PCA(len(images) - 2)] if name != "code" else []
            ridge = make_pipeline(*steps, StandardScaler(), RidgeCV(ALPHAS))
            told = cross_val_predict(ridge, features, truth[column], cv=LeaveOneOut())
            row.append(f"{name} R2 {r2_score(truth[column], told):+.2f}")
        print(f"{column}, one left out: {', '.join(row)}")


if __name__ == "__main__":
    main()
