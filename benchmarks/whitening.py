"""How codes should be whitened: what volumes they tell, how few labels tell age, and how alike two scans of one head are.

    python benchmarks/whitening.py TRAIN TEST HEADS [--model ldae-t1-3mm]

TRAIN and TEST are folders of `ldae cohort synth --varied`, subjects of TRAIN with several sessions; HEADS is a manifest of
prepared scans, two sessions a subject. Principal components of the training scans' tissue maps, as the model's linear path
reads them, stand for its code: training moves that little.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, ShuffleSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ldae
from ldae.contract import LEFT_RIGHT
from ldae.models.components import principal_components
from ldae.models.whitening import Whitening
from ldae.tasks.probe.models import CommonScaler

PENALTIES = np.logspace(-1, 5, 13)


def probes():
    """A ridge on features scaled each by itself, and one on features scaled alike; the better is shown."""
    return [make_pipeline(scaler, RidgeCV(PENALTIES)) for scaler in (StandardScaler(), CommonScaler())]


def told(features, values):
    """R2 of five folds."""
    folds = KFold(5, shuffle=True, random_state=0)
    return max(r2_score(values, cross_val_predict(probe, features, values, cv=folds)) for probe in probes())


def from_few(features, values, labels):
    """Mean correlation over 20 draws of so many labelled subjects."""
    splits = list(ShuffleSplit(20, train_size=labels, random_state=1).split(features))
    return max(
        np.mean([np.corrcoef(p.fit(features[a], values[a]).predict(features[b]), values[b])[0, 1] for a, b in splits])
        for p in probes()
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "test", "heads"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--model", default="ldae-t1-3mm")
    options = parser.parse_args()
    model = ldae.from_pretrained(options.model, precision="fp32")
    encoder = model.networks.semantic_encoder

    def read(records):
        """What the linear path reads of scans, (N, V)."""
        rows = []
        for record in records:
            view = encoder.view(torch.from_numpy(model.prepare_record(record).data)[None, None])
            rows.append(encoder.linear.averaged((view + view.flip(LEFT_RIGHT)) / 2))
        return torch.cat(rows)

    scans = {name: ldae.read_manifest(getattr(options, name) / "manifest.tsv").records for name in ("train", "test")}
    scans["heads"] = ldae.read_manifest(options.heads).records
    values = {name: read(records) for name, records in scans.items()}
    truth = pd.read_csv(options.test / "phantom_truth.tsv", sep="\t").set_index("participant_id")
    truth = truth.loc[[record.participant_id for record in scans["test"]]]
    truth["hippocampi_ml"] = truth["hippocampus_left_ml"] + truth["hippocampus_right_ml"]
    targets = [truth[name].to_numpy() for name in ("ventricles_ml", "gm_ml", "wm_ml", "hippocampi_ml", "age")]
    subjects = [record.participant_id for record in scans["train"]]
    heads = pd.MultiIndex.from_tuples([(record.participant_id, record.session_id) for record in scans["heads"]])

    def alike(codes):
        """Median and lowest cosine of two scans of one head, centred on the mean of the first."""
        table = pd.DataFrame(codes, index=heads).sort_index()
        one, two = (table.xs(session, level=1).to_numpy() for session in heads.unique(level=1).sort_values())
        one, two = one - one.mean(axis=0), two - one.mean(axis=0)
        cosine = (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
        return f"{np.median(cosine):.3f}, {cosine.min():.3f}"

    mean = values["train"].mean(dim=0)
    for count in (128, 256):
        components, variance = principal_components((values["train"] - mean).double(), count)
        for spread, degrees in ((0.5, (0, 0.5, 1)), (1.0, (0, 0.25, 0.5, 0.75, 1))):
            scale = variance ** (spread / 2 - 0.5)
            codes = {name: ((each - mean).double() @ components.T * scale).float() for name, each in values.items()}
            for degree in degrees:
                whitening = Whitening(count)
                whitening.fit(codes["train"], degree, subjects)
                found = {name: whitening(each).numpy() for name, each in codes.items()}
                row = [told(found["test"], each) for each in targets]
                few = [from_few(found["test"], targets[-1], labels) for labels in (30, 60)]
                shown = " | ".join(f"{each:.3f}" for each in (*row[:4], *few))
                print(f"| {count} | {spread:g} | {degree:g} | {shown} | {alike(found['heads'])} |", flush=True)


if __name__ == "__main__":
    main()
