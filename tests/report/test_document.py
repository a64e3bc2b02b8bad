"""The report of a fabricated run folder, laid out exactly as `ldae demo` leaves one."""

import base64
import html.parser
import io
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy import ndimage

from ldae.data.manifest import read_manifest, write_manifest
from ldae.errors import TaskError
from ldae.evaluation.information import CodeSpread, CodeUse
from ldae.evaluation.statistics import Interval
from ldae.io.files import write_json
from ldae.io.template import load_template
from ldae.report import write_probe_report, write_report
from ldae.report.blocks import Beside, Text
from ldae.report.prediction import probe_section
from ldae.report.run_folder import STAGES
from ldae.tasks.diagnose import DiagnoseResult, ImageUse
from ldae.tasks.embeddings import Embeddings, embeddings_of
from ldae.tasks.evaluate_manipulation import ManipulationFindings
from ldae.tasks.evaluate_probe import evaluate_probe
from ldae.tasks.interpolate import METHODS
from ldae.tasks.manipulate import DEFAULT_STEPS, ManipulateResult
from ldae.tasks.probe_report import ProbeSettings
from ldae.tasks.reconstruct import ReconstructResult
from ldae.tasks.study import summarise_probe
from ldae.tasks.targets import choose_target

WARNINGS = re.compile(r'<p class="warning">(.*?)</p>', re.S)
NASTY = 'sub-<script>alert("1")</script>&$\\frac$'


# --- A run folder from seeded data -----------------------------------------------------------------------------------


def fabricate_run(folder: Path, *, seed: int = 0) -> Path:
    """A run folder with brains of the MNI template and figures drawn from a generator."""
    rng = np.random.default_rng(seed)
    keys = [f"sub-{n:04d}_ses-M{m:02d}" for n in range(1, 13) for m in (0, 12, 24)]
    keys[0] = f"{NASTY}_ses-M00"
    manifest = fabricate_cohort(folder, rng)
    brains = Brains(rng)
    results = {
        "wall_seconds": 641.7,
        "peak_memory_gib": 3.4567,
        "device": "cpu",
        "precision": "bfloat16",
        "model": "0123456789abcdef0123",
        "request": {"quick": False, "subjects": 160, "seed": seed},
        "n_subjects": len(manifest.subjects),
        "n_scans": len(manifest),
        "n_test_subjects": 12,
    }
    results |= fabricate_reconstruction(folder, keys, brains, rng)
    results["diagnose"] = fabricate_code_use(folder)
    results["probe"] = {name: fabricate_probe(folder, name, rng) for name in ("diagnosis", "age")}
    results["manipulate"] = fabricate_manipulation(folder, keys, brains)
    results["interpolate"] = fabricate_interpolation(folder, brains)
    save_arrays(
        folder / "tasks" / "sample.npz",
        original=brains.scan(),
        variations=np.stack([brains.synthetic(scale=s) for s in (0.99, 1.0, 1.01)]),
        unconditional=np.stack([brains.synthetic(scale=s) for s in (0.95, 1.0, 1.05)]),
    )
    write_json(folder / "tasks" / "sample.json", {"key": keys[1], "seed": seed})
    for index, stage in enumerate(("compression", "denoiser", "representation")):
        fabricate_stage(folder / stage, index, rng)
    write_json(
        folder / "run.json",
        {
            "config": {
                "preprocessing": {"shape": [32, 40, 32], "voxel_size_mm": 5.0, "centre_mm": [0.5, -16.5, 5.5]},
                "representation": {"semantic_encoder": {"volume": {"semantic_width": 128}}},
                "sampling": {"steps": 20, "corrections": 1},
                "seed": seed,
            },
            "manifest": {"path": str(manifest.path), "sha256": manifest.sha256},
            "seed": seed,
            "versions": {"ldae": "0.1.0", "torch": "2.13.0"},
        },
    )
    results["skipped"] = {}
    write_json(folder / "results.json", results)
    return folder


class Brains:
    """Template brains that grow, shrink, blur and change their ventricles."""

    def __init__(self, rng: np.random.Generator) -> None:
        template = load_template(5.0)
        self.rng = rng
        self.t1 = np.clip(template.t1.data / np.percentile(template.t1.data[template.t1.data > 0], 99.5), 0, 1)
        self.ventricles = ndimage.gaussian_filter(template.ventricles.data, 0.8)

    def scan(self, *, scale: float = 1.0, ventricles: float = 0.0, noise: float = 0.02) -> np.ndarray:
        image = np.clip(self.t1 * (1 - ventricles * self.ventricles), 0, 1)
        centre = (np.array(image.shape) - 1) / 2
        image = ndimage.affine_transform(image, np.eye(3) / scale, offset=centre - centre / scale, order=1)
        return np.where(image > 0.02, np.clip(image + noise * self.rng.normal(size=image.shape), 0, 1), 0)

    def synthetic(self, *, scale: float = 1.0, ventricles: float = 0.0, blur: float = 0.5) -> np.ndarray:
        return ndimage.gaussian_filter(self.scan(scale=scale, ventricles=ventricles, noise=0.0), blur)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{name: np.asarray(array).astype(np.float16) for name, array in arrays.items()})


def fabricate_cohort(folder: Path, rng: np.random.Generator) -> object:
    rows = []
    for n in range(1, 41):
        split = "test" if n <= 12 else "validation" if n <= 16 else "train"
        start = rng.uniform(55, 90)
        for month in (0, 12, 24):
            rows.append(
                {
                    "participant_id": f"sub-{n:04d}",
                    "session_id": f"ses-M{month:02d}",
                    "image": f"sub-{n:04d}_{month}.nii.gz",
                    "age": round(start + month / 12, 2),
                    "sex": "FM"[n % 2],
                    "diagnosis": ("CN", "MCI", "AD")[n % 3],
                    "months": float(month),
                    "split": split,
                }
            )
    write_manifest(pd.DataFrame(rows), folder / "manifest.tsv")
    write_json(folder / "cohort" / "dataset_description.json", {"GeneratedBy": [{"Name": "ldae phantom"}]})
    return read_manifest(folder / "manifest.tsv", check_images=False)


def fabricate_reconstruction(folder: Path, keys: list[str], brains: Brains, rng: np.random.Generator) -> dict:
    def metrics(ssim: float, mse: float) -> dict[str, float]:
        return {"ssim": ssim, "ssim_brain": ssim - 0.08123, "mse": mse, "psnr": -10 * np.log10(mse)}

    result = ReconstructResult(
        steps=20,
        solver="bdia, 20 steps",
        scans=len(keys),
        both=metrics(0.93123, 0.00123),
        semantic_only=metrics(0.84567, 0.00567),
        compression=metrics(0.93345, 0.00121),
        mean_image=metrics(0.79123, 0.00891),
        round_trip_rms=0.01234,
        per_scan={key: float(value) for key, value in zip(keys, rng.uniform(0.9, 0.95, len(keys)), strict=True)},
        intervals={
            "ssim": interval(0.93123, 0.01),
            "ssim_semantic_only": interval(0.84567, 0.02),
            "below_ceiling": interval(0.00222, 0.0005),
            "above_mean_image": interval(0.05444, 0.01),
        },
    )
    order = sorted(keys, key=result.per_scan.__getitem__)
    result.per_scan[keys[0]] = 0.95001
    shown = [order[18], keys[0], order[0]]
    write_json(folder / "tasks" / "reconstruct.json", asdict(result) | {"shown": shown})
    scans = [brains.scan(scale=scale, ventricles=v) for scale, v in ((1.0, 0.0), (0.95, 0.4), (1.03, 0.8))]
    save_arrays(
        folder / "tasks" / "reconstruct.npz",
        original=np.stack(scans),
        both=np.stack([ndimage.gaussian_filter(scan, 0.4) for scan in scans]),
        semantic_only=np.stack([ndimage.gaussian_filter(scan, 0.9) for scan in scans]),
        compression=np.stack([ndimage.gaussian_filter(scan, 0.35) for scan in scans]),
    )
    names = ("ssim", "mse", "ssim_brain", "psnr")
    return {
        "compression": {name: result.compression[name] for name in names},
        "reconstruct": {
            "steps": 20,
            **{name: result.both[name] for name in names[:3]},
            "ssim_semantic_only": result.semantic_only["ssim"],
            "mse_semantic_only": result.semantic_only["mse"],
            "ssim_mean_image": result.mean_image["ssim"],
            "mse_mean_image": result.mean_image["mse"],
            "round_trip_rms": result.round_trip_rms,
            "intervals": {name: asdict(each) for name, each in result.intervals.items()},
        },
    }


def fabricate_code_use(folder: Path) -> dict:
    shares, misled, left = [0.0123, 0.2456, 0.4567], [-0.1357, -0.3579, -0.5791], [0.0234, 0.0567, 0.0789]

    def around(value: float) -> Interval:
        return Interval(value, value - 0.0311, value + 0.0277)

    def metrics(ssim: float, mse: float) -> dict[str, float]:
        return {"ssim": ssim, "ssim_brain": ssim - 0.07777, "mse": mse, "psnr": -10 * np.log10(mse)}

    result = DiagnoseResult(
        scans=36,
        subjects=12,
        timesteps=[333, 666, 999],
        snr=[0.567, 0.0123, 4.04e-05],
        unexplained={
            "right": [rest * (1 - share) for rest, share in zip(left, shares, strict=True)],
            "shuffled": [rest * (1 - share) for rest, share in zip(left, misled, strict=True)],
            "none": left,
        },
        use=CodeUse(
            "used",
            around(0.2382),
            around(-0.3576),
            around(0.5958),
            list(map(around, shares)),
            list(map(around, misled)),
            [around(own - other) for own, other in zip(shares, misled, strict=True)],
        ),
        spread=CodeSpread(36, 128, 23.456, 14, 121, 0.8765),
        images=ImageUse(
            scans=12,
            steps=20,
            right=metrics(0.84111, 0.00571),
            shuffled=metrics(0.77222, 0.00944),
            none=metrics(0.78333, 0.00888),
            gaps={"ssim": around(0.06889), "ssim_brain": around(0.07123), "mse": Interval(0.00373, 0.00298, 0.00441)},
        ),
    )
    write_json(folder / "tasks" / "diagnose.json", asdict(result))
    images = {name: getattr(result.images, name) for name in ("right", "shuffled", "none")}
    return {
        "verdict": "used",
        **{name: asdict(getattr(result.use, name)) for name in ("share", "shuffled_share", "gap")},
        **asdict(result.spread),
        **{metric: {name: of[metric] for name, of in images.items()} for metric in ("ssim", "ssim_brain", "mse")},
        "image_gaps": {name: asdict(gap) for name, gap in result.images.gaps.items()},
    }


def interval(value: float, width: float) -> Interval:
    return Interval(value, value - width, value + 0.9 * width if value > 1 else min(value + 0.9 * width, 1.0))


def fabricate_probe(folder: Path, name: str, rng: np.random.Generator) -> dict:
    """A probe as the task evaluates and writes it, on features of which it is known what they hold."""
    manifest = read_manifest(folder / "manifest.tsv", check_images=False)
    target = choose_target(manifest, name)
    signal = (target.values - target.values.mean()) / target.values.std()

    def features(noise: float) -> Embeddings:
        values = rng.normal(size=(len(target), 4))
        values[:, 0] = signal + noise * rng.normal(size=len(target))
        return embeddings_of(target.records, values)

    others = {"random_encoder": features(3.0), "latent_pca": features(1.0), "true_volumes": features(0.1)}
    settings = ProbeSettings(resamples=50, permutations=50, by=("sex",), learning_curve=name == "diagnosis")
    report = evaluate_probe(target, features(0.7), others, settings)
    report.write(folder / "tasks")
    return summarise_probe(report)


def fabricate_manipulation(folder: Path, keys: list[str], brains: Brains) -> dict:
    steps = list(DEFAULT_STEPS)
    probability = [float(1 / (1 + np.exp(-(0.2 + 0.9 * s)))) for s in steps]
    change = {
        "ventricles_ml": [2.345 * s for s in steps],
        "hippocampus_left_ml": [-0.1234 * s for s in steps],
        "hippocampus_right_ml": [-0.1134 * s for s in steps],
        "brain_ml": [-6.789 * s for s in steps],
    }
    result = ManipulateResult(steps=steps, predicted=probability, volume_change_ml=change, scans=12)
    shown = [
        {
            "key": keys[index],
            "diagnosis": diagnosis,
            "age": 71.3 + index,
            "predicted": probability,
            "volumes": {name: [20 + v for v in values] for name, values in change.items()},
        }
        for index, diagnosis in ((0, "CN"), (3, "MCI"), (6, None))
    ]
    write_json(folder / "tasks" / "manipulate.json", asdict(result) | {"monotone": result.monotone, "shown": shown})
    base = (0.2, 0.5, 0.7)
    save_arrays(
        folder / "tasks" / "manipulate.npz",
        images=np.stack([[brains.synthetic(ventricles=b + 0.08 * s) for s in steps] for b in base]),
        original=np.stack([brains.scan(ventricles=b) for b in base]),
    )
    return {
        "steps": steps,
        "probability": probability,
        "ventricle_change_ml": change["ventricles_ml"],
        "volume_change_ml": change,
        "monotone": result.monotone,
        "scans": 12,
        "findings": {kind: fabricate_findings(slope) for kind, slope in (("plain", 0.8765), ("projected", 0.1234))},
        "where": {
            "plain": {"changed_share": 0.4321, "effect_correlation": {"real_scans": 0.6543, "given_map": 0.7654}}
        },
    }


def fabricate_findings(slope: float) -> dict:
    return asdict(
        ManipulationFindings(
            steps=list(DEFAULT_STEPS),
            probes={"direction": [0.5] * 7, "age": [70.0] * 7},
            probe_slopes={
                "direction": Interval(0.9111, 0.8222, 1.0333),
                "age": Interval(slope, slope - 0.1, slope + 0.1),
            },
            own_nearest_image=[0.9876] * 7,
            own_nearest_code=[0.8765] * 7,
            flipped=0.7654,
            flip_step=1.2345,
            outside_brain=0.0123,
        )
    )


def fabricate_interpolation(folder: Path, brains: Brains) -> dict:
    def values(*each: float) -> dict[str, float]:
        return dict(zip(METHODS, each, strict=True))

    result = {
        "n": 17,
        "subjects": 12,
        "gap_months": 22.6,
        "own": "trajectory_residual",
        "ssim": values(0.9112, 0.9400, 0.9101, 0.9402, 0.9123, 0.9412, 0.9402, 0.9334, 0.9345),
        "ssim_brain": values(0.8012, 0.8611, 0.8001, 0.8623, 0.8034, 0.8609, 0.8608, 0.8511, 0.8456),
        "mse": values(0.0031, 0.0021, 0.0031, 0.0021, 0.0031, 0.0022, 0.0022, 0.0027, 0.0012),
        "change_error": values(1.0512, 0.8222, 1.0601, 0.8123, 1.0456, 0.8045, 0.8311, 1.0034, 0.7012),
        "change_correlation": values(0.3512, 0.6111, 0.3444, 0.6123, 0.3478, 0.6034, 0.6022, 0.2112, 0.7523),
        "intervals": {"change_error": {"trajectory_residual": {"value": 0.8123, "low": 0.7511, "high": 0.8744}}},
        "differences": {
            "change_error": {
                "trajectory_residual": {
                    "voxel_linear": {"value": 0.0078, "low": -0.0022, "high": 0.0181, "p": 0.12, "p_holm": 0.24},
                    "voxel_trajectory": {"value": -0.0188, "low": -0.0322, "high": -0.0054, "p": 0.01, "p_holm": 0.04},
                }
            }
        },
    }
    shown = [
        {
            "case": case,
            "keys": [f"{subject}_ses-M{month:02d}" for month in (0, 12, 24)],
            "months": [0.0, 12.0, 24.0],
            "change_error": {"trajectory_residual": own, "voxel_linear": own + 0.01, "copy_nearest": own + 0.1},
        }
        for case, subject, own in (("typical", "sub-0003", 0.8042), ("worst", "sub-0005", 1.2345))
    ]
    write_json(folder / "tasks" / "interpolate.json", result | {"shown": shown})
    first, target, second = (
        np.stack([brains.scan(ventricles=v + more) for more in (0, 0.1)]) for v in (0.1, 0.35, 0.5)
    )
    middle = (first + second) / 2
    save_arrays(folder / "tasks" / "interpolate.npz", first=first, target=target, predicted=middle, voxel_linear=middle)
    return result


def fabricate_stage(folder: Path, index: int, rng: np.random.Generator) -> None:
    steps = np.arange(5, 1001, 5)
    loss = (0.9, 1.0, 0.7)[index] * np.exp(-steps / 150) + (0.02, 0.3, 0.15)[index]
    train = pd.DataFrame({"step": steps, "train/loss": loss * rng.uniform(0.85, 1.15, len(steps))})
    validation = pd.DataFrame({"step": steps[39::40], "validation/loss": 1.08 * loss[39::40]})
    logs = folder / "logs" / "version_0"
    logs.mkdir(parents=True)
    pd.concat([train, validation]).to_csv(logs / "metrics.csv", index=False)
    plan = {"trained": 123456 * (index + 1), "batch_size": 8, "device": "cpu", "precision": "fp32"}
    losses = {"train/loss": float(loss[-1]), "validation/loss": float(1.08 * loss[-1])}
    write_json(
        folder / "stage.json",
        {"fingerprint": "ab" * 32, "seconds": 123.4 + 60 * index, "steps": 1000, "losses": losses, "plan": plan},
    )


# --- What the report must hold ----------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Tags with their attributes, table cells with their text, and all visible text of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.cells: list[tuple[dict[str, str], str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._open.append(tag)
        if tag in ("td", "th"):
            self.cells.append((self.tags[-1][1], ""))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self._open):
            return
        self.text += data
        if {"td", "th"} & set(self._open):
            attributes, before = self.cells[-1]
            self.cells[-1] = (attributes, before + data)

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(copy_of_run: Callable[[], Path]) -> Path:
    folder = copy_of_run()
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A run folder that holds the least that can be reported."""
    write_json(tmp_path / "results.json", {"n_subjects": 3, "n_scans": 5, "n_test_subjects": 1, "skipped": {}})
    return tmp_path


def numbers(text: str) -> list[str]:
    return re.findall(r"[-\u2212+]?\d[\d,]*(?:\.\d+)?", text)


def leaves(value: object) -> list[float]:
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in leaves(each)]
    return [float(value)]


def sources(run: Path, attributes: dict[str, str]) -> list[float]:
    """Values that a cell says it shows."""
    values: list[float] = []
    for source in attributes["data-from"].split():
        name, _, path = source.partition("#")
        value = json.loads((run / unquote(name)).read_text(encoding="utf-8"))
        for key in path.split("/")[1:]:
            key = unquote(key).replace("~1", "/").replace("~0", "~")
            value = value[int(key) if isinstance(value, list) else key]
        values += leaves(value)
    return values


def test_every_number_in_the_tables_stands_in_the_file_that_its_cell_names(run: Path, page: Page) -> None:
    figures = [(a, text) for a, text in page.cells if a.get("class", "").startswith("figure") and numbers(text)]
    assert len(figures) > 100
    assert all("data-from" in attributes for attributes, _ in figures), "a figure without a source"
    checked = 0
    for attributes, text in figures:
        if "manifest.tsv" in attributes["data-from"]:
            continue
        known = sources(run, attributes)
        if " min" in text or text.endswith(" s"):
            minutes = [int(each) for each in numbers(text)]
            assert 60 * minutes[0] + minutes[1] == round(known[0])
            continue
        for number in numbers(text):
            plain = float(number.replace(",", "").replace("\u2212", "-"))
            tolerance = 0.5000001 * 10.0 ** -len(number.partition(".")[2])
            assert any(abs(value - plain) <= tolerance for value in known), (
                f"{text!r} is not in {attributes['data-from']}"
            )
            checked += 1
    assert checked > 100


def test_the_split_table_counts_the_manifest(run: Path, page: Page) -> None:
    table = pd.read_csv(run / "manifest.tsv", sep="\t")
    test = table[table["split"] == "test"]
    shown = [text for a, text in page.cells if a.get("data-from") == "manifest.tsv#/split/test"]
    counts = [test["participant_id"].nunique(), len(test), *(sum(test["diagnosis"] == d) for d in ("AD", "CN", "MCI"))]
    assert shown[:5] == [str(count) for count in counts]


def test_the_document_asks_nothing_of_the_network(page: Page) -> None:
    links = [
        attributes[name]
        for _, attributes in page.tags
        for name in ("src", "href", "srcset", "action")
        if name in attributes
    ]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}


def test_the_style_loads_nothing(run: Path) -> None:
    style = re.search(r"<style>(.*?)</style>", (run / "report.html").read_text(encoding="utf-8"), re.S)
    assert style is not None
    assert len(style[1]) > 1000
    assert not re.search(r"url\(|@import|http", style[1])


def test_anchors_of_the_contents_exist(page: Page) -> None:
    names = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    targets = [a["href"][1:] for a in page.attributes("a")]
    assert len(targets) == 14
    assert set(targets) <= names


def test_every_image_is_inside_decodes_is_marked_and_has_a_text_for_who_cannot_see_it(page: Page) -> None:
    images = page.attributes("img")
    # ROC, calibration and learning curve of the diagnosis, the scatter of ages; and the other tasks' pictures.
    assert len(images) == 4 + 3 + 3 + 3 + 2 + 1
    for attributes in images:
        kind, _, data = attributes["src"].partition(";base64,")
        content = base64.b64decode(data, validate=True)
        assert len(attributes["alt"]) > 40
        if kind == "data:image/png":
            picture = Image.open(io.BytesIO(content))
            picture.load()
            assert picture.width > 1000
            red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(int), -1, 0)
            amber = (red > 220) & (abs(green - 209) < 25) & (abs(blue - 102) < 40)
            assert np.count_nonzero(amber) > 200, "no SYNTHETIC on a picture that holds synthetic images"
        else:
            assert kind == "data:image/svg+xml"
            assert content.lstrip().startswith(b"<?xml")


def test_every_table_has_a_caption_and_headers(page: Page) -> None:
    tables = len(page.attributes("table"))
    assert tables == len(page.attributes("caption")) >= 10
    assert {a.get("scope") for a in page.attributes("th")} == {"col", "row"}


def test_the_file_is_small_enough_to_send(run: Path) -> None:
    assert (run / "report.html").stat().st_size < 25e6


def test_names_of_participants_are_text_not_markup(run: Path, page: Page) -> None:
    raw = (run / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in raw
    assert NASTY in page.text
    assert any(NASTY in attributes["alt"] for attributes in page.attributes("img"))


def test_the_notice_is_on_top_and_the_phantom_is_named(page: Page) -> None:
    assert page.text.count("Synthetic images. Not for diagnosis.") == 2
    assert "The cohort is a phantom" in page.text
    assert "none shows a person" in page.text


def test_a_baseline_that_beats_the_code_is_stated_in_words(run: Path, page: Page) -> None:
    own, volumes = (
        json.loads((run / "tasks" / "probe_diagnosis.json").read_text())["scored"][name]["figures"]["auc"]["value"]
        for name in ("codes", "true_volumes")
    )
    words = rf"Better than the semantic code \({own:.3f}\): true volumes of the phantom .*\({volumes:.3f}\)"
    assert re.search(words, page.text)
    document = json.loads((run / "tasks" / "probe_age.json").read_text())
    mine = document["scored"]["codes"]["figures"]["mae"]["value"]
    for each in document["scored"].values():
        each["figures"]["mae"]["value"] += 10 * (each["figures"]["mae"]["value"] != mine)
    section = probe_section(document, "probe_age.json", "age", "Age", own="semantic code")
    (columns,) = [block for block in section.blocks if isinstance(block, Beside) and len(block.right) > 2]
    assert Text(f"No baseline does better than the semantic code ({mine:.2f} years).") in columns.right
    assert "Smaller change error than the sessions carried by their codes (0.812): blend of the two scans" in page.text


def test_the_best_of_each_column_is_marked_and_the_ceiling_does_not_compete(run: Path, page: Page) -> None:
    best = {a["data-from"] for a, _ in page.cells if "best" in a.get("class", "")}
    expected = {
        "interpolate/ssim/voxel_linear",
        "interpolate/ssim_brain/trajectory_residual",
        "interpolate/change_error/voxel_linear",
        "interpolate/change_correlation/trajectory_residual",
    }
    probes = {
        f"tasks/probe_{name}.json#/scored/true_volumes/figures/{figure}/value"
        for name, figure in (("diagnosis", "auc"), ("age", "mae"))
    }
    assert best == {f"results.json#/{each}" for each in expected} | probes


def test_the_worst_reconstruction_is_called_the_worst_once(run: Path, page: Page) -> None:
    scores = json.loads((run / "tasks" / "reconstruct.json").read_text(encoding="utf-8"))["per_scan"]
    worst = min(scores, key=scores.get)
    captions = re.findall(r"Worst of 36 test scans: (\S+), SSIM (\S+) from both codes", page.text)
    assert captions == [(worst, f"{scores[worst]:.3f}")]
    assert page.text.count("Typical of 36 test scans: ") == 2


def test_a_volume_that_moves_against_the_disease_is_said(run: Path, page: Page, bare: Path) -> None:
    assert "So do the edited scans: ventricles (\u22127.04 to +7.04 ml)" in page.text
    assert "against what is known of the disease" not in page.text
    manipulate = json.loads((run / "results.json").read_text(encoding="utf-8"))["manipulate"]
    volumes = manipulate["volume_change_ml"]
    volumes["brain_ml"] = [-10.3, *volumes["brain_ml"][1:-1], 4.0]
    volumes["hippocampus_left_ml"][0] = None
    write_json(bare / "results.json", {"manipulate": manipulate})
    text = write_report(bare).read_text(encoding="utf-8")
    (warning,) = [each for each in WARNINGS.findall(text) if "against what is known" in each]
    assert "disease: brain tissue (\u221210.30 to +4.00 ml)." in warning
    assert "As expected: ventricles (\u22127.04 to +7.04 ml) and right hippocampus" in warning
    assert "left hippocampus" not in warning


def test_a_typical_and_the_worst_missing_session_are_shown_with_their_figures(page: Page) -> None:
    figures = "Change error 0.804 for the prediction, 0.814 for the voxel blend and 0.904 for the nearest copy."
    assert re.search(rf"A typical case, .*sub-0003_ses-M00, .*{re.escape(figures)}", page.text)
    assert re.search(r"The worst case, .*sub-0005_ses-M00, .*Change error 1\.234 for the prediction", page.text)


def test_an_earlier_versions_missing_session_leaves_its_figures_and_says_why_there_is_no_picture(
    run: Path, bare: Path
) -> None:
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    of = results["interpolate"]
    del of["own"]
    for metric in ("ssim", "ssim_brain", "mse", "change_error", "change_correlation"):
        del of[metric]["voxel_trajectory"]
    of["intervals"]["change_error"] = {"ldae_residual": {"value": 0.8222, "low": 0.7, "high": 0.9}}
    write_json(bare / "results.json", results)
    write_json(bare / "tasks" / "interpolate.json", of | {"shown": {"keys": ["a", "b", "c"], "months": [0, 12, 24]}})
    save_arrays(bare / "tasks" / "interpolate.npz", first=np.zeros((2, 2, 2)), ldae_residual=np.zeros((2, 2, 2)))
    page = Page(write_report(bare).read_text(encoding="utf-8"))
    assert "There are no pictures: this run was made by an earlier version" in page.text
    assert "Smaller change error than the residual-corrected codes (0.822)" in page.text
    assert "Code on the line through all other sessions, residual-corrected" in page.text
    assert any(a.get("data-from", "").endswith("change_error/ldae_residual") for a, _ in page.cells)
    for damaged in ([], [{"case": "typical"}], "nothing", [3, 4]):
        write_json(bare / "tasks" / "interpolate.json", of | {"shown": damaged})
        (bare / "tasks" / "interpolate.npz").write_bytes((run / "tasks" / "interpolate.npz").read_bytes())
        page = Page(write_report(bare).read_text(encoding="utf-8"))
        assert "tasks/interpolate.json is missing or does not fit the images" in page.text


def test_the_resolved_configuration_can_be_copied_out(run: Path, page: Page) -> None:
    config = json.loads((run / "run.json").read_text(encoding="utf-8"))["config"]
    block = page.text[page.text.index("(YAML)") + len("(YAML)") :].split("Synthetic images")[0]
    assert yaml.safe_load(block) == config
    assert "ldae demo --out" in page.text


def test_the_report_goes_where_it_is_asked_and_leaves_nothing_else(bare: Path) -> None:
    first = write_report(bare)
    again = write_report(bare, bare / "elsewhere" / "mine.html")
    assert first == bare / "report.html"
    assert again.read_bytes() == first.read_bytes()
    assert [path.name for path in again.parent.iterdir()] == ["mine.html"]


def test_a_folder_without_results_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"holds no results\.json.*ldae demo"):
        write_report(tmp_path)
    with pytest.raises(TaskError, match="is no folder"):
        write_report(tmp_path / "absent")
    (tmp_path / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(TaskError, match=r"not a readable JSON object.*again"):
        write_report(tmp_path)


def test_a_folder_with_results_alone_says_what_is_missing_everywhere(bare: Path) -> None:
    page = Page(write_report(bare).read_text(encoding="utf-8"))
    assert not page.attributes("img")
    reasons = [a for a in page.attributes("p") if a.get("class") == "absence"]
    sections = page.attributes("section")
    assert len(reasons) >= len(sections) - 3  # all but key figures, facts and methods
    for stage in STAGES.values():
        assert f"{stage}: no log of its training" in page.text
    assert "results.json and tasks/probe_diagnosis.json hold no diagnosis probe" in page.text


def test_a_skipped_task_shows_its_reason(bare: Path) -> None:
    skipped = {
        "diagnose": "codes cannot be shuffled between people",
        "probe.diagnosis": "no subject has the diagnosis <AD>",
        "probe.age": "ages are missing",
        "manipulate": "there is no probe",
        "interpolate": "no test subject has three dated sessions",
    }
    results = {"n_subjects": 3, "n_scans": 5, "n_test_subjects": 1, "skipped": skipped}
    write_json(bare / "results.json", results)
    page = Page(write_report(bare).read_text(encoding="utf-8"))
    for reason in skipped.values():
        assert f"This part was left out: {reason}." in page.text


def test_figures_without_their_files_keep_the_tables(run: Path, bare: Path) -> None:
    (bare / "results.json").write_bytes((run / "results.json").read_bytes())
    (bare / "tasks").mkdir()
    for name in ("reconstruct.json", "interpolate.json"):
        (bare / "tasks" / name).write_bytes((run / "tasks" / name).read_bytes())
    (bare / "tasks" / "reconstruct.npz").write_bytes(b"PK cut short")
    np.savez(bare / "tasks" / "interpolate.npz", first=np.zeros((2, 2, 2)))
    page = Page(write_report(bare).read_text(encoding="utf-8"))
    assert "tasks/reconstruct.npz cannot be read" in page.text
    assert "tasks/interpolate.npz lacks target, predicted, voxel_linear" in page.text
    assert "tasks/manipulate.npz is not in the run folder" in page.text
    assert "results.json and tasks/probe_diagnosis.json hold no diagnosis probe" in page.text
    assert any(a.get("data-from", "").endswith("interpolate/ssim/ceiling") for a, _ in page.cells)


def test_a_study_of_a_trained_model_makes_no_claim_on_its_training(run: Path, bare: Path) -> None:
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    results["request"] = {"model": "/models/my model", "manifest": "/data/cohort.tsv", "seed": 7}
    write_json(bare / "results.json", results)
    page = Page(write_report(bare).read_text(encoding="utf-8"))
    assert "it used the model in /models/my model" in page.text
    assert "never seen" not in page.text
    assert "no stage of training has seen" not in page.text
    assert "ldae study --model '/models/my model' --manifest /data/cohort.tsv" in page.text


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (
            "used",
            "own code explains 24 % of what stays open without a code, while somebody else's makes it larger by 36 %",
        ),
        ("unhelpful", "The code is read, but to no advantage."),
        ("collapsed", "The code has collapsed."),
    ],
)
def test_whether_the_code_is_used_is_said_in_words(run: Path, bare: Path, verdict: str, words: str) -> None:
    diagnose = json.loads((run / "results.json").read_text(encoding="utf-8"))["diagnose"]
    write_json(bare / "results.json", {"diagnose": diagnose | {"verdict": verdict, "between_subjects": None}})
    page = Page(write_report(bare).read_text(encoding="utf-8"))
    assert words in page.text
    warnings = WARNINGS.findall((bare / "report.html").read_text(encoding="utf-8"))
    assert any(words in warning for warning in warnings) == (verdict != "used")
    assert "There is no chart by noise level" in page.text
    write_json(bare / "tasks" / "diagnose.json", {"snr": [1.0], "unexplained": {}, "use": {}})
    assert "There is no chart by noise level" in Page(write_report(bare).read_text(encoding="utf-8")).text


def test_doubts_are_stated_in_words(run: Path, page: Page, bare: Path) -> None:
    assert "does better than the mean of all training scans in SSIM, in the brain too, and in MSE" in page.text
    assert "The interval of R\u00b2 reaches 0" not in page.text
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    write_json(bare / "results.json", results)
    ages = json.loads((run / "tasks" / "probe_age.json").read_text(encoding="utf-8"))
    ages["scored"]["codes"]["figures"]["r2"]["low"] = -0.1
    write_json(bare / "tasks" / "probe_age.json", ages)
    reconstruct = json.loads((run / "tasks" / "reconstruct.json").read_text(encoding="utf-8"))
    reconstruct["mean_image"]["ssim_brain"] = 0.9
    write_json(bare / "tasks" / "reconstruct.json", reconstruct)
    page = Page(write_report(bare).read_text(encoding="utf-8"))
    assert "The interval of R\u00b2 reaches 0 or below" in page.text
    assert "no worse than the semantic code alone in SSIM in the brain (0.900 against 0.764)" in page.text


def test_a_changed_manifest_is_not_counted(run: Path, bare: Path) -> None:
    (bare / "run.json").write_bytes((run / "run.json").read_bytes())
    plain = json.loads((bare / "run.json").read_text(encoding="utf-8"))
    plain["manifest"]["sha256"] = "0" * 64
    write_json(bare / "run.json", plain)
    page = Page(write_report(bare).read_text(encoding="utf-8"))
    assert "has changed since the run" in page.text


def test_probes_alone_make_a_page_of_their_own(run: Path, tmp_path: Path) -> None:
    for name in ("probe_diagnosis.json", "probe_age.json"):
        (tmp_path / name).write_bytes((run / "tasks" / name).read_bytes())
    (tmp_path / "probe_age_model.json").write_text("{}")
    page = Page(write_probe_report(tmp_path).read_text(encoding="utf-8"))
    assert "What the embeddings tell of diagnosis" in page.text
    assert "What the embeddings tell of age" in page.text
    assert "How these figures came about" in page.text
    assert not any(link["href"].startswith("http") for link in page.attributes("a"))
    (tmp_path / "probe_age.json").write_text('{"target": {"name": "age"}}')
    assert "probe_age.json is incomplete" in Page(write_probe_report(tmp_path).read_text(encoding="utf-8")).text
    with pytest.raises(TaskError, match="run 'ldae probe' first"):
        write_probe_report(tmp_path / "absent")


def test_a_probe_with_one_measure_and_no_picture_leaves_no_gap(run: Path, tmp_path: Path) -> None:
    document = json.loads((run / "tasks" / "probe_diagnosis.json").read_text(encoding="utf-8"))
    document["target"] = {"name": "MCI_to_AD", "kind": "survival", "classes": ["MCI", "AD"]}
    document["primary"] = "concordance"
    document["scored"] = {"codes": {"figures": {"concordance": {"value": 0.7, "low": 0.6, "high": 0.8}}}}
    document |= {"comparisons": [], "groups": {}, "learning_curve": None, "permutation_p": None}
    write_json(tmp_path / "probe_MCI_to_AD.json", document)
    text = write_probe_report(tmp_path).read_text(encoding="utf-8")
    assert "What the embeddings tell of conversion from MCI to AD" in text
    assert "0.700" in Page(text).text
    assert "Other measures" not in text
    assert '<div class="beside">' not in text


def test_markdown_holds_the_same_tables_and_pictures(run: Path, page: Page, tmp_path: Path) -> None:
    path = write_report(run, tmp_path / "report.md", "md")
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"!\[.+?\]\((report_files/[^)]+)\)", text)
    assert len(links) == len(page.attributes("img"))
    assert all((tmp_path / link).stat().st_size > 1000 for link in links)
    tables = [line for line in text.splitlines() if re.fullmatch(r"(\|---)+\|", line)]
    assert len(tables) == len(page.attributes("table"))
    assert "Synthetic images. Not for diagnosis." in text
    assert "<script" not in text.replace("\\<script", "")
    for name in ("probe_diagnosis.json", "probe_age.json"):
        (tmp_path / name).write_bytes((run / "tasks" / name).read_bytes())
    assert "What the embeddings tell of age" in write_probe_report(tmp_path, form="md").read_text(encoding="utf-8")
