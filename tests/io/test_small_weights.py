"""A small file keeps what matters of every tensor."""

import pytest
import torch

from ldae.errors import CheckpointError
from ldae.io.checkpoints import pack, unpack


def test_small_and_whole_numbers_stay_and_zero_rows_are_left_out():
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(200, 20, 8, generator=generator)
    sparse = large * (torch.arange(200) % 2)[:, None, None]
    both = sparse * (torch.arange(20) > 4)[:, None]
    tensors = {
        "large": large,
        "sparse": sparse,
        "both": both,
        "small": torch.randn(7, generator=generator),
        "count": torch.arange(20_000),
    }
    packed = pack(tensors)
    assert packed["sparse"].shape == (100, 20, 8)
    assert packed["both"].shape == (100, 15, 8)
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


def test_the_largest_tensors_keep_a_byte_for_each_number():
    dense = torch.randn(260, 128, 128, generator=torch.Generator().manual_seed(1))
    dense[0, :, 5] = 0
    packed = pack({"basis": dense})
    assert packed["basis"].dtype == torch.int8
    back = unpack(packed, {"basis": dense}, where="m")["basis"]
    step = dense.abs().amax(dim=1, keepdim=True) / 127
    assert ((back - dense).abs() <= 0.501 * step).all()
    assert not back[0, :, 5].any()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"w:rows": torch.ones(5)}, "does not say which rows"),
        ({"w:rows": torch.tensor(True)}, "does not say which rows"),
        ({"w:rows": torch.zeros(1 << 20, dtype=torch.bool), "w": torch.empty(0, 1 << 30)}, "another shape"),
        ({"w": torch.ones(2, 3).double()}, "float64"),
        ({"w": torch.ones(2, 3).to(torch.int8)}, "int8"),
        ({"w": torch.ones(2, 3).to(torch.int8), "w:step": torch.ones(2, 3)}, "does not say what the bytes"),
        ({"w": torch.ones(2, 3).to(torch.int8), "w:step": torch.ones(2, 1).int()}, "does not say what the bytes"),
        ({"w": torch.ones(2, 3).to(torch.int8), "w:step": torch.ones(2, 1).to(torch.float8_e5m2)}, "does not say what"),
        ({"w:step": torch.ones(2, 1)}, "does not say what the bytes"),
        ({"w:columns": torch.tensor([True, False])}, "does not say which columns"),
        ({"w:columns": torch.ones(1 << 20, dtype=torch.bool)}, "does not say which columns"),
        ({"v:step": torch.ones(2, 1)}, "does not say what the bytes"),
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
