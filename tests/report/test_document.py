"""The report of a fabricated run folder: what it must hold."""

import base64
import io
import re
import shutil
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from PIL import Image

from ldae.base.files import write_json
from ldae.errors import TaskError
from ldae.report import blocks, write_probe_report, write_report
from ldae.report.blocks import Beside, Text
from ldae.report.run_folder import STAGES
from ldae.report.sections import interpolation, manipulation, restoration
from ldae.report.sections.prediction import probe_section
from ldae.report.source import json_or_none
from tests.report.fabricated_run import NASTY

WARNINGS = re.compile(r'<p class="warning">(.*?)</p>', re.S)


class Page:
    """A document: table cells as (attributes, text), and all visible text."""

    def __init__(self, text: str) -> None:
        self.tree = BeautifulSoup(text, "html.parser", multi_valued_attributes=None)
        self.cells = [(each.attrs, each.get_text()) for each in self.tree.find_all(["td", "th"])]
        self.text = "".join(
            each for each in self.tree.find_all(string=True) if each.parent.name not in ("style", "script")
        )

    def attributes(self, tag: str | bool) -> list[dict[str, str]]:
        return [each.attrs for each in self.tree.find_all(tag)]


def rendered(folder: Path) -> Page:
    """The report of a run folder."""
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return rendered(run)


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
        value = json_or_none(run / unquote(name))
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


def test_every_number_in_the_opening_sentences_is_one_of_the_results(run: Path, page: Page) -> None:
    sentences = [each.get_text() for each in page.tree.select("#findings p")]
    assert len(sentences) == 5
    known = [each for value in numbers_of(json_or_none(run / "results.json")) for each in (value, 100 * value)]
    shown = [each for each in numbers(" ".join(sentences[:1] + sentences[2:4])) if "." in each or len(each) > 1]
    assert len(shown) > 15
    for number in set(shown) - {"0.5", "95"}:
        plain, digits = float(number.replace("\u2212", "-")), len(number.partition(".")[2])
        assert any(abs(value - plain) <= 0.5000001 * 10.0**-digits for value in known), number


def numbers_of(value: object) -> list[float]:
    """All numbers of a document."""
    if isinstance(value, dict | list):
        return [each for of in (value.values() if isinstance(value, dict) else value) for each in numbers_of(of)]
    return [float(value)] if isinstance(value, int | float) else []


def test_the_split_table_counts_the_manifest(run: Path, page: Page) -> None:
    table = pd.read_csv(run / "manifest.tsv", sep="\t")
    test = table[table["split"] == "test"]
    shown = [text for a, text in page.cells if a.get("data-from") == "manifest.tsv#/split/test"]
    counts = [test["participant_id"].nunique(), len(test), *(sum(test["diagnosis"] == d) for d in ("AD", "CN", "MCI"))]
    assert shown[:5] == [str(count) for count in counts]


def test_the_document_needs_no_network_and_is_small_enough_to_send(run: Path, page: Page) -> None:
    assert (run / "report.html").stat().st_size < 6e6
    links = [
        each[name] for each in page.attributes(True) for name in ("src", "href", "srcset", "action") if name in each
    ]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not page.tree.find(["link", "iframe", "object"])
    style = page.tree.find("style").get_text()
    assert len(style) > 1000
    assert not re.search(r"url\(|@import|http", style)


def test_anchors_exist_and_every_table_has_a_caption_and_headers(page: Page) -> None:
    names = {each["id"] for each in page.attributes(True) if "id" in each}
    targets = [a["href"][1:] for a in page.attributes("a")]
    assert len(targets) == 15
    assert set(targets) <= names
    tables = len(page.attributes("table"))
    assert tables == len(page.attributes("caption")) >= 10
    assert {a.get("scope") for a in page.attributes("th")} == {"col", "row"}


def test_every_image_is_inside_decodes_is_marked_and_has_a_text_for_who_cannot_see_it(page: Page) -> None:
    images = page.attributes("img")
    # Losses, code usage, ROC, calibration and learning curve of the diagnosis, ages, dose and response.
    assert sum(each["src"].startswith("data:image/svg+xml") for each in images) == 3 + 2 + 3 + 1 + 2
    assert len(images) == 11 + 3 + 2 + 2 + 1
    for attributes in images:
        kind, _, data = attributes["src"].partition(";base64,")
        assert len(attributes["alt"]) > 40
        if kind == "data:image/webp":
            picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
            picture.load()
            assert picture.width > 1000
            red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(int), -1, 0)
            amber = (red > 220) & (abs(green - 209) < 25) & (abs(blue - 102) < 40)
            assert np.count_nonzero(amber) > 200, "no SYNTHETIC on a picture that holds synthetic images"
        else:
            kind, _, data = attributes["src"].partition(",")
            assert kind == "data:image/svg+xml"
            assert ElementTree.fromstring(unquote(data)).tag.endswith("svg")


def test_names_of_participants_are_text_not_markup(run: Path, page: Page) -> None:
    raw = (run / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in raw
    assert NASTY in page.text
    assert any(NASTY in attributes["alt"] for attributes in page.attributes("img"))


def test_the_notice_is_on_top_and_the_phantom_is_named(page: Page) -> None:
    assert page.text.count("Synthetic images. Not for diagnosis.") == 2
    assert "The cohort is a phantom" in page.text
    assert "none shows a patient" in page.text


def test_baselines_are_named_as_better_level_or_worse(run: Path, page: Page) -> None:
    document = json_or_none(run / "tasks" / "probe_age.json")
    mine, volumes, pca, random = (
        document["scored"][name]["metrics"]["mae"]["value"]
        for name in ("codes", "true_volumes", "latent_pca", "random_encoder")
    )
    ends = {"true_volumes": (0.5, 1.5), "latent_pca": (-0.5, 0.5), "random_encoder": (-2.0, -1.0)}
    for each in document["comparisons"]:
        each["difference"] |= dict(zip(("low", "high"), ends.get(each["against"], (-2.0, -1.0)), strict=True))
        each["p_holm"] = 0.01
    section = probe_section(document, "probe_age.json", "age", "Age", own="semantic code")
    (beside,) = [block for block in section.blocks if isinstance(block, Beside) and len(block.columns[1]) > 2]
    (said,) = [
        block for block in beside.columns[1] if isinstance(block, Text) and block.text.startswith("Semantic code (")
    ]
    assert said.tone == "note"
    assert f"Semantic code ({mine:.2f} years): better than random encoder ({random:.2f} years)" in said.text
    assert said.text.endswith(
        f"; a tie with latent components ({pca:.2f} years); worse than true volumes ({volumes:.2f} years). In a tie the "
        "difference may be chance."
    )
    words = (
        "The change error of the sessions carried by their codes (0.812): better than linear fit of the voxels of all other "
        "sessions, without a model (0.831); a tie with interpolated voxels of the two scans (0.804); not compared with copy"
    )
    assert words in page.text


def test_runs_without_images_of_the_codes_alone_show_the_others(run: Path, bare: Path) -> None:
    write_json(bare / "results.json", {"interpolate": json_or_none(run / "results.json")["interpolate"]})
    (bare / "tasks").mkdir()
    shutil.copy(run / "tasks" / "interpolate.json", bare / "tasks")
    with np.load(run / "tasks" / "interpolate.npz") as arrays:
        np.savez(bare / "tasks" / "interpolate.npz", **{n: arrays[n] for n in arrays.files if n != "codes_alone"})
    (first, second) = rendered(bare).attributes("img")
    assert "A typical case" in first["alt"]
    assert "The worst case" in second["alt"]


def test_the_best_of_each_column_is_marked_and_the_ceiling_does_not_compete(run: Path, page: Page) -> None:
    best = {a["data-from"] for a, _ in page.cells if "best" in a.get("class", "")}
    assert best == {
        "results.json#/interpolate/ssim/voxel_linear",
        "results.json#/interpolate/ssim_brain/trajectory_residual",
        "results.json#/interpolate/change_error/voxel_linear",
        "results.json#/interpolate/change_correlation/trajectory_residual",
        "tasks/probe_diagnosis.json#/scored/true_volumes/metrics/auc/value",
        "tasks/probe_age.json#/scored/true_volumes/metrics/mae/value",
    }


def test_a_typical_and_the_worst_case_are_shown_with_their_figures(run: Path, page: Page) -> None:
    scores = json_or_none(run / "tasks" / "reconstruct.json")["per_scan"]
    worst = min(scores, key=scores.get)
    captions = re.findall(r"Worst of 36 test scans: (\S+), SSIM (\S+) from both codes", page.text)
    assert captions == [(worst, f"{scores[worst]:.3f}")]
    assert page.text.count("Typical of 36 test scans: ") == 2
    figures = "Change error 0.804 for the prediction, 0.814 for the interpolated voxels and 0.904 for the nearest copy."
    assert re.search(rf"A typical case, .*sub-0003_ses-M00, .*{re.escape(figures)}", page.text)
    assert re.search(r"The worst case, .*sub-0005_ses-M00, .*Change error 1\.234 for the prediction", page.text)


def test_a_volume_that_moves_against_the_disease_is_said(run: Path, page: Page, bare: Path) -> None:
    assert "As expected at every step: ventricles (\u22127.04 to +7.04 ml)" in page.text
    assert "contradict the disease" not in page.text
    manipulate = json_or_none(run / "results.json")["manipulate"]
    volumes = manipulate["volume_change_ml"]
    volumes["brain_ml"] = [-10.3, *volumes["brain_ml"][1:-1], 4.0]
    volumes["hippocampus_left_ml"][0] = None
    write_json(bare / "results.json", {"manipulate": manipulate})
    text = write_report(bare).read_text(encoding="utf-8")
    (warning,) = [each for each in WARNINGS.findall(text) if "contradict the disease" in each]
    assert "disease in: brain tissue (\u221210.30 to +4.00 ml)." in warning
    assert "As expected at every step: ventricles (\u22127.04 to +7.04 ml) and right hippocampus" in warning
    assert "left hippocampus" not in warning


@pytest.mark.parametrize("damaged", [[], [{"case": "typical"}], "nothing", [3, 4]])
def test_missing_sessions_that_do_not_fit_their_pictures_keep_the_tables(
    run: Path, bare: Path, damaged: object
) -> None:
    of = json_or_none(run / "results.json")["interpolate"]
    write_json(bare / "results.json", {"interpolate": of})
    write_json(bare / "tasks" / "interpolate.json", of | {"shown": damaged})
    shutil.copy(run / "tasks" / "interpolate.npz", bare / "tasks")
    page = rendered(bare)
    assert "tasks/interpolate.json is missing or does not fit the images" in page.text
    assert any(a.get("data-from", "").endswith("interpolate/ssim/ceiling") for a, _ in page.cells)


def test_the_resolved_configuration_can_be_copied_out(run: Path, page: Page) -> None:
    config = json_or_none(run / "run.json")["config"]
    block = page.text[page.text.index("(YAML)") + len("(YAML)") :].split("Synthetic images")[0]
    assert yaml.safe_load(block) == config
    assert "ldae demo --out" in page.text


def test_a_bare_folder_says_what_is_missing_and_the_report_goes_where_it_is_asked(bare: Path) -> None:
    first = write_report(bare)
    again = write_report(bare, bare / "elsewhere" / "mine.html")
    assert first == bare / "report.html"
    assert again.read_bytes() == first.read_bytes()
    assert [path.name for path in again.parent.iterdir()] == ["mine.html"]
    page = Page(first.read_text(encoding="utf-8"))
    assert not page.attributes("img")
    reasons = [a for a in page.attributes("p") if a.get("class") == "absence"]
    sections = page.attributes("section")
    assert len(reasons) >= len(sections) - 4  # all but findings, key figures, facts and methods
    for stage in STAGES.values():
        assert f"{stage}: no training log is in this run folder" in page.text
    assert "results.json and tasks/probe_diagnosis.json hold no diagnosis probe" in page.text


def test_a_folder_without_results_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"holds no results\.json.*ldae demo"):
        write_report(tmp_path)
    with pytest.raises(TaskError, match="is no folder"):
        write_report(tmp_path / "absent")
    (tmp_path / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(TaskError, match=r"not a readable JSON object.*again"):
        write_report(tmp_path)


def test_a_skipped_task_shows_its_reason(bare: Path) -> None:
    skipped = {
        "code_usage": "codes cannot be shuffled between people",
        "probe.diagnosis": "no subject has the diagnosis <AD>",
        "probe.age": "ages are missing",
        "manipulate": "there is no probe",
        "interpolate": "no test subject has three dated sessions",
    }
    write_json(bare / "results.json", json_or_none(bare / "results.json") | {"skipped": skipped})
    page = rendered(bare)
    for reason in skipped.values():
        assert f"This part was skipped: {reason}." in page.text


def test_figures_without_their_files_keep_the_tables(run: Path, bare: Path) -> None:
    shutil.copy(run / "results.json", bare)
    (bare / "tasks").mkdir()
    for name in ("reconstruct.json", "interpolate.json"):
        shutil.copy(run / "tasks" / name, bare / "tasks")
    (bare / "tasks" / "reconstruct.npz").write_bytes(b"PK cut short")
    np.savez(bare / "tasks" / "interpolate.npz", first=np.zeros((2, 2, 2)))
    page = rendered(bare)
    assert "tasks/reconstruct.npz cannot be read" in page.text
    assert "tasks/interpolate.npz lacks target, predicted, voxel_linear" in page.text
    assert "tasks/manipulate.npz is not in the run folder" in page.text
    assert "results.json and tasks/probe_diagnosis.json hold no diagnosis probe" in page.text
    assert any(a.get("data-from", "").endswith("interpolate/ssim/ceiling") for a, _ in page.cells)


def test_a_study_of_a_trained_model_makes_no_claim_on_its_training(run: Path, bare: Path) -> None:
    request = {"model": "/models/my model", "manifest": "/data/cohort.tsv", "seed": 7}
    write_json(bare / "results.json", json_or_none(run / "results.json") | {"request": request})
    page = rendered(bare)
    assert "it used the model in /models/my model" in page.text
    assert "no stage of training has seen" not in page.text
    assert "ldae study --model '/models/my model' --manifest /data/cohort.tsv" in page.text


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("used", "own code removes 24 % of the denoising error without a code; another subject's code adds 36 %"),
        ("unhelpful", "The code is read, but it does not help."),
        ("collapsed", "The code has collapsed."),
    ],
)
def test_whether_the_code_is_used_is_said_in_words(run: Path, bare: Path, verdict: str, words: str) -> None:
    usage = json_or_none(run / "results.json")["code_usage"]
    write_json(bare / "results.json", {"code_usage": usage | {"verdict": verdict, "between_subjects": None}})
    page = rendered(bare)
    assert words in page.text
    warnings = WARNINGS.findall((bare / "report.html").read_text(encoding="utf-8"))
    assert any(words in warning for warning in warnings) == (verdict != "used")
    assert "There is no chart by noise level" in page.text
    write_json(bare / "tasks" / "code_usage.json", {"snr": [1.0], "unexplained": {}, "use": {}})
    assert "There is no chart by noise level" in rendered(bare).text


def test_doubts_and_a_changed_manifest_are_stated_in_words(run: Path, page: Page, bare: Path) -> None:
    assert "is better than the mean training scan in SSIM, SSIM in the brain and MSE" in page.text
    assert "The interval of R\u00b2 reaches 0" not in page.text
    write_json(bare / "results.json", json_or_none(run / "results.json"))
    ages = json_or_none(run / "tasks" / "probe_age.json")
    ages["scored"]["codes"]["metrics"]["r2"]["low"] = -0.1
    write_json(bare / "tasks" / "probe_age.json", ages)
    reconstruct = json_or_none(run / "tasks" / "reconstruct.json")
    reconstruct["mean_image"]["ssim_brain"] = 0.9
    write_json(bare / "tasks" / "reconstruct.json", reconstruct)
    plain = json_or_none(run / "run.json")
    write_json(bare / "run.json", plain | {"manifest": plain["manifest"] | {"sha256": "0" * 64}})
    page = rendered(bare)
    assert "has changed since the run" in page.text
    assert "The interval of R\u00b2 reaches 0 or below" in page.text
    assert "no worse than the semantic code alone in SSIM in the brain (0.900 against 0.773)" in page.text


def test_probes_alone_make_a_page_of_their_own(run: Path, tmp_path: Path) -> None:
    for name in ("probe_diagnosis.json", "probe_age.json"):
        shutil.copy(run / "tasks" / name, tmp_path)
    (tmp_path / "probe_age_model.json").write_text("{}")
    page = Page(write_probe_report(tmp_path).read_text(encoding="utf-8"))
    assert "Prediction of diagnosis from the embeddings" in page.text
    assert "Prediction of age from the embeddings" in page.text
    assert not any(link["href"].startswith("http") for link in page.attributes("a"))
    (tmp_path / "probe_age.json").write_text('{"target": {"name": "age"}}')
    assert "probe_age.json is incomplete" in Page(write_probe_report(tmp_path).read_text(encoding="utf-8")).text
    with pytest.raises(TaskError, match="run 'ldae probe' first"):
        write_probe_report(tmp_path / "absent")


@pytest.fixture
def codes_alone(run: Path) -> dict:
    """A probe of the codes without baselines and charts, whose target and metrics each test sets."""
    document = json_or_none(run / "tasks" / "probe_diagnosis.json")
    document["scored"] = {"codes": {"metrics": {"auc": document["scored"]["codes"]["metrics"]["auc"]}}}
    return document | {"comparisons": [], "groups": {}, "learning_curve": None, "permutation_p": None}


def test_several_classes_come_with_what_they_are_taken_for(codes_alone: dict, tmp_path: Path) -> None:
    target = {"name": "stage", "kind": "multiclass", "classes": ["CN", "MCI", "AD"]}
    said = {"CN": [0.8, 0.1, 0.2, 0.3], "MCI": [0.1, 0.7, 0.7, 0.3], "AD": [0.1, 0.2, 0.1, 0.4]}
    people = {"participant_id": list("abcd"), "session_id": list("1111"), "target": [0, 0, 1, 2]}
    predictions = people | {f"codes_{label}": values for label, values in said.items()}
    write_json(tmp_path / "probe_stage.json", codes_alone | {"target": target, "predictions": predictions})
    page = Page(write_probe_report(tmp_path).read_text(encoding="utf-8"))
    texts = [text.strip() for _, text in page.cells]
    for row in (
        ["CN, 2 scans", "1 (50 %)", "1 (50 %)", "0 (0 %)"],
        ["MCI, 1 scan", "0 (0 %)", "1 (100 %)", "0 (0 %)"],
        ["AD, 1 scan", "0 (0 %)", "0 (0 %)", "1 (100 %)"],
    ):
        start = texts.index(row[0])
        assert texts[start : start + 4] == row


def test_a_probe_with_one_measure_and_no_picture_leaves_no_gap(codes_alone: dict, tmp_path: Path) -> None:
    target = {"name": "MCI_to_AD", "kind": "survival", "classes": ["MCI", "AD"]}
    scored = {"codes": {"metrics": {"concordance": {"value": 0.7, "low": 0.6, "high": 0.8}}}}
    changed = {"target": target, "primary": "concordance", "scored": scored}
    write_json(tmp_path / "probe_MCI_to_AD.json", codes_alone | changed)
    text = write_probe_report(tmp_path).read_text(encoding="utf-8")
    assert "Prediction of conversion from MCI to AD from the embeddings" in text
    assert "0.700" in Page(text).text
    assert "Further metrics" not in text
    assert '<div class="beside' not in text


def test_markdown_holds_the_same_tables_and_pictures(
    run: Path, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = b"drawn" * 300  # the page's own pictures are looked at above
    monkeypatch.setattr(blocks, "draw_svg", lambda chart: drawn)
    for section in (interpolation, manipulation, restoration):
        monkeypatch.setattr(section, "draw_panel", lambda *rows, **how: drawn)
    path = write_report(run, tmp_path / "report.md", "md")
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"!\[.+?\]\((report_files/[^)]+)\)", text)
    assert len(links) == len(page.attributes("img"))
    assert all((tmp_path / link).stat().st_size > 1000 for link in links)
    tables = [line for line in text.splitlines() if re.fullmatch(r"(\|---)+\|", line)]
    assert len(tables) == len(page.attributes("table"))
    assert "Synthetic images. Not for diagnosis." in text
    assert "<script" not in text.replace("\\<script", "")
    shutil.copy(run / "tasks" / "probe_age.json", tmp_path)
    written = write_probe_report(tmp_path, form="md").read_text(encoding="utf-8")
    assert "Prediction of age from the embeddings" in written
