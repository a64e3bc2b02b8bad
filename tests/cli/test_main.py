"""What `ldae` says of its commands, and of what is no command line."""

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import yaml

from ldae.cli.main import build_parsers, read_command_line
from ldae.image_files import Reading
from tests.command_line import run


def test_what_runs_nothing_loads_nothing_heavy():
    names = {"torch", "monai", "lightning", "sklearn", "pandas", "nibabel", "SimpleITK", "scipy"}
    lines = ["--help", "--version", "cohort --help", "encode --help", "cohort split none.tsv --sed 3"]
    lines.append("fit all --from ldae-t1-3m --manifest none.tsv --out run")
    codes = ["import ldae; ldae.__all__", *(f"from ldae.cli import main; main({line.split()})" for line in lines)]
    loop = f"for code in {codes}:\n try: exec(code)\n except SystemExit: pass\n print('loaded', {names} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"import sys\n{loop}"], capture_output=True, text=True, check=False)
    assert done.stdout.count("loaded set()") == len(codes), done.stdout + done.stderr


def test_a_model_is_loaded_without_what_only_training_needs():
    program = "import sys, ldae.autoencoder; print({'monai', 'lightning', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_public_names_resolve():
    import ldae

    assert all(getattr(ldae, name) is not None for name in ldae.__all__)
    assert set(ldae.__all__) <= set(dir(ldae))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ldae.nonsense


def test_every_option_is_explained():
    parsers = build_parsers()
    assert len(parsers) > 20
    for path, parser in parsers.items():
        assert parser.description, path
        assert [each.dest for each in parser._actions if not each.help] == [], path
        shown = parser.format_help()
        assert f"usage: ldae {' '.join(path)} " in " ".join(shown.split())
        assert "<" not in shown, "no name of a Python object"


def test_every_command_shows_examples_that_can_be_typed():
    parsers = build_parsers()
    for path, parser in parsers.items():
        lines = parser.epilog.splitlines()[1:]
        assert lines, path
        for line in lines:
            assert f"  {line.strip()}" in parser.format_help()
            words = line.split()
            assert tuple(words[1 : 1 + len(path)]) == path
            parser.read(words[1 + len(path) :])


def test_scripts_get_one_json_object(tmp_path, capsys, tiny_model):
    model = tiny_model.save_pretrained(tmp_path / "model")
    assert (
        run("sample", "--json", "--model", model, "--count", "1", "--out", tmp_path / "drawn", "--device", "cpu") == 0
    )
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told["exit_code"] == 0
    assert told["command"][:2] == ["ldae", "sample"]
    assert told["files"] == {"folder": str(tmp_path / "drawn")}
    assert told["messages"][-1] in shown.err
    assert run("sample", "--json", "--count", "1") == 2
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 2
    assert told["files"] == {}
    assert "--out" in told["notices"][0]
    assert run("cohort", "check", tmp_path / "none.tsv", "--json") == 2
    assert "none.tsv" in json.loads(capsys.readouterr().out)["notices"][0]
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("ldae "), "text again"


def test_every_command_takes_what_files_do_not_say(tmp_path, capsys, tiny_model):
    image = nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), None)
    image.header["qform_code"] = image.header["sform_code"] = 0
    nibabel.save(image, tmp_path / "plain.nii")
    model = tiny_model.save_pretrained(tmp_path / "model")
    encode = ("encode", tmp_path / "plain.nii", "--model", model, "--out", tmp_path / "out")
    for more, words in (
        ((), "give --assume-ras"),
        (("--assume-ras", "--max-gib", "1e-9"), "the limit is 1e-09 GiB"),
        (("--assume-ras", "--spacing", "2", "2", "2"), "all voxels have one value"),
        (("--spacing", "2", "2"), "--spacing takes 3 positive numbers, got 2 2"),
        (("--max-gib", "-1"), "--max-gib takes 1 positive number, got -1"),
        (("--assume-ras", "--max-gib=1e-9"), "the limit is 1e-09 GiB"),
    ):
        assert run(*encode, *more) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    assert Reading.current() == Reading()


@pytest.mark.parametrize("group", ["", "cohort", "cohort import", "convert", "export", "interpolate"])
def test_help_of_a_group_lists_its_commands(group, capsys):
    assert run(*group.split(), "--help") == 0
    words = tuple(group.split())
    shown = capsys.readouterr().out
    assert all(
        f"  {' '.join(path[: len(words) + 1])} " in shown for path in build_parsers() if path[: len(words)] == words
    )
    if group:
        examples = shown.partition("examples:\n")[2].partition("\n\n")[0].splitlines()
        paths = {read_command_line(line.split()[1:])[0].path for line in examples}
        assert paths == {path for path in build_parsers() if path[: len(words)] == words}


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ("cohort split --manifest none.tsv --overwrite", "--overwrite is now --force"),
        ("export dicom none.nii --out OUT --reference none", "--reference is now --like"),
        ("convert autoencoder --weights none.pt --out OUT", "--weights is now given without a name"),
        ("probe --codes none.csv --manifest none.tsv --target age --out OUT", "--codes is now given"),
        ("diagnose none.tsv --model none --out OUT", "'diagnose' is now 'code-usage'"),
        ("reconstruct none.tsv --model none --out OUT --split test", "--split is now --people"),
    ],
)
def test_earlier_names_work_with_a_notice(old, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*old.split()) == 2
    notice, error = capsys.readouterr().err.splitlines()
    assert words in notice
    assert "none" in error


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cohrt", "no command cohrt; did you mean cohort? choose one of "),
        ("cohort", "ldae cohort: choose one of synth, "),
        ("cohort import", "choose one of bids, table, csv, dicom; run 'ldae cohort import --help'"),
        ("export dicom", "required: IMAGE, --out; run 'ldae export dicom --help'"),
        ("cohort split m.tsv --sead 3", "no option --sead here; did you mean --seed?"),
        ("cohort split --seed 3", "required: MANIFEST"),
        ("config demo more", "no argument more here"),
        ("fit al", "STAGE: invalid choice: 'al'"),
        ("cohort split m.tsv --seed x", "--seed: must be a whole number, between 0 and 4294967295, got x"),
        ("encode --model EMPTY --manifest EMPTY --out OUT", "config.json is missing"),
        ("cohort check --manifest m.tsv --out FILE/x", "FILE is a file; give a folder"),
        ("cohort preprocess --manifest m.tsv --out FILE", "--out: FILE is a file; give a folder"),
        ("cohort check --manifest m.tsv --workers -3", "must be a whole number, at least 1, got -3"),
        ("cohort preprocess --manifest m.tsv --out OUT --workers 0", "at least 1, got 0"),
        ("cohort synth --out OUT --workers two", "at least 1, got two"),
        ("encode head.nii --out OUT --batch-size 0", "--batch-size: must be a whole number, at least 1, got 0"),
        ("demo --subjects 0", "at least 1, got 0"),
        ("convert autoencoder w.pt --out OUT --latent-scale nan", "must be a number, above 0, got nan"),
        ("encode head.nii --out OUT", "head.nii: no such image file; check the path"),
        (f"config demo --set seed={10**30}", "seed must be between 0 and 4294967295"),
        ("config demo --set seed=" + 999 * "[", "not a YAML value after the = (nested too deeply)"),
        ("config dmo", "did you mean demo? Else give a YAML file, or one that ships: demo, demo/compression,"),
        ("config nope", "no such config"),
        ("config demo --set seedd=3", "seedd"),
        ("cohort synth --out OUT --subjects -3", "--subjects must be"),
        ("cohort synth --out OUT --raw --max-rotation 999", "--max-rotation must be between"),
        ("cohort split --manifest none.tsv", "none.tsv"),
        ("encode --model EMPTY --manifest none.tsv --out OUT", "none.tsv"),
        ("report EMPTY", "results.json"),
        ("sample --model EMPTY --out OUT", "config.json is missing"),
        ("fit all --config demo --manifest none.tsv --out OUT", "none.tsv"),
        ("cohort import csv --images EMPTY --table none.csv --out OUT.tsv", "none.csv: no such table"),
        ("cohort import bids nowhere --out OUT", "no such folder"),
        ("cohort import bids --out OUT", "required: FOLDER"),
        ("cohort import table none.csv --map adnii --images . --out OUT", "no such map"),
        ("cohort import table none.csv --map adni --images . --out OUT", "no such table"),
        ("cohort import table none.csv --images . --out OUT", "--map"),
        ("cohort import bidss .", "did you mean bids?"),
        ("cohort check --manifest none.tsv", "no such table"),
        ("cohort check --manifest none.tsv --model EMPTY", "no model here"),
        ("cohort synth --out OUT --anatomy EMPTY --workers 1", "no label map"),
        ("cohort synth --out OUT --max-rotation 30", "add --raw"),
        ("manipulate none.nii --model EMPTY --space natve --direction p --out OUT", "natve"),
        ("export dicom none.nii.gz --out OUT", "no such file"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_code_two(line, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").touch()
    assert run(*line.split()) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["EMPTY", "FILE"], "nothing half-written is left"


def test_verbose_shows_the_traceback_and_config_what_it_resolves_to(tmp_path, capsys):
    assert run("--verbose", "report", tmp_path) == 2
    assert "Traceback" in capsys.readouterr().err
    assert run("config", "demo", "--set", "seed=5") == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 5


def test_an_option_of_several_values_may_be_given_twice(capsys):
    assert run("config", "demo", "--set", "seed=5", "mirror_latents=false", "--set", "sampling.steps=9") == 0
    plain = yaml.safe_load(capsys.readouterr().out)
    assert (plain["seed"], plain["mirror_latents"], plain["sampling"]["steps"]) == (5, False, 9)
