"""`ldae convert`, `export` and `report`: files of others, files for others, and documents."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from ldae.base.ranges import Range
from ldae.cli.command import command
from ldae.cli.console import progress_bar, say, table
from ldae.cli.options import Count, Folder, Input, Inputs, Output, Positional

if TYPE_CHECKING:
    from collections.abc import Callable

    from ldae.dicom.write import DerivedSeries
    from ldae.tasks.conversion.conversion import Conversion, NetworkConversion
    from ldae.tasks.conversion.official import OfficialContract

Planned = TypeVar("Planned", bound="Conversion")


@command("export dicom", settings="ldae.dicom.write:DerivedSeries", skip=("derivation",), names={"reference": "like"})
def export_dicom(image: Input, settings: "DerivedSeries", *, out: Folder, force: bool = False) -> int:
    """Write an image as a derived DICOM series, marked as synthetic.

    A synthetic or edited image becomes a DICOM MR series with new identifiers. Every file says that it is derived,
    synthetic and not for diagnosis.

    Args:
        image: image file, such as NIfTI.
        settings: labels of the series.
        out: folder of the series.
        force: replace a series that was exported before.

    Examples:
        ldae export dicom edit.nii.gz --like SERIES --out derived
    """
    from ldae.dicom.write import export_dicom

    folder = export_dicom(image, out, settings, force=force)
    say(f"series: {folder}, {sum(1 for _ in folder.iterdir())} images, marked as synthetic", series=folder)
    if settings.reference is not None and settings.patient_id is None:
        say("it carries the name and the study of the reference's subject")
    return 0


@command("export bundle")
def export_bundle(model: Annotated[str, Positional()], *, out: Folder, force: bool = False) -> int:
    """Write a model as a MONAI bundle.

    `monai.bundle` verifies and runs it, with the semantic encoder as its network. Every command takes the bundle as --model.

    Args:
        model: folder or name of the model.
        out: folder of the bundle.
        force: replace a bundle that was exported before.

    Examples:
        ldae export bundle ldae-t1-3mm --out bundle
    """
    from ldae.tasks.bundle import export_bundle

    made = export_bundle(model, out, force=force)
    say(f"bundle: {made}", bundle=made)
    return 0


@command("report")
def report(run: Input, *, out: Path | None = None, format: Literal["html", "md", "json"] = "html") -> int:
    """Render a run as one document.

    Args:
        run: run folder of 'ldae demo' or 'ldae study', or a folder of 'ldae probe'.
        out: the file; RUN/report.html, .md or .json if not given.
        format: one self-contained HTML file, Markdown with pictures beside it, or JSON after a published schema.

    Examples:
        ldae report runs/mine
        ldae report runs/mine --format json --out results.json
    """
    from ldae.report import write_probe_report, write_report

    probes_alone = not (run / "results.json").is_file() and any(run.glob("probe_*.json"))
    written = (write_probe_report if probes_alone else write_report)(run, out, format)
    say(f"report: {written}", report=written)
    return 0


@command(
    "convert official",
    settings="ldae.tasks.conversion.official:OfficialContract",
    skip=("clamp",),
)
def convert_official(
    files: Inputs, settings: "OfficialContract", *, out: Folder, ignore: list[str] | None = None, force: bool = False
) -> int:
    """Turn published checkpoints into a model folder.

    Each file is a Lightning checkpoint, a bare state dict or safetensors; every tensor is accounted for, and no pickled
    code is run. Of averaged (ema_) and plain weights the averaged are taken. Sizes are read from the tensors; the options
    give what no tensor tells, and their defaults are the published values.

    Args:
        files: the denoiser with its gradient estimator, the semantic encoder, the compression autoencoder, in this order;
            two if one file holds the first two, one if it holds all.
        settings: what no tensor tells.
        out: model folder to write.
        ignore: beginnings of names of tensors that are not needed; they are recorded as left out.
        force: replace the folder of a former conversion.

    Examples:
        ldae convert official autoencoder.ckpt decoder.ckpt --out official
    """
    from ldae.errors import ConfigError
    from ldae.tasks.conversion.official import plan_official

    if len(files) > 3:
        msg = f"{len(files)} files given; give those of denoiser, semantic encoder and compression autoencoder"
        raise ConfigError(msg)
    encoder = files[1 if len(files) == 3 else 0]
    plan = _convert(partial(plan_official, files[0], encoder, files[-1], settings, ignore=ignore or []), out, force)
    for name, fact in plan.facts.items():
        say(f"{name}: {fact}")
    say(f"model: {out}", model=out)
    return 0


@command("convert autoencoder")
def convert_autoencoder(
    file: Input,
    *,
    out: Folder,
    groups: Count = 32,
    latent_scale: Annotated[float, Range(0, above=True)] = 1.0,
    ignore: list[str] | None = None,
    force: bool = False,
) -> int:
    """Turn AutoencoderKL weights into a compression stage.

    The weights are of MONAI, of MONAI GenerativeModels or of a bundle of the MONAI model zoo, such as the brain LDM's
    autoencoder. Sizes are read from the tensors. Writes weights.safetensors and config.json.

    Args:
        file: Lightning checkpoint, bare state dict or safetensors.
        out: folder to write.
        groups: of its norms, which no tensor tells.
        latent_scale: factor that brings its latents to unit variance, if it is known.
        ignore: beginnings of names of tensors that are not needed; they are recorded as left out.
        force: replace the folder of a former conversion.

    Examples:
        ldae convert autoencoder vae.safetensors --out compression.safetensors
    """
    from ldae.tasks.conversion.official import plan_autoencoder

    plan = partial(plan_autoencoder, file, groups=groups, latent_scale=latent_scale, ignore=ignore or [])
    return _convert_network(plan, out, force)


@command("convert denoiser")
def convert_denoiser(
    file: Input,
    *,
    out: Folder,
    heads: Count = 1,
    stride: tuple[int, int, int] = (1, 2, 2),
    ignore: list[str] | None = None,
    force: bool = False,
) -> int:
    """Turn a second stage's checkpoint into a denoiser to train stage 3 on.

    Sizes are read from the tensors. Writes weights.safetensors, for denoiser.initial_weights of 'ldae fit', and config.json.

    Args:
        file: Lightning checkpoint, bare state dict or safetensors.
        out: folder to write.
        heads: of its attention, which no tensor tells.
        stride: its downsampling along each latent axis, which no tensor tells.
        ignore: beginnings of names of tensors that are not needed; they are recorded as left out.
        force: replace the folder of a former conversion.

    Examples:
        ldae convert denoiser stage2.ckpt --out denoiser
    """
    from ldae.tasks.conversion.official import plan_denoiser

    plan = partial(plan_denoiser, file, heads=heads, stride=stride, ignore=ignore or [])
    return _convert_network(plan, out, force)


@command("convert probe")
def convert_probe(*, classifier: Path, mean: Path, std: Path, model: str, out: Output) -> int:
    """Turn a published linear classifier of codes into a probe.

    'ldae manipulate --direction' follows it and 'ldae predict' applies it. Files are NumPy arrays, safetensors or of
    torch.save. A step of an edit has length 1 in standardised codes; it raises the classifier's label 1.

    Args:
        classifier: weight and bias of a linear layer with one output.
        mean: of the codes that it was trained on.
        std: standard deviation of those codes.
        model: folder of the converted model, whose codes it reads.
        out: the probe, JSON.

    Examples:
        ldae convert probe --classifier classifier.pt --mean mean.pt --std std.pt --model official --out probe.json
    """
    from ldae.autoencoder import LatentDiffusionAutoencoder
    from ldae.tasks.conversion.classifier import convert_classifier

    loaded = LatentDiffusionAutoencoder.from_pretrained(model, device="cpu")
    saved = convert_classifier(classifier, mean, std, loaded).save(out)
    say(f"probe: {saved}", probe=saved)
    return 0


def _convert_network(make_plan: "Callable[[], NetworkConversion]", out: Path, force: bool) -> int:
    from ldae.io.plain import to_plain

    plan = _convert(make_plan, out, force)
    say("architecture: " + ", ".join(f"{name} {value}" for name, value in to_plain(plan.config).items()))
    say(f"weights: {out / plan.weights}", weights=out / plan.weights)
    return 0


def _convert(make_plan: "Callable[[], Planned]", out: Path, force: bool) -> "Planned":
    """Write what was planned, and print where every tensor went."""
    from ldae.base.files import check_new_folder
    from ldae.tasks.conversion.conversion import RECORD

    check_new_folder(out, force=force, sign=RECORD)  # now, not after the files have been read
    plan = make_plan()
    with progress_bar("write") as move:
        plan.write(out, move, force=force)
    rows = []
    for account in plan.accounts.values():
        left = ", ".join(f"{len(names)} {reason}" for reason, names in account.left_out.items()) or "0"
        counts = [str(len(each)) for each in (account.sources, account.equal, account.recomputed)]
        rows.append([account.file.path.name, *counts, left])
    table("tensors", ["file", "used", "equal copies", "recomputed", "left out"], rows)
    for account in plan.accounts.values():
        for kind, count in account.widened.items():
            say(f"{account.file.path.name}: {count} tensors widened from {kind} to float32")
    return plan
