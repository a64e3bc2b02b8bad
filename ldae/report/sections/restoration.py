"""The report's sections on reconstructions beside their scans, and on samples."""

from collections.abc import Mapping
from functools import partial

from ldae.report.blocks import Absence, Block, Picture, Row, Section, Table, Text
from ldae.report.plots.slice_panels import PanelRow, Tile, difference, draw_panel, symmetric_limit
from ldae.report.plots.volumes import viewer
from ldae.report.run_folder import RunFolder
from ldae.report.wording import counted, fixed, joined

__all__ = ["reconstruction", "samples"]

# Alike images are neighbours: pages hold each as its change since the one before.
RESTORED = {"both": "from both codes", "compression": "compression ceiling", "semantic_only": "semantic code alone"}
JUDGED = {"kernel_distance": "Kernel distance", "coverage": "Coverage", "novelty": "Novelty"}
KINDS = {
    "samples": "Samples without a code",
    "samples_of_codes": "Samples of drawn codes",
    "gaussian": "Latents drawn element by element",
    "mean_image": "Mean training latent",
    "compressed": "Training scans through the compression",
    "training_scans": "Real scans of training subjects",
}
METRICS = {"ssim": ("SSIM", 3), "ssim_brain": ("SSIM in the brain", 3), "mse": ("MSE", 5), "psnr": ("PSNR (dB)", 1)}


def reconstruction(run: RunFolder) -> Section:
    """Scans beside their reconstructions."""
    title = "Reconstruction: scans decoded from their codes"
    if run.results.get("reconstruct") is None:
        reason = "results.json holds no reconstruction; run 'ldae study' again."
        return Section("reconstruction", title, [run.missing("reconstruct", reason)])
    text = (
        f"{counted(run.task('reconstruct').get('scans'))} test scans were encoded and decoded in "
        f"{run.results.get('reconstruct', 'steps')} sampling steps, one scan of each test subject in a study. The semantic "
        "code is one short vector for the whole scan; the noise code holds the remaining detail. The compression ceiling is "
        "the compression autoencoder alone: what it loses, no code returns. From the semantic code alone a scan is drawn, with "
        "random noise, or expected: the mean of what the code allows, smoother and nearer."
    )
    blocks = [Text(text), _table(run), *_differences(run), *_verdict(run), *_panels(run)]
    return Section("reconstruction", title, blocks)


def _table(run: RunFolder) -> Table:
    rows = []
    for name, place, suffix, detailed in (
        ("Both codes", "reconstruct", "", "both"),
        ("Semantic code alone, noise drawn", "reconstruct", "_semantic_only", "semantic_only"),
        ("Semantic code alone, expected scan", "reconstruct", "_semantic_mean", "semantic_mean"),
        ("Mean training scan (no information on the subject)", "reconstruct", "_mean_image", "mean_image"),
        ("Compression ceiling", "compression", "", "compression"),
    ):
        if detailed == "semantic_mean" and run.task("reconstruct").get(detailed) is None:
            continue  # of an earlier version
        cells = []
        for metric, (_, digits) in METRICS.items():
            # The task's own file holds metrics that results.json leaves out.
            short = run.results.cell(place, metric + suffix, digits=digits)
            cells.append(short if short.sources else run.task("reconstruct").cell(detailed, metric, digits=digits))
        rows.append(Row(name, cells))
    caption = (
        "Agreement with the real scan, mean over these scans. SSIM: 1 is identical; the empty background raises it, so "
        "the second column is limited to the brain. MSE: mean squared error of intensities from 0 to 1. PSNR: larger is better."
    )
    return Table(caption, ("Image from", *(title for title, _ in METRICS.values())), rows)


def _differences(run: RunFolder) -> list[Table]:
    """Loss against the ceiling, and gain over the mean scan, with intervals."""
    names = {
        "below_ceiling": "Compression ceiling minus both codes",
        "above_mean_image": "Semantic code alone, noise drawn, minus mean training scan",
        "expected_above_mean_image": "Semantic code alone, expected scan, minus mean training scan",
    }
    at = ("reconstruct", "intervals")
    rows = [
        Row(text, run.results.estimate(*at, name, digits=4))
        for name, text in names.items()
        if run.results.get(*at, name) is not None
    ]
    caption = "Differences of SSIM, mean over scans; intervals over subjects"
    return [Table(caption, ("Difference", "Value", "95 % interval"), rows)] if rows else []


def _verdict(run: RunFolder) -> list[Text]:
    """Comparison of the semantic code alone with the mean training scan, in words."""
    found = run.task("reconstruct")
    best = "semantic_only" if found.get("semantic_mean") is None else "semantic_mean"
    compared, lost = 0, []
    for metric, sign in (("ssim", 1), ("ssim_brain", 1), ("mse", -1)):
        alone, mean = (found.get(name, metric) for name in (best, "mean_image"))
        if isinstance(alone, float) and isinstance(mean, float):
            compared += 1
            if sign * mean >= sign * alone:
                title, digits = METRICS[metric]
                lost.append(f"{title} ({fixed(mean, digits)} against {fixed(alone, digits)})")
    if lost:
        return [Text(f"The mean training scan is no worse than the semantic code alone in {joined(lost)}.", "note")]
    won = "The semantic code alone is better than the mean training scan in SSIM, SSIM in the brain and MSE."
    return [Text(won)] if compared == 3 else []


def _panels(run: RunFolder) -> list[Block]:
    images = run.images("reconstruct", "original", "both", "semantic_only", "compression")
    if isinstance(images, Absence):
        return [images]
    scores, keys = (run.task("reconstruct").get(name) for name in ("per_scan", "shown"))
    if not isinstance(scores, Mapping) or not isinstance(keys, list) or len(keys) != len(images["original"]):
        return [run.incomplete("reconstruct")]
    worst = min(scores, key=lambda key: scores[key])
    rows = {key: keys.index(key) for key in keys}  # a cohort of few scans shows one twice
    places = {key: f"{'Worst' if key == worst else 'Typical'} of {len(scores)} test scans" for key in rows}
    similar = {key: f"SSIM {fixed(scores.get(key))}" for key in rows}
    differences = {at: difference(images["both"][at], images["original"][at]) for at in rows.values()}
    limit = symmetric_limit(differences.values())
    blocks: list[Block] = [
        Text(
            "Sections follow the radiological convention: the patient's right (R) is on the left of axial and coronal "
            "sections. In sagittal sections anterior (A) is on the left. All grey images share one intensity scale from 0 to "
            "1, without windowing. Voxels are interpolated for display only."
        ),
        viewer(
            "Original scans and their reconstructions in three planes.",
            [f"{key} ({places[key].lower()})" for key in rows],
            [images["original"][at] for at in rows.values()],
            [[images[name][at] for name in RESTORED] for at in rows.values()],
            step=None,
            choices=list(RESTORED.values()),
            captions=[
                [f"{text}, {similar[key]}" if name == "both" else text for name, text in RESTORED.items()]
                for key in rows
            ],
            change="difference to the original",
            grid=run.preprocessing,
        ),
    ]
    for key, at in rows.items():
        original = images["original"][at]
        tiles = [
            Tile(original, "original"),
            Tile(images["both"][at], "synthetic"),
            Tile(differences[at], "difference", outline=original),
            Tile(images["semantic_only"][at], "synthetic"),
            Tile(images["compression"][at], "synthetic"),
        ]
        draw = partial(
            draw_panel,
            [PanelRow(cut, tiles) for cut in run.cuts(original)],
            ("original", "from both codes", "both codes minus original", "semantic code alone", "compression ceiling"),
            limit=limit,
            limit_label="blue: darker than the original, red: brighter (full grey scale = 1); grey line: original",
        )
        caption = f"{places[key]}: {key}, {similar[key]} from both codes"
        alt = (
            f"{caption}. Axial, coronal and sagittal sections of the original, the reconstruction from both codes, their "
            "difference, the semantic code alone and the compression ceiling."
        )
        blocks.append(Picture(draw, alt, caption))
    return blocks


def samples(run: RunFolder) -> Section:
    """Variations of one scan's code, and unconditional samples."""
    title = "Samples: images drawn by the model"
    images = run.images("sample", "original", "variations", "unconditional")
    if isinstance(images, Absence):
        return Section("samples", title, [run.missing("sample", images.reason)])
    original, variations, free = (images[name] for name in ("original", "variations", "unconditional"))
    tiles = [Tile(original, "original"), *(Tile(each, "synthetic") for each in (*variations, *free))]
    headers = [
        "original\n",
        *(f"variation {i}\nof its code" for i in range(1, len(variations) + 1)),
        *(f"sample {i}\nno code" for i in range(1, len(free) + 1)),
    ]
    key = run.task("sample").get("key") or "a test scan"
    text = (
        "Variations keep the semantic code of one scan and draw the noise anew. What they share is in the code; what "
        "differs is not. Samples without a code come from the denoiser alone and show no subject. Blur comes from the "
        "compression and the denoiser. Implausible anatomy is a sign that the denoiser needs more training or more scans."
    )
    draw = partial(draw_panel, [PanelRow(cut, tiles) for cut in run.cuts(original)], headers)
    alt = (
        f"Sections of {key}, of {len(variations)} variations of its semantic code, and of {len(free)} samples without a "
        "code; all but the first are synthetic."
    )
    caption = f"Original {key}, variations of its semantic code, and samples without a code. Radiological convention."
    return Section("samples", title, [Text(text), Picture(draw, alt, caption), *_compared(run)])


def _compared(run: RunFolder) -> list[Table]:
    """Distance of the samples from real scans, beside what needs no diffusion."""
    found, at = run.task("sample"), "compared"
    if found.get(at) is None:
        return []
    rows = [
        Row(
            text,
            [found.cell(at, name, metric, digits=3) for metric in JUDGED],
            reference=name in ("compressed", "training_scans"),
        )
        for name, text in KINDS.items()
    ]
    caption = (
        f"{counted(found.get(at, 'count'))} images of each kind against as many test scans, by mean tissue in blocks of 40 mm. "
        "Kernel distance: 0 for the same distribution. Coverage: share of test scans with such an image in their "
        "neighbourhood. Novelty: distance to the nearest training scan relative to that of test scans; 0 for copies."
    )
    return [Table(caption, ("Images", *JUDGED.values()), rows)]
