"""Two processes that share a batch have the gradients, running statistics and moments of one."""

import sys
from pathlib import Path

import pytest
import torch

from ldae.base.launch import launch

PROGRAM = """
import sys
import torch
from torch.nn.parallel import DistributedDataParallel
from ldae.base import ranks

torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double
ranks.join(torch.device("cpu"))
torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Conv1d(3, 4, 3), torch.nn.BatchNorm1d(4), torch.nn.Tanh(), torch.nn.Conv1d(4, 2, 3),
    torch.nn.BatchNorm1d(2, momentum=0.05, affine=False),
)
x = 3 + torch.randn(8, 3, 9)
held = len(x) // ranks.world()
share = x[ranks.rank() * held : (ranks.rank() + 1) * held]
ranks.share_batch_norms(network)
model = DistributedDataParallel(network) if ranks.world() > 1 else network
(model(share) - 1).abs().pow(3).mean().backward()
mean, std = ranks.channel_statistics([each[None] for each in share])
found = {name: each.grad for name, each in network.named_parameters()}
found |= {f"state {name}": each for name, each in network.state_dict().items()} | {"mean": mean, "std": std}
found |= ranks.mean({"rows": torch.tensor(float(len(share))) * ranks.world()})
with torch.no_grad():
    network[0].bias.fill_(ranks.rank())
ranks.from_first(network)
found["from first"] = network[0].bias.detach()
assert ranks.gather(ranks.rank()) == list(range(ranks.world()))
for jobs in range(6):
    assert ranks.gather_dealt(ranks.own_part().choose(range(jobs))) == list(range(jobs))
ranks.barrier()
first = ranks.rank() == 0
ranks.leave()
assert ranks.world() == 1
if first:
    torch.save(found, sys.argv[1])
else:
    assert not network[0].bias.any()
"""


@pytest.mark.slow
def test_two_processes_are_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch([sys.executable, "-c", PROGRAM, str(tmp_path / "2")], 2) == 0
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "1")])
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    try:
        exec(PROGRAM, {})
    finally:
        torch.set_default_dtype(torch.float32)
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in "12")
    assert one.keys() == two.keys()
    assert one["0.weight"].abs().max() > 1e-3
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-12, atol=1e-12, msg=name)
    assert one["mean"].mean() == pytest.approx(3, abs=0.5)
