import torch

from ldae.models.memory import (
    GIB,
    LiveTensors,
    PeakMemory,
    available_gib,
    peak_memory_gib,
    release_memory,
    resident_gib,
)


def test_the_peak_is_the_blocks_own():
    release_memory()
    before = resident_gib()
    with PeakMemory(torch.device("cpu")) as high:
        torch.ones(64, 2**20).add_(1)  # a quarter of a GiB
    release_memory()
    with PeakMemory(torch.device("cpu")) as low:
        torch.ones(4)
    assert high.peak_gib - before > 0.2
    assert low.peak_gib < high.peak_gib - 0.2
    assert peak_memory_gib() >= 0.99 * high.peak_gib
    assert available_gib() is None or available_gib() > 0


def test_live_tensors_are_counted_once_and_let_go():
    with LiveTensors() as live:
        a = torch.ones(1000)
        b = a.view(10, 100)[2:]  # no memory of its own
        del a, b
        c = torch.ones(500) + 1  # two at once
    assert live.peak_gib == 4000 / GIB
    del c
    assert live._bytes == 0


def test_activations_grow_with_the_batch():
    network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 1))
    peaks = []
    for rows in (1000, 2000):
        with LiveTensors() as live:
            network(torch.ones(rows, 64)).sum().backward()
        peaks.append(live.peak_gib)
    assert 1.9 < peaks[1] / peaks[0] < 2.1
