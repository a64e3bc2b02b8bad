"""A model as a MONAI bundle."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser, run, verify_net_in_out

import ldae
from ldae.atlas import load_template
from ldae.autoencoder import stack_images
from ldae.errors import OutputError
from ldae.tasks.bundle import export_bundle
from ldae.volume import Volume, write_volume


@pytest.fixture
def bundle(tiny_model, tmp_path):
    return export_bundle(tiny_model.save_pretrained(tmp_path / "tiny"), tmp_path / "bundle")


def test_monai_verifies_and_runs_the_network(bundle, tiny_model, head):
    configs = [str(bundle / "configs" / name) for name in ("metadata.json", "inference.json")]
    verify_net_in_out("network_def", *configs, device="cpu", bundle_root=str(bundle))
    parser = ConfigParser(json.loads((bundle / "configs" / "inference.json").read_text()))
    parser["bundle_root"] = str(bundle)
    images = stack_images([tiny_model.prepare(head(1))])
    found = parser.get_parsed_content("network_def")(images)
    torch.testing.assert_close(found, tiny_model.semantic(images))


def test_the_bundle_is_a_model(bundle, tiny_model):
    assert ldae.from_pretrained(bundle).fingerprint() == tiny_model.fingerprint()


def test_its_workflow_encodes_scans(bundle, tiny_model, tmp_path):
    template = load_template(4.0)
    brain = template.t1.data * (template.brain_mask.data > 0.5)
    scan = write_volume(Volume(brain, template.grid.affine), tmp_path / "brain.nii.gz")
    with pytest.raises(SystemExit) as ended:  # with the exit code of 'ldae encode'
        run(
            config_file=str(bundle / "configs" / "inference.json"),
            meta_file=str(bundle / "configs" / "metadata.json"),
            bundle_root=str(bundle),
            scans=[str(scan)],
            output=str(tmp_path / "codes.parquet"),
        )
    assert not ended.value.code
    codes = pd.read_parquet(tmp_path / "codes.parquet").filter(regex=r"^y\d+$").to_numpy()
    np.testing.assert_allclose(codes[0], tiny_model.encode(scan, noise=False).numpy(), atol=1e-4)


def test_another_folder_is_not_replaced(bundle, tmp_path):
    with pytest.raises(OutputError, match="lies in the model's own folder"):
        export_bundle(tmp_path / "tiny", tmp_path / "tiny" / "bundle")
    with pytest.raises(OutputError, match="or --force to replace this one"):
        export_bundle(tmp_path / "tiny", bundle)
    export_bundle(bundle, tmp_path / "again")
    export_bundle(tmp_path / "tiny", bundle, force=True)
    with pytest.raises(OutputError, match=r"there is something already; give a new folder with --out$"):
        export_bundle(bundle, tmp_path / "tiny", force=True)
