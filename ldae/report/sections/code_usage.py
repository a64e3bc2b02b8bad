"""The report's page on what the code carries: right, shuffled and no code side by side, and how codes spread."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ldae.report.blocks import Absence, Block, Cell, Picture, Row, Section, Table, Text
from ldae.report.plots.figures import CodeCurve, draw_code_use
from ldae.report.run_folder import RunFolder
from ldae.report.wording import cell, fixed, interval_cell

__all__ = ["information"]

TASK = "tasks/diagnose.json"
OWN, OTHER, NONE = "the scan's own code", "the code of somebody else", "no code"
METRICS = {"ssim": 3, "ssim_brain": 3, "mse": 5}
BY_DEFINITION = Cell("none, by definition")


def information(run: RunFolder) -> Section:
    """Whether the semantic code is used, and how much of it."""
    title = "What the code carries"
    if run.result("diagnose") is None:
        reason = run.skipped("diagnose") or Absence(
            "results.json holds no diagnosis of the code; run 'ldae study' again."
        )
        return Section("code", title, [reason])
    text = (
        "A powerful decoder can learn to do without its code, and then the code means nothing. To see whether that "
        "happened, noise was added to every test scan in its compressed form, a little, much, and so much that nothing "
        "of the scan is left, and the model had to tell what the scan was. It did so three times from the same noise: "
        "with the scan's own semantic code, with the code of somebody else, and without a code. What its own code adds "
        "over no code is what the code knows; what it adds over somebody else's is what it knows of this scan and not of "
        "heads in general."
    )
    blocks: list[Block] = [Text(text), *_verdict(run), _use_table(run), *_figure(run), _spread_table(run)]
    return Section("code", title, blocks)


def _percent(value: Any) -> str:
    return fixed(100 * value, 0, " %") if isinstance(value, int | float) else fixed(None)


def _verdict(run: RunFolder) -> list[Text]:
    """The rule's answer in words."""
    share, shuffled = run.result("diagnose", "share", "value"), run.result("diagnose", "shuffled_share", "value")
    verdict = run.result("diagnose", "verdict")
    if not isinstance(share, int | float) or not isinstance(shuffled, int | float):
        return []
    effect = f"explains {_percent(shuffled)} of it" if shuffled >= 0 else f"makes it larger by {_percent(-shuffled)}"
    if verdict == "used":
        return [
            Text(
                f"The code is used. Averaged over noise levels, a scan's own code explains {_percent(share)} of what stays "
                f"open without a code, while somebody else's {effect}."
            )
        ]
    if verdict == "unhelpful":
        return [
            Text(
                "The code is read, but to no advantage. The model does better with a scan's own code than with that of "
                "somebody else, but not reliably better than without any; it has probably learnt its training scans by heart.",
                "warning",
            )
        ]
    return [
        Text(
            "The code has collapsed. A scan's own code serves no better than that of somebody else: the interval of their "
            "difference reaches 0. What is decoded does not depend on what the code says of the scan, so edits of the code "
            "mean nothing.",
            "warning",
        )
    ]


def _use_table(run: RunFolder) -> Table:
    def images(name: str) -> list[Cell]:
        return [
            cell(run, "diagnose", metric, name, form=partial(fixed, digits=digits))
            for metric, digits in METRICS.items()
        ]

    rows = [
        Row(label[0].upper() + label[1:], [*shares, *images(name)])
        for label, name, shares in (
            (OWN, "right", _share(run, "share")),
            (OTHER, "shuffled", _share(run, "shuffled_share")),
            (NONE, "none", [BY_DEFINITION, Cell("")]),
        )
    ]
    gaps = [
        cell(run, "diagnose", "image_gaps", metric, "value", form=partial(fixed, digits=digits))
        for metric, digits in METRICS.items()
    ]
    rows.append(Row("Own code against somebody else's", [*_share(run, "gap"), *gaps], reference=True))
    scans = run.get(TASK, "images", "scans")
    caption = (
        "What each code is worth. The share explained is of the squared error that the model makes without a code: 0 is "
        "no better than that, 1 would be no error, below 0 the code misleads. On the right, images drawn from the same "
        "noise with each code"
        + (f" for one scan of each of {scans} subjects" if isinstance(scans, int) else "")
        + ", compared with the real scans; the last row says by how much the own code does better."
    )
    columns = ("Given", "Share explained", "95 % interval", "SSIM", "SSIM in the brain", "MSE")
    return Table(caption, columns, rows)


def _share(run: RunFolder, name: str) -> list[Cell]:
    return [cell(run, "diagnose", name, "value"), interval_cell(run, "diagnose", name)]


def _figure(run: RunFolder) -> list[Block]:
    snr, open_shares, use = (run.get(TASK, name) for name in ("snr", "unexplained", "use"))
    missing = Absence(f"There is no chart by noise level: {TASK} is missing or incomplete; run 'ldae study' again.")
    if not isinstance(snr, list) or not isinstance(open_shares, Mapping) or not isinstance(use, Mapping):
        return [missing]
    try:
        own, other = (
            {end: [level[end] for level in use[name]] for end in ("value", "low", "high")}
            for name in ("share_by_level", "shuffled_share_by_level")
        )
        curves = [
            CodeCurve(OWN, own["value"], open_shares["right"], (own["low"], own["high"])),
            CodeCurve(OTHER, other["value"], open_shares["shuffled"], (other["low"], other["high"])),
            CodeCurve(NONE, [0.0] * len(snr), open_shares["none"]),
        ]
    except (KeyError, TypeError):
        return [missing]
    best = max(range(len(snr)), key=lambda level: own["value"][level])
    return [
        Picture(
            draw_code_use(snr, curves),
            "image/svg+xml",
            f"Share explained and share left open by noise level, with {OWN}, {OTHER} and {NONE}. The own code explains "
            f"most, {_percent(own['value'][best])}, at a signal-to-noise ratio of {snr[best]:.2g}, and "
            f"{_percent(own['value'][0])} where the latent is cleanest.",
            "By noise level, with 95 % bands over subjects. Where the scan is nearly clean (left end), the model sees for itself "
            "and a code has little to add; where noise hides it (right end), only the code can tell one person from another. "
            "The right chart puts it in absolute terms: the rest is what the noisy scan shows and what all heads share.",
        )
    ]


def _spread_table(run: RunFolder) -> Table:
    scans = run.result("diagnose", "scans")
    width = cell(run, "diagnose", "width", form=str)
    rows = [
        Row("Numbers in a code", [width, Cell("What there is room for.", prose=True)]),
        Row(
            "Active dimensions",
            [
                cell(run, "diagnose", "active_dimensions", form=str),
                Cell(
                    "Numbers that differ from scan to scan by more than a hundredth of a code's mean square. Near 0, "
                    "everybody has the same code.",
                    prose=True,
                ),
            ],
        ),
        Row(
            "Effective rank",
            [
                cell(run, "diagnose", "effective_rank", form=lambda value: fixed(value, 1)),
                Cell(
                    "How many independent directions those differences fill, counted as if all were equally strong. It "
                    "cannot exceed the number of scans less one.",
                    prose=True,
                ),
            ],
        ),
        Row(
            "Principal components for 95 % of the variance",
            [
                cell(run, "diagnose", "components_95", form=str),
                Cell("How many directions hold nearly all of it.", prose=True),
            ],
        ),
        Row(
            "Share of the variance between subjects",
            [
                cell(run, "diagnose", "between_subjects"),
                Cell(
                    "1: all sessions of a person have the same code; 0: they are no closer than those of strangers. Ageing "
                    "and disease must leave room below 1.",
                    prose=True,
                ),
            ],
        ),
    ]
    caption = "How codes differ between scans" + (f", over {scans} test scans" if isinstance(scans, int) else "")
    return Table(caption, ("", "Measured", "How to read it"), rows)
