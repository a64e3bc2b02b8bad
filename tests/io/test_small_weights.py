"""A small file keeps what matters of every tensor."""

import pytest
import torch

from ldae.errors import CheckpointError
from ldae.io.checkpoints import pack, unpack


def test_small_and_whole_numbers_stay_and_zero_rows_are_left_out():
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(200, 20, 8, generator=generator)
    sparse = large * (torch.arange(200) % 2)[:, None, None]
    tensors = {
        "large": large,
        "sparse": sparse,
        "small": torch.randn(7, generator=generator),
        "count": torch.arange(20_000),
    }
    packed = pack(tensors)
    assert packed["sparse"].shape == (100, 20, 8)
    assert packed["large"].dtype == packed["sparse"].dtype == torch.float16
    back = unpack(packed, tensors, where="m")
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        torch.testing.assert_close(back[name], tensor, atol=2e-3, rtol=1e-3)
    for name in ("small", "count"):
        assert torch.equal(back[name], tensors[name])
    assert not back["sparse"][::2].any()
    assert unpack(tensors, tensors, where="m").keys() == tensors.keys(), "a whole file is taken as it is"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"w:rows": torch.ones(5)}, "does not say which rows"),
        ({"w:rows": torch.tensor(True)}, "does not say which rows"),
        ({"w:rows": torch.zeros(1 << 20, dtype=torch.bool), "w": torch.empty(0, 1 << 30)}, "another shape"),
        ({"w": torch.ones(2, 3).double()}, "float64"),
        ({"w": torch.ones(2, 3).int()}, "int32"),
        ({"w": torch.full((2, 3), torch.nan).half()}, "not all finite"),
    ],
)
def test_tensors_that_are_not_as_the_config_says_are_refused(change, says):
    whole = {"w:rows": torch.tensor([True, False, True, False]), "w": torch.ones(2, 3).half()}
    expected = {"w": torch.empty(4, 3, device="meta")}
    assert unpack(whole, expected, where="m")["w"].sum() == 6
    with pytest.raises(CheckpointError, match=says):
        unpack(whole | change, expected, where="m")
