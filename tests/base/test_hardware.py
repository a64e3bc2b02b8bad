import torch

from ldae.base.hardware import PeakMemory, compiled, peak_memory_gib, release_memory, resident_gib


def test_the_peak_is_the_blocks_own():
    release_memory()
    before = resident_gib()
    with PeakMemory(torch.device("cpu")) as high:
        large = torch.ones(64, 2**20).add_(1)  # a quarter of a GiB
        large = torch.cat([large] * 4)  # beyond any earlier test
        del large
    release_memory()
    with PeakMemory(torch.device("cpu")) as low:
        torch.ones(4)
    assert high.peak_gib - before > 0.2
    assert low.peak_gib < high.peak_gib - 0.2
    assert peak_memory_gib() >= 0.99 * high.peak_gib


def test_modules_are_compiled_within_the_block_alone(monkeypatch):
    layer = torch.nn.Linear(2, 2)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: setattr(self, "_compiled_call_impl", torch.neg))
    one = torch.ones(1, 2)
    with compiled([layer]):
        assert torch.equal(layer(one), -one)
    assert torch.equal(layer(one), layer.forward(one))
