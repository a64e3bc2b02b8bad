import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldae.codes import Codes, Origin, interpolate, lerp, slerp
from ldae.volume import Grid

weights = st.floats(0, 1)


@given(weights)
def test_slerp_keeps_the_norm_of_equal_norms(weight):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 4, 5, generator=generator).double() for _ in range(2))
    b *= a.norm() / b.norm()
    assert float(slerp(a, b, weight).norm()) == pytest.approx(float(a.norm()), rel=1e-9)


@given(weights)
def test_swapping_the_ends_mirrors_the_path_and_ends_are_exact(weight):
    a, b = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 1.0])
    for path in (lerp, slerp):
        torch.testing.assert_close(path(a, b, weight), path(b, a, 1 - weight), atol=1e-5, rtol=1e-5)
        assert torch.equal(path(a, b, 0.0), a)
        assert torch.equal(path(a, b, 1.0), b)


def test_slerp_bisects_a_right_angle_and_is_a_line_between_parallel_ends():
    half = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    torch.testing.assert_close(half, torch.full((2,), 0.5**0.5))
    a = torch.ones(4)
    torch.testing.assert_close(slerp(a, 2 * a, 0.25), 1.25 * a)


def test_codes_interpolate_both_codes_and_the_window():
    grid = Grid((2, 2, 2), np.eye(4))
    first = Codes(torch.zeros(3), torch.tensor([1.0, 0.0]), grid, (0.0, 10.0))
    second = Codes(torch.ones(3), torch.tensor([0.0, 1.0]), grid, (2.0, 20.0))
    between = interpolate(first, second, 0.5)
    torch.testing.assert_close(between.semantic, torch.full((3,), 0.5))
    assert float(between.noise.norm()) == pytest.approx(1.0)
    assert between.window == (1.0, 15.0)
    assert interpolate(first.with_semantic(torch.ones(3)), second, 0.5).semantic.tolist() == [1.0] * 3


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [1],
        "x",
        {},
        {"model": "m", "preprocessing": [], "version": "1"},
        {"model": 1, "preprocessing": {}, "version": "1"},
    ],
)
def test_plain_values_that_are_no_origin_are_refused(plain):
    with pytest.raises(ValueError, match=r"the origin must hold model \(text\), preprocessing \(a group\)"):
        Origin.of(plain)
    known = {"model": "m", "preprocessing": {"modality": "T1w"}, "version": "1"}
    assert Origin.of(known) == Origin(**known)
