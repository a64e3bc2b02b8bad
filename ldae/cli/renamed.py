"""Earlier names of commands and options, which work for one version more, with a notice."""

COMMANDS: dict[tuple[str, ...], tuple[str, ...]] = {("diagnose",): ("code-usage",)}
"""Words of a command: earlier, now."""

MANIFEST = {"--split": "--people"}
OPTIONS: dict[str, dict[str, str]] = {
    "cohort split": {"--overwrite": "--force"},
    "probe": {"--codes": "", "--subjects": "--people", "--model": "--probe"},
    "reconstruct": MANIFEST,
    "code-usage": MANIFEST,
    "discover": MANIFEST,
    "interpolate subject": MANIFEST,
    "interpolate evaluate": MANIFEST,
    "manipulate": {**MANIFEST, "--probe": "--direction"},
    "export dicom": {"--reference": "--like"},
    "convert official": {"--decoder": "", "--encoder": "", "--autoencoder": ""},
    "convert autoencoder": {"--weights": ""},
}
"""Options of each command: earlier, now; an empty name is a positional argument."""
