"""A small file keeps what matters of every tensor."""

import torch

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
    back = unpack(packed)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        torch.testing.assert_close(back[name], tensor, atol=2e-3, rtol=1e-3)
    for name in ("small", "count"):
        assert torch.equal(back[name], tensors[name])
    assert not back["sparse"][::2].any()
    assert unpack(tensors).keys() == tensors.keys(), "a whole file is taken as it is"
