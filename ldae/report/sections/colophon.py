"""The report's last sections: methods, limitations, and how to reproduce the run."""

import shlex

import yaml

from ldae.report.blocks import Absence, Block, Listing, Section, Text
from ldae.report.run_folder import RunFolder
from ldae.report.templating import paragraphs

__all__ = ["methods", "probe_methods", "reproduction"]


def methods(run: RunFolder) -> Section:
    """Method and limitations."""
    positive, negative = run.classes
    subjects = run.results.get("n_test_subjects")
    texts = paragraphs("limitations.txt.j2", positive=positive, negative=negative, subjects=subjects)
    warning = (
        "Reconstructed, edited, interpolated and sampled images are synthetic. They must not be used for diagnosis."
    )
    return Section("methods", "Methods and limitations", [*map(Text, texts), Text(warning, "warning")])


def probe_methods() -> Section:
    """Methods of a probe, for a report without a model."""
    return Section("methods", "Methods", list(map(Text, paragraphs("probe_methods.txt.j2"))))


def reproduction(run: RunFolder) -> Section:
    """Commands and configuration."""
    request = run.results.get("request") or {}
    manifest = run.provenance.get("manifest", "path") or request.get("manifest") or "manifest.tsv"
    seed = run.provenance.get("seed")
    seed = request.get("seed", 0) if seed is None else seed
    out = shlex.quote(str(run.path))
    if "quick" in request:
        options = " --quick" if request["quick"] else ""
        options += f" --subjects {request['subjects']}" if request.get("subjects") else ""
        commands = [f"ldae demo --out {out} --seed {seed}{options}"]
        text = "One command makes the cohort, trains, and writes this report. Finished parts are not repeated."
    else:
        model = shlex.quote(str(request["model"])) if "model" in request else f"{out}/model"
        cohort = shlex.quote(str(manifest))
        commands = [f"ldae study --model {model} --manifest {cohort} --out {out} --seed {seed}"]
        text = "One command runs every task with the trained model and writes this report."
        if "model" not in request:
            commands.insert(0, f"ldae fit all --config config.yaml --manifest {cohort} --out {out}")
            text = "Save the configuration below as config.yaml. These commands then train and write this report."
    blocks: list[Block] = [Text(text), Listing("Commands", "\n".join(commands), open=True)]
    if run.config is not None:
        configuration = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
        blocks.append(Listing("The resolved configuration (YAML)", configuration))
    else:
        blocks.append(Absence("run.json is not in the run folder, so the training's configuration cannot be shown."))
    return Section("repeat", "Reproduction", blocks)
