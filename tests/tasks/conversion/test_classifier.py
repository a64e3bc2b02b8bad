"""Published classifiers as probes."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ldae.errors import CheckpointError
from ldae.tasks.conversion.classifier import convert_classifier
from ldae.tasks.edit.direction import manipulate_codes
from ldae.tasks.probe.linear import LinearProbe
from tests.command_line import run

WIDTH = 16


@pytest.fixture
def files(tmp_path):
    """A linear layer and the statistics of its codes, each in another format."""
    torch.manual_seed(0)
    layer, mean, std = torch.nn.Linear(WIDTH, 1), torch.randn(1, WIDTH), torch.rand(WIDTH) + 0.5
    torch.save({"state_dict": {f"classifier.{k}": v for k, v in layer.state_dict().items()}}, tmp_path / "linear.ckpt")
    np.save(tmp_path / "mean.npy", mean.numpy())
    torch.save(std, tmp_path / "std.pt")
    return layer.requires_grad_(False), mean, std, [tmp_path / name for name in ("linear.ckpt", "mean.npy", "std.pt")]


def test_published_edits_and_predictions_are_repeated(files, tiny_model, head, tmp_path):
    layer, mean, std, paths = files
    model = tiny_model.save_pretrained(tmp_path / "model")
    names = [f"--{name}={path}" for name, path in zip(("classifier", "mean", "std"), paths, strict=True)]
    assert run("convert", "probe", *names, "--model", model, "--out", tmp_path / "probe.json") == 0
    probe = LinearProbe.load(tmp_path / "probe.json")
    assert (probe.origin, probe.penalty) == (tiny_model.origin, None)
    codes = tiny_model.encode(head(1), preprocess=False, noise=False)
    standardised = (codes.semantic - mean) / std
    moved = (standardised + 3.0 * torch.nn.functional.normalize(layer.weight)) * std + mean
    torch.testing.assert_close(manipulate_codes(codes, probe.step, 3.0).semantic, moved[0], atol=1e-5, rtol=1e-5)
    expected = torch.sigmoid(layer(standardised)).numpy()[0]
    np.testing.assert_allclose(probe.predict(codes.semantic.double().numpy()[None]), expected, atol=1e-6)


def test_averaged_weights_come_first_and_a_bias_is_not_needed(files, tiny_model, tmp_path):
    layer, _, _, (_, mean, std) = files
    both = {"classifier.weight": layer.weight + 1, "ema_classifier.weight": layer.weight}
    save_file(both, tmp_path / "two.safetensors")
    probe = convert_classifier(tmp_path / "two.safetensors", mean, std, tiny_model)
    np.testing.assert_array_equal(probe.weights, layer.weight[0].double().numpy())
    assert probe.intercept == 0


def test_what_is_no_classifier_is_named(files, tiny_model, tmp_path):
    _, _, _, (classifier, mean, std) = files
    path = tmp_path / "other"
    for content, words, place in (
        ({"weight": torch.zeros(2, WIDTH)}, "one linear layer with one output", 0),
        ({"weight": torch.zeros(1, 5)}, "16 finite numbers are expected", 0),
        (torch.full((WIDTH,), torch.nan), "16 finite numbers are expected", 1),
        ({"a": torch.zeros(1), "b": torch.zeros(1)}, "holds 2 tensors", 1),
        (-torch.ones(WIDTH), "must be above 0", 2),
    ):
        torch.save(content, path)
        paths = [classifier, mean, std]
        paths[place] = path
        with pytest.raises(CheckpointError, match=words):
            convert_classifier(*paths, tiny_model)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="not an array of numbers"):
        convert_classifier(classifier, tmp_path / "objects.npy", std, tiny_model)
