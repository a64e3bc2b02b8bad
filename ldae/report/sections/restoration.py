"""The report's pages on what is kept and what is drawn: reconstructions beside their scans, and samples."""

from collections.abc import Mapping, Sequence
from typing import Any

from ldae.report.blocks import Absence, Block, Cell, Picture, Row, Section, Table, Text
from ldae.report.plots.panels import CONVENTION, cuts_of, difference, incomplete
from ldae.report.plots.slice_panels import PanelRow, Tile, draw_panel, symmetric_limit
from ldae.report.plots.volumes import viewer
from ldae.report.run_folder import RunFolder
from ldae.report.wording import cell, fixed, interval_cell, joined

__all__ = ["reconstruction", "samples"]


RESTORED = {"both": "from both codes", "semantic_only": "semantic code alone", "compression": "compression ceiling"}


def reconstruction(run: RunFolder) -> Section:
    """Scans beside what their codes restore."""
    title = "Reconstruction: what the codes keep of a scan"
    if run.result("reconstruct") is None:
        reason = run.skipped("reconstruct") or Absence("results.json holds no reconstruction; run 'ldae study' again.")
        return Section("reconstruction", title, [reason])
    steps = run.result("reconstruct", "steps")
    text = (
        f"Every test scan was turned into its two codes and back, in {steps} sampling steps. The semantic code is a "
        "short list of numbers that should hold what matters; the noise code holds the rest. The compression "
        "ceiling is the scan through the compression autoencoder alone: no codes can do better."
    )
    return Section(
        "reconstruction",
        title,
        [Text(text), _reconstruction_table(run), *_differences(run), *_verdict(run), *_reconstruction_panels(run)],
    )


def _reconstruction_table(run: RunFolder) -> Table:
    task = "tasks/reconstruct.json"
    metrics = {"ssim": 3, "ssim_brain": 3, "mse": 5, "psnr": 1}

    def figure(metric: str, own: Sequence[str], detailed: str) -> Cell:
        """From results.json, or the task's own file where that says more."""

        def form(value: Any) -> str:
            return fixed(value, metrics[metric])

        if run.result(*own) is not None:
            return cell(run, *own, form=form)
        return cell(run, detailed, metric, document=task, form=form)

    rows = [
        Row(name, [figure(metric, own(metric), detailed) for metric in metrics])
        for name, own, detailed in (
            ("Both codes", lambda m: ("reconstruct", m), "both"),
            ("Semantic code alone, noise drawn", lambda m: ("reconstruct", f"{m}_semantic_only"), "semantic_only"),
            ("Mean of all training scans (knows nothing)", lambda m: ("reconstruct", f"{m}_mean_image"), "mean_image"),
            ("Compression ceiling", lambda m: ("compression", m), "compression"),
        )
    ]
    caption = (
        "Agreement with the real scan, mean over all test scans. SSIM: 1 is identical; the empty background "
        "flatters it, inside the brain it does not. MSE: mean squared error for intensities from 0 to 1. PSNR: "
        "larger is better."
    )
    return Table(caption, ("Image from", "SSIM", "SSIM in the brain", "MSE", "PSNR (dB)"), rows)


def _differences(run: RunFolder) -> list[Table]:
    """What the codes lose against the ceiling, and what they know beyond the mean image, with intervals."""
    names = {
        "below_ceiling": "Compression ceiling minus both codes",
        "above_mean_image": "Semantic code alone minus mean training scan",
    }
    rows = [
        Row(
            words,
            [
                cell(run, "reconstruct", "intervals", name, "value", form=lambda value: fixed(value, 4)),
                interval_cell(run, "reconstruct", "intervals", name, digits=4),
            ],
        )
        for name, words in names.items()
        if run.result("reconstruct", "intervals", name) is not None
    ]
    caption = "Differences of SSIM, mean over scans; intervals over subjects"
    return [Table(caption, ("", "Difference", "95 % interval"), rows)] if rows else []


def _verdict(run: RunFolder) -> list[Text]:
    """Whether the semantic code alone beats knowing nothing, in words."""
    task = "tasks/reconstruct.json"
    compared, lost = 0, []
    for metric, name, digits, sign in (
        ("ssim", "SSIM", 3, 1),
        ("ssim_brain", "SSIM in the brain", 3, 1),
        ("mse", "MSE", 5, -1),
    ):
        alone, mean = run.get(task, "semantic_only", metric), run.get(task, "mean_image", metric)
        if isinstance(alone, float) and isinstance(mean, float):
            compared += 1
            if sign * mean >= sign * alone:
                lost.append(f"{name} ({fixed(mean, digits)} against {fixed(alone, digits)})")
    if lost:
        return [
            Text(
                f"The mean of all training scans does no worse than the semantic code alone in {joined(lost)}.", "note"
            )
        ]
    words = (
        "The semantic code alone does better than the mean of all training scans in SSIM, in the brain too, and in MSE."
    )
    return [Text(words)] if compared == 3 else []


def _reconstruction_panels(run: RunFolder) -> list[Block]:
    images = run.images("reconstruct", "original", "both", "semantic_only", "compression")
    if isinstance(images, Absence):
        return [images]
    scores, keys = run.get("tasks/reconstruct.json", "per_scan"), run.get("tasks/reconstruct.json", "shown")
    if not isinstance(scores, Mapping) or not isinstance(keys, list) or len(keys) != len(images["original"]):
        return [incomplete("reconstruct")]
    worst = min(scores, key=lambda key: scores[key])
    rows = list(dict.fromkeys(keys))  # a cohort of few scans shows one twice
    differences = [difference(images["both"][i], images["original"][i]) for i in range(len(keys))]
    limit = symmetric_limit(differences)
    headers = ("original", "from both codes", "both codes minus original", "semantic code alone", "compression ceiling")
    places = {key: f"{'Worst' if key == worst else 'Typical'} of {len(scores)} test scans" for key in rows}
    at_rows = [keys.index(key) for key in rows]
    blocks: list[Block] = [
        Text(CONVENTION),
        viewer(
            "Scans and what their codes restore, in three planes.",
            [f"{key} ({places[key].lower()})" for key in rows],
            [images["original"][at] for at in at_rows],
            [[images[name][at] for name in RESTORED] for at in at_rows],
            [images["original"][at] for at in at_rows],
            choices=list(RESTORED.values()),
            captions=[
                [
                    f"{words}, SSIM {fixed(scores.get(key))}" if name == "both" else words
                    for name, words in RESTORED.items()
                ]
                for key in rows
            ],
            start=0,
            slider=False,
            change="difference to the original",
            grid=run.preprocessing,
        ),
    ]
    for key, at in zip(rows, at_rows, strict=True):
        original = images["original"][at]
        tiles = [
            Tile(original, "original"),
            Tile(images["both"][at], "synthetic"),
            Tile(differences[at], "difference", outline=original),
            Tile(images["semantic_only"][at], "synthetic"),
            Tile(images["compression"][at], "synthetic"),
        ]
        data = draw_panel(
            [PanelRow(cut, tiles) for cut in cuts_of(run, original)],
            headers,
            limit=limit,
            limit_label="blue: darker than the original, red: brighter (full grey scale = 1); grey line: original",
        )
        place = places[key]
        score = f"SSIM {fixed(scores.get(key))} from both codes"
        blocks.append(
            Picture(
                data,
                "image/png",
                f"{place}: {key}, {score}. Axial, coronal and sagittal sections of the original, the reconstruction "
                "from both codes, their difference, the semantic code alone and the compression ceiling.",
                f"{place}: {key}, {score}",
            )
        )
    return blocks


def samples(run: RunFolder) -> Section:
    """Variations of one scan's code, and samples that follow no scan."""
    title = "Samples: what the model draws by itself"
    images = run.images("sample", "original", "variations", "unconditional")
    if isinstance(images, Absence):
        return Section("samples", title, [run.skipped("sample") or images])
    original, variations, free = (images[name] for name in ("original", "variations", "unconditional"))
    tiles = [Tile(original, "original"), *(Tile(each, "synthetic") for each in (*variations, *free))]
    headers = [
        "original\n",
        *(f"variation {i}\nof its code" for i in range(1, len(variations) + 1)),
        *(f"sample {i}\nno code" for i in range(1, len(free) + 1)),
    ]
    key = run.get("tasks/sample.json", "key") or "a test scan"
    text = (
        "Variations keep the semantic code of one scan and draw the noise anew: what stays the same is what the "
        "code holds, what differs is what it leaves open. The samples without a code come from the denoiser alone "
        "and show no one. Blur is compression's as much as the denoiser's; broken anatomy means that the denoiser "
        "needs more training or more scans."
    )
    picture = Picture(
        draw_panel([PanelRow(cut, tiles) for cut in cuts_of(run, original)], headers),
        "image/png",
        f"Sections of {key}, of {len(variations)} variations of its semantic code, and of {len(free)} samples "
        "without a code; all but the first are synthetic.",
        f"Original: {key}.",
    )
    return Section("samples", title, [Text(text), picture])
