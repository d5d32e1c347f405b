import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from sak.student.head import Head
from sak.student.upsampled_conv import upsampled_conv3x3


def plain(grid, weight, bias, size):
    """As the paper puts it: upsample, then convolve."""
    large = F.interpolate(grid.movedim(-1, 1), size=size, mode="bilinear", align_corners=False)
    return F.conv2d(large, weight, bias, padding=1).movedim(1, -1)


def tensors(h, w, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, h, w, 5), (7, 5, 3, 3), (7,))
    return [torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize(
    ("grid", "size"),
    [((4, 6), (16, 24)), ((3, 5), (6, 10)), ((1, 1), (4, 4)), ((2, 7), (9, 8)), ((5, 4), (5, 4)), ((8, 8), (4, 6))],
)
def test_values_and_gradients_equal_the_plain_form(grid, size):
    ours, reference = tensors(*grid), tensors(*grid)
    out, expected = upsampled_conv3x3(*ours, size), plain(*reference, size)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    direction = torch.randn(expected.shape, dtype=torch.float64)
    (out * direction).sum().backward()
    (expected * direction).sum().backward()
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-6)


def test_single_precision():
    out, expected = (f(*tensors(8, 8, torch.float32), (32, 32)) for f in (upsampled_conv3x3, plain))
    assert (out - expected).norm() < 1e-6 * expected.norm()


def test_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = upsampled_conv3x3(*tensors(8, 8, torch.float32), (32, 32))
    assert out.dtype == torch.bfloat16
    expected = plain(*tensors(8, 8, torch.float32), (32, 32))
    assert (out - expected).norm() < 0.01 * expected.norm()


def test_half_precision_rounds_little_more_than_torch_does():
    """Which sums all taps of all channels before it rounds."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 16, 16, 96), (64, 96, 3, 3), (64,))
    grid, weight, bias = (torch.randn(shape, generator=generator).bfloat16() for shape in shapes)
    exact = plain(grid.double(), weight.double(), bias.double(), (64, 64))
    ours, theirs = (
        (f(grid, weight, bias, (64, 64)).double() - exact).norm() / exact.norm() for f in (upsampled_conv3x3, plain)
    )
    assert ours < 1.45 * theirs


def in_fake_tensors(module, images):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        module([mode.from_tensor(level) for level in images], (64, 96))


def exported(module, images):
    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = module

        def forward(self, *levels):
            return self.head(list(levels), (64, 96))

    torch.testing.assert_close(
        torch.export.export(Wrapped(), tuple(images)).module()(*images), module(images, (64, 96))
    )


def compiled(module, images):
    fast = torch.compile(module, backend="aot_eager")
    torch.testing.assert_close(fast(images, (64, 96)), module(images, (64, 96)), rtol=1e-4, atol=1e-5)


def in_inference_mode(module, images):
    with torch.inference_mode():
        module(images, (64, 96))


@pytest.mark.parametrize("used_before", [in_fake_tensors, exported, compiled, in_inference_mode])
def test_whoever_uses_it_first_leaves_nothing_behind(used_before):
    head = Head(width=16, levels=4, channels=3).eval()
    levels = [torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    used_before(head, levels)
    out = head(levels, (64, 96))
    assert type(out) is torch.Tensor
    out.sum().backward()
    assert head.fuse[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
def test_head_equals_the_plain_head(training):
    head = Head(width=16, levels=4, channels=3).train(training)
    levels = [torch.randn(2, 16, 4, 6) for _ in range(4)]

    projected = [p(x.movedim(1, -1)).movedim(-1, 1) for p, x in zip(head.projections, levels, strict=True)]
    large = F.interpolate(torch.cat(projected, 1), size=(16, 24), mode="bilinear", align_corners=False)
    expected = F.interpolate(head.classify(head.fuse(large)), size=(64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head(levels, (64, 96)), expected, rtol=1e-4, atol=1e-5)
