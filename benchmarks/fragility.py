"""Fragility: the smallest change of a scan that turns its predicted diagnosis, and the drift under changes of the scanner.

    python benchmarks/fragility.py RUN [--scans 60] [--steps 20] [--seeds 3]

RUN is a run folder of `ldae demo`. Linear probes of the semantic code and of components of scans and tissue maps, and networks
of the encoder's shape trained on the labels (benchmarks/supervised.py; of so many seeds the best on the validation subjects),
read the first visits of test subjects with AD or CN.

Smallest change: of any voxel of the brain, in units of its intensity range, by projected gradient descent (Madry et al. 2018)
and bisection. Gradients of tissue maps pass through the fit of their mixture; whether a prediction turned is read from the maps
as they are. Drift: root mean square over the numbers read, in standard deviations over the training scans, and what it does
to predictions. Bold: the interval of the paired difference from the code is on one side of zero.
"""

import argparse
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from nibabel.affines import from_matvec
from nibabel.quaternions import angle_axis2mat
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline
from supervised import fresh_encoder, train
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.contract import LEFT_RIGHT, Preprocessing
from ldae.data.manifest import Record, read_manifest
from ldae.io.plain import from_plain
from ldae.metrics.statistics import Statistic, mean_of, paired_difference, subject_bootstrap
from ldae.models import tissue_maps
from ldae.models.tissue_maps import LEVELS, TissueMaps
from ldae.phantom.cohort import PhantomConfig, draw_cohort
from ldae.phantom.files import image_path
from ldae.phantom.scan import scan_subject
from ldae.phantom.scanner import ScannerConfig, bias_field
from ldae.tasks.probe.baselines import AVERAGE_MM, COMPONENTS
from ldae.tasks.probe.models import Features, fit_probe
from ldae.volume import Volume, read_volume

LEAST, MOST, HALVINGS = 1e-3, 0.2, 7
"""Smallest and largest size of a change, and how often the interval between them is halved."""
FAINTEST = 1e-3
"""Of a voxel of the brain: at 0 it would be background."""
BATCH = 20
Array = npt.NDArray[np.float64]
Views = dict[str, nn.Sequential]


class OpenMaps(TissueMaps):
    """The same tissue maps, with the gradients of maps between whose levels one interpolates."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, D, H, W) to (B, 3, D, H, W)."""
        inside = (x > 0).any(dim=0).flatten()
        flat = x.flatten(1)[:, inside]
        brain, level = (flat > 0).float(), (flat * (LEVELS - 1)).clamp_min(1)
        low = level.detach().floor().long().clamp(1, LEVELS - 2)
        above = (level - low) * brain
        counts = flat.new_zeros(len(flat), LEVELS)
        counts = counts.scatter_add(1, low, brain - above).scatter_add(1, low + 1, above)
        table = tissue_maps._probabilities(counts)
        first, second = (table.gather(2, each[:, None].expand(-1, self.CHANNELS, -1)) for each in (low, low + 1))
        smooth = first * (brain - above)[:, None] + second * above[:, None]
        exact = super().forward(flat[:, None, :, None, None])[..., 0, 0]
        maps = x.new_zeros(len(x), self.CHANNELS, x[0].numel())
        maps[:, :, inside] = exact + smooth - smooth.detach()
        return maps.reshape(len(x), self.CHANNELS, *x.shape[2:])


class Averages(nn.Module):
    """Averages over cubes of volumes and their mirror images, one side, as the probes' baselines read them."""

    def __init__(self, edge: int) -> None:
        super().__init__()
        self.edge = edge

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, S)."""
        half = ((x + x.flip(LEFT_RIGHT)) / 2)[:, :, : (x.shape[LEFT_RIGHT] + 1) // 2]
        return avg_pool3d(half, self.edge, ceil_mode=True).flatten(1)


@dataclass(frozen=True)
class Method:
    """What reads a view of scans: numbers (B, S), their spread over the training scans, a logit of AD and years, (B, 1)."""

    name: str
    view: str
    numbers: nn.Module
    spread: Tensor
    logit: nn.Module
    years: nn.Module


@torch.no_grad()
def through(network: nn.Module, x: Tensor) -> Tensor:
    """Outputs, (N, ...)."""
    return torch.cat([network(part) for part in x.split(BATCH)])


def as_layers(pipeline: Pipeline) -> tuple[nn.Module, nn.Linear]:
    """The principal components that a linear probe takes, if any, and all of the probe, of what comes before them."""

    def layer(weight: Array, bias: Array) -> nn.Linear:
        found = nn.Linear(weight.shape[1], weight.shape[0])
        found.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        return found.requires_grad_(False)

    *before, scaler, model = (step for _, step in pipeline.steps)
    weight = model.coef_.reshape(1, -1) / scaler.scale_
    bias, turned = model.intercept_ - weight @ scaler.mean_, nn.Identity()
    for reduction in before:
        turned = layer(reduction.components_, -reduction.components_ @ reduction.mean_)
        weight = weight @ reduction.components_
        bias = bias - weight @ reduction.mean_
    return turned, layer(weight, bias)


def tasks(table: pd.DataFrame) -> dict[str, tuple[Array, npt.NDArray[np.int64]]]:
    """Values, and the rows that have one, of diagnosis and age."""
    sick, patients = (table["diagnosis"] == "AD").to_numpy(dtype=float), table["diagnosis"].isin(["CN", "AD"])
    return {
        "binary": (sick, np.flatnonzero(patients)),
        "regression": (table["age"].to_numpy(), np.flatnonzero(table["age"].notna())),
    }


def probes(model: LatentDiffusionAutoencoder, table: pd.DataFrame, seen: dict[str, Tensor]) -> list[Method]:
    """Linear probes, trained on the views of training and validation subjects."""
    encoder, voxel = deepcopy(model.networks.semantic_encoder), model.config.preprocessing.voxel_size_mm
    encoder.view = nn.Identity()
    averages = Averages(round(AVERAGE_MM / voxel / model.config.semantic_encoder.volume.average))
    found = []
    for name, view, read, components in (
        ("semantic code", "tissue maps", encoder, None),
        ("components of scans", "scans", averages, COMPONENTS),
        ("components of tissue maps", "tissue maps", averages, COMPONENTS),
    ):
        features, layers = through(read, seen[view]), []
        for kind, (values, known) in tasks(table).items():
            subjects = table["participant_id"][known].tolist()
            given = Features(features[known].double().numpy(), components=components)
            probe = fit_probe(given, values[known], subjects, kind)
            layers.append(as_layers(probe.pipeline))
        (turned, logit), (_, years) = layers
        spread = through(turned, features).std(dim=0)
        numbers, logit, years = (nn.Sequential(read, each) for each in (turned, logit, years))
        found.append(Method(name, view, numbers, spread, logit, years))
    return found


def networks(model: LatentDiffusionAutoencoder, table: pd.DataFrame, seen: Tensor, view: str, seeds: int) -> Method:
    """Networks of the encoder's shape, trained on the labels; of several seeds the best on the validation subjects."""
    best = []
    for kind, (values, known) in tasks(table).items():
        at = {split: known[table["split"][known] == split] for split in ("train", "validation")}
        parts = {split: seen[rows] for split, rows in at.items()}
        labels = {split: torch.tensor(values[rows], dtype=torch.float32) for split, rows in at.items()}
        trained = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            encoder = fresh_encoder(model, False, parts["train"])
            trained.append(train(encoder, parts, labels, seed, kind == "binary"))
        best.append(min(trained, key=lambda each: each[1])[0].requires_grad_(False))
    logit, years = best
    return Method(f"network, {view}", view, logit[0], through(logit[0], seen).std(dim=0), logit, years)


def descend(
    logit: nn.Module, x: Tensor, start: Tensor, size: Tensor, side: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Scans with each voxel moved by at most their size, (B,), and whether the sign of their logit turned."""
    size = size[:, None, None, None, None]
    lowest, highest = (x - size).clamp_min(FAINTEST), (x + size).clamp_max(1)
    moved = torch.where(x > 0, start.clamp(lowest, highest), 0.0)
    turned, left = torch.zeros(len(x), dtype=torch.bool), torch.arange(len(x))
    for step in range(steps + 1):
        part = moved[left].requires_grad_()
        margin = logit(part)[:, 0] * side[left]
        turned[left[margin <= 0]] = True
        if step == steps or turned.all():
            break
        (gradient,) = torch.autograd.grad(margin.sum(), part)
        kept = margin > 0
        left = left[kept]
        found = part.detach()[kept] - size[left] * (1 - step / steps) * gradient[kept].sign()
        moved[left] = torch.where(x[left] > 0, found.clamp(lowest[left], highest[left]), 0.0)
    return moved, turned


def smallest_change(logit: nn.Module, x: Tensor, side: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Scans whose prediction turned, and the size of their change, (N,); infinite where none was found."""
    best, found = x.clone(), torch.full((len(x),), torch.inf)
    low, high = torch.full((len(x),), LEAST), torch.full((len(x),), MOST)
    size = high.clone()
    for _ in range(HALVINGS + 1):
        moved, turned = descend(logit, x, best, size, side, steps)
        best[turned], found[turned] = moved[turned], size[turned]
        high, low = torch.where(turned, size, high), torch.where(turned, low, size)
        size = (low * high).sqrt()
    return best, found


def changes(rng: np.random.Generator, contract: Preprocessing) -> dict[str, Callable[[Volume], Volume]]:
    """Changes of a scan by the scanner, or by what is done before it comes here."""
    centre = np.array(contract.centre_mm)

    def noise(scan: Volume) -> Volume:
        drawn = 3**0.5 * ScannerConfig().noise_sd * rng.standard_normal((2, *scan.data.shape))
        return replace(scan, data=np.where(scan.data > 0, np.hypot(scan.data + drawn[0], drawn[1]), 0))

    def turned(scan: Volume) -> Volume:
        turn = angle_axis2mat(np.deg2rad(3), rng.standard_normal(3))
        return replace(scan, affine=from_matvec(turn, centre - turn @ centre) @ scan.affine)

    def biased(scan: Volume) -> Volume:
        return replace(scan, data=scan.data * bias_field(scan.grid, 0.1 * rng.standard_normal(9)))

    return {
        "noise doubled": noise,
        "bias field, coefficients of 0.1": biased,
        "turned by 3 degrees": turned,
        "gamma 0.8": lambda scan: replace(scan, data=scan.data**0.8),
        "gamma 1.25": lambda scan: replace(scan, data=scan.data**1.25),
    }


def scanned_again(run: Path, records: list[Record], site: str) -> list[Volume]:
    """The same visits on another scanner, all else as it was: phantoms can be scanned again."""
    plain = json.loads((run / "cohort" / "phantom_config.json").read_text())
    del plain["generator_version"]
    config, found = from_plain(PhantomConfig, plain, where="phantom_config.json"), []
    known = {subject.participant_id: subject for subject in draw_cohort(config)}
    with TemporaryDirectory() as folder:
        for record in records:
            subject = known[record.participant_id]
            session = next(each for each in subject.sessions if each.session_id == record.session_id)
            subject = replace(subject, site=site, sessions=(session,))
            scan_subject(Path(folder), config, (subject, None))
            found.append(read_volume(Path(folder) / image_path(subject, session, config.modality)))
    return found


def median_of(values: Array) -> Statistic:
    """Median of values, (N,)."""
    order = np.argsort(values)

    def statistic(weights: Array) -> Array:
        share = weights[:, order].cumsum(axis=1) / weights.sum(axis=1, keepdims=True)
        median: Array = values[order][(share >= 0.5).argmax(axis=1)]
        return median

    return statistic


def interval(of: Callable[[Array], Statistic], values: Array, less: Array | None = None) -> tuple[float, float, float]:
    """A statistic of subjects' values, or its difference from that of others, and the ends of its 95 % interval."""
    rows, rng = [str(row) for row in range(len(values))], np.random.default_rng(0)
    if less is None:
        found = subject_bootstrap(of(values), rows, seed=rng)
    else:
        found = paired_difference(of(values), of(less), rows, seed=rng)
    return (found.value, *found.ends)


def print_smallest(found: list[Method], views: Views, x: Tensor, records: list[Record], steps: int) -> None:
    """Print the smallest change that turns each method's prediction, beside how well it predicts."""
    sick, ages = np.array([each.diagnosis == "AD" for each in records]), np.array([each.age for each in records])
    print(
        "| method | AUC | correct | age error | abs logit | smallest change | code minus it | none | holds | random |"
    )
    print(f"|{'---|' * 10}")
    sizes: list[Array] = []
    for method in found:
        view, seen = views[method.view], through(views[method.view], x)
        logits, years = through(method.logit, seen)[:, 0], through(method.years, seen)[:, 0].numpy()
        opened = nn.Sequential(*(OpenMaps() if isinstance(part, TissueMaps) else part for part in view), method.logit)
        pairs = zip(x.split(BATCH), logits.sign().split(BATCH), strict=True)
        searched = zip(*(smallest_change(opened, part, side, steps) for part, side in pairs), strict=True)
        moved, size = (torch.cat(parts) for parts in searched)
        crossed, capped = size.isfinite(), size.clamp_max(MOST)
        coins = 2 * torch.randint(2, x.shape, generator=torch.Generator().manual_seed(0)) - 1
        noisy = (x + coins * capped[:, None, None, None, None]).clamp(FAINTEST, 1)
        turned = [through(method.logit, through(view, part * (x > 0)))[:, 0] * logits <= 0 for part in (moved, noisy)]
        holds, random = (float(each[crossed].double().mean()) for each in turned)
        sizes.append(capped.double().numpy())
        value, low, high = interval(median_of, sizes[-1])
        apart = interval(median_of, sizes[0], sizes[-1])
        print(
            f"| {method.name} | {roc_auc_score(sick, logits):.3f} | {((logits.numpy() > 0) == sick).mean():.2f} "
            f"| {np.abs(years - ages).mean():.2f} | {logits.abs().median():.2f} "
            f"| {value:.4f} [{low:.4f}, {high:.4f}] | {apart[0]:+.4f} [{apart[1]:.4f}, {apart[2]:.4f}] "
            f"| {1 - crossed.double().mean():.2f} | {holds:.2f} | {random:.2f} |",
            flush=True,
        )


def print_drift(found: list[Method], views: Views, x: Tensor, changed: dict[str, Tensor]) -> None:
    """Print how far numbers and predictions move."""

    def moves(method: Method, before: Tensor, after: Tensor) -> list[Array]:
        parts = (method.numbers, method.logit, method.years)
        y, logit, years = ((through(part, after), through(part, before)) for part in parts)
        apart = [(y[0] - y[1]) / method.spread, logit[0].sigmoid() - logit[1].sigmoid(), years[0] - years[1]]
        return [each.square().mean(dim=1).sqrt().double().numpy() for each in apart]

    before = {name: through(view, x) for name, view in views.items()}
    rows = {}
    for name, scans in changed.items():
        after = {view: through(network, scans) for view, network in views.items()}
        rows[name] = [moves(method, before[method.view], after[method.view]) for method in found]
    for index, title in enumerate(("numbers, standard deviations", "probability of AD", "age, years")):
        print(f"\n| {title} | {' | '.join(method.name for method in found)} |\n|---|{'---|' * len(found)}")
        for name, of in rows.items():
            cells = []
            for each in of:
                value, low, high = interval(mean_of, each[index])
                _, least, most = interval(mean_of, of[0][index], each[index])
                bold = "**" if each is not of[0] and (least > 0 or most < 0) else ""
                cells.append(f"{bold}{value:.3f}{bold} [{low:.3f}, {high:.3f}]")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Train, attack, change, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--scans", type=int, default=60)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    model = LatentDiffusionAutoencoder.from_pretrained(options.run / "model", device="cpu", precision="fp32")
    pool = nn.AvgPool3d(model.config.semantic_encoder.volume.average)
    views = {"scans": nn.Sequential(pool), "tissue maps": nn.Sequential(TissueMaps(), pool)}
    manifest = read_manifest(options.run / "manifest.tsv")
    test = manifest.in_split("test")
    first = ~test.table["participant_id"].duplicated() & test.table["diagnosis"].isin(["CN", "AD"])
    records = list(test.select(first.to_numpy()).records)[: options.scans]

    def prepared(scans: list[Volume]) -> Tensor:
        return torch.stack([torch.from_numpy(model.prepare(scan).data)[None] for scan in scans])

    scans = [read_volume(record.image) for record in records]
    x, rng = prepared(scans), np.random.default_rng(0)
    made = changes(rng, model.config.preprocessing)
    changed = {name: prepared([change(scan) for scan in scans]) for name, change in made.items()}
    changed["another scanner"] = prepared(scanned_again(options.run, records, "site-99"))
    training = manifest.select((manifest.table["split"] != "test").to_numpy())
    rows = [[through(view, prepared([read_volume(r.image)])) for view in views.values()] for r in training.records]
    seen = {name: torch.cat(parts) for name, parts in zip(views, zip(*rows, strict=True), strict=True)}
    found = probes(model, training.table, seen)
    found += [networks(model, training.table, parts, view, options.seeds) for view, parts in seen.items()]
    print_drift(found, views, x, changed)
    print_smallest(found, views, x, records, options.steps)


if __name__ == "__main__":
    main()
