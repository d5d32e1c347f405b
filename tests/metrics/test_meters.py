"""MeanIoU, MaxF, AngularError and DepthRMSE: values by hand, and what all metrics have in common."""

import math
import subprocess
import sys

import pytest
import torch

from sak.metrics.angular_error import AngularError
from sak.metrics.boundary import BoundaryF
from sak.metrics.max_f import MaxF
from sak.metrics.miou import MeanIoU
from sak.metrics.rmse import DepthRMSE

IGNORE = 255


def generator(seed):
    return torch.Generator().manual_seed(seed)


def classes(high, *shape, seed):
    return torch.randint(high, shape, generator=generator(seed))


def ignore_some(target, seed):
    """Set about a third of the pixels to 255, in all channels."""
    drop = torch.rand(target.shape[0], *target.shape[-2:], generator=generator(seed)) < 0.3
    return target.masked_fill(drop if target.dim() == 3 else drop[:, None], IGNORE)


def miou_batch(seed, batch=3):
    return classes(5, batch, 12, 16, seed=seed), ignore_some(classes(5, batch, 12, 16, seed=seed + 1), seed)


def max_f_batch(seed, batch=3):
    return torch.rand(batch, 12, 16, generator=generator(seed)), ignore_some(classes(2, batch, 12, 16, seed=seed), seed)


def angular_batch(seed, batch=3):
    prediction = torch.randn(batch, 3, 12, 16, generator=generator(seed))
    target = torch.nn.functional.normalize(torch.randn(batch, 3, 12, 16, generator=generator(seed + 1)), dim=1)
    return prediction, ignore_some(target, seed)


def depth_batch(seed, batch=3):
    prediction, target = (10 * torch.rand(batch, 1, 12, 16, generator=generator(seed + i)) for i in range(2))
    return prediction, ignore_some(target, seed)


def boundary_batch(seed, batch=3):
    probability = torch.rand(batch, 1, 24, 32, generator=generator(seed))
    target = (torch.rand(batch, 1, 24, 32, generator=generator(seed + 1)) < 0.1).to(torch.uint8)
    target[..., -4:] = IGNORE  # the padding
    return probability, target


CASES = {
    "miou": (lambda: MeanIoU(5), miou_batch),
    "max_f": (MaxF, max_f_batch),
    "angular_error": (AngularError, angular_batch),
    "rmse": (DepthRMSE, depth_batch),
    "boundary": (lambda: BoundaryF(0.0075), boundary_batch),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def value(metric):
    result = metric.compute()
    result = result if isinstance(result, dict) else {"": result}
    return {key: float(number) for key, number in result.items()}


def test_batches_do_not_matter(case):
    new, batch = case
    (prediction, target), one_by_one, at_once = batch(0, batch=4), new(), new()
    at_once.update(prediction, target)
    for i in range(4):
        one_by_one.update(prediction[i : i + 1], target[i : i + 1])
    assert value(one_by_one) == pytest.approx(value(at_once), rel=1e-9)


def test_states_of_two_processes_add_up(case):
    new, batch = case
    together, parts = new(), [new(), new()]
    for part, seed in zip(parts, (0, 10), strict=True):
        part.update(*batch(seed))
        together.update(*batch(seed))
    merged = new()
    merged.update(*batch(99))  # is overwritten below
    for name, reduction in merged._reductions.items():
        setattr(merged, name, reduction(torch.stack([getattr(part, name) for part in parts])))
    assert value(merged) == pytest.approx(value(together), rel=1e-12)
    assert value(parts[0]) != pytest.approx(value(together), rel=1e-6)


def test_states_are_summed_over_processes(case):
    new, batch = case
    metric = new()
    metric.update(*batch(0))
    before = {name: getattr(metric, name).clone() for name in metric._defaults}
    metric.sync(dist_sync_fn=lambda state, group: [state, state], distributed_available=lambda: True)
    assert all(torch.equal(getattr(metric, name), 2 * state) for name, state in before.items())


def test_states_count_in_whole_numbers(case):
    """float32 would stop counting at 2^24 pixels, which 65 images of 512 x 512 have."""
    new, batch = case
    metric = new()
    metric.update(*batch(0))
    assert {getattr(metric, name).dtype for name in metric._defaults} == {torch.int64}


def test_reset_forgets(case):
    new, batch = case
    metric, fresh = new(), new()
    metric.update(*batch(0))
    metric.reset()
    metric.update(*batch(10))
    fresh.update(*batch(10))
    assert value(metric) == value(fresh)


def test_inputs_are_left_alone(case):
    new, batch = case
    inputs = batch(0)
    copies = [tensor.clone() for tensor in inputs]
    new().update(*inputs)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, copies, strict=True))


def test_what_is_ignored_does_not_count(case):
    new, batch = case
    prediction, target = batch(0)
    ignored = (target == IGNORE).all(1) if target.dim() == 4 else target == IGNORE
    garbage = prediction.clone()
    (garbage.movedim(1, -1) if garbage.dim() == 4 else garbage)[ignored] = 1
    one, two = new(), new()
    one.update(prediction, target)
    two.update(garbage, target)
    assert not torch.equal(prediction, garbage)
    assert value(one) == pytest.approx(value(two), rel=1e-12)


def test_all_ignored_changes_nothing(case):
    new, batch = case
    metric, (prediction, target) = new(), batch(0)
    metric.update(prediction, target)
    before = value(metric)
    metric.update(prediction, torch.full_like(target, IGNORE))
    metric.update(prediction[:0], target[:0])
    assert value(metric) == before


def test_only_ignored_pixels_do_not_crash(case):
    new, batch = case
    metric, (prediction, target) = new(), batch(0)
    metric.update(prediction, torch.full_like(target, IGNORE))
    assert all(math.isnan(number) or number == 0 for number in value(metric).values())


def test_float_labels_and_half_precision_predictions(case):
    new, batch = case
    prediction, target = batch(0)
    if not prediction.is_floating_point():
        return
    one, two = new(), new()
    one.update(prediction.bfloat16(), target)
    two.update(prediction.bfloat16().float(), target)
    assert value(one) == value(two)


def test_miou_by_hand():
    metric = MeanIoU(4)
    prediction = torch.tensor([[[0, 0, 1, 1, 2, 2]]])
    target = torch.tensor([[[0, 1, 1, 1, 1, 255]]])
    metric.update(prediction, target)
    # Class 0: 1 / 2; class 1: 2 / 4; class 2: predicted once, never true; class 3: nowhere, counts 0.
    assert float(metric.compute()) == pytest.approx(100 * (1 / 2 + 2 / 4 + 0 + 0) / 4)


def test_miou_pools_pixels_not_images():
    metric = MeanIoU(2)
    metric.update(torch.tensor([[[0, 0, 0, 0]]]), torch.tensor([[[0, 0, 0, 1]]]))
    metric.update(torch.tensor([[[1, 1]]]), torch.tensor([[[1, 1]]]))
    assert float(metric.compute()) == pytest.approx(100 * (3 / 4 + 2 / 3) / 2)


def test_miou_of_classes_of_one_pixel():
    metric = MeanIoU(4)
    metric.update(torch.tensor([[[0, 1, 3, 3]]]), torch.tensor([[[0, 1, 2, 2]]]))
    assert float(metric.compute()) == 50


def test_max_f_by_hand():
    metric = MaxF()
    probability = torch.tensor([[[0.97, 0.62, 0.62, 0.32, 0.01]], [[0.01, 0.01, 0.62, 0.01, 0.99]]])
    target = torch.tensor([[[1, 1, 0, 1, 0]], [[0, 0, 1, 0, 255]]])
    metric.update(probability, target)
    result = metric.compute()
    # t <= 0.3: tp 4, predicted 5 of 4; t <= 0.6: tp 3, predicted 4; beyond: tp 1, predicted 1.
    f = [1.3 * p * r / (0.3 * p + r) for p, r in ((4 / 5, 1), (3 / 4, 3 / 4), (1, 1 / 4))]
    assert float(result["max_f"]) == pytest.approx(100 * max(f))
    assert float(result["miou"]) == pytest.approx(100 * (3 / 4 + 1) / 2)


def test_max_f_of_images_without_foreground():
    metric = MaxF()
    nothing = torch.zeros(1, 2, 2, dtype=torch.int64)
    metric.update(torch.full((1, 2, 2), 0.01), nothing)
    assert value(metric) == {"max_f": 0, "miou": 100}
    metric.update(torch.full((1, 2, 2), 0.97), nothing)  # wrong at every threshold
    assert value(metric) == {"max_f": 0, "miou": 50}
    metric.update(torch.full((2, 1, 1), 0.97), nothing[:, :1, :1].expand(2, 1, 1))  # wrong in their only pixel
    assert value(metric) == {"max_f": 0, "miou": 25}


def test_max_f_thresholds_are_reached_by_equality():
    metric = MaxF()
    thresholds = torch.arange(1, 20) / 20
    metric.update(thresholds.view(1, 1, -1), torch.ones(1, 1, 19, dtype=torch.int64))
    assert metric.predicted.tolist() == list(range(19, 0, -1))


def test_angular_error_by_hand():
    metric = AngularError()
    target = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [255.0, 255.0, 255.0]])
    angles = torch.tensor([0.0, 30.0, 180.0, 77.0]).deg2rad()
    prediction = torch.stack([angles.sin(), torch.zeros(4), angles.cos()], dim=1) * torch.tensor([[1], [7], [0.1], [1]])
    metric.update(prediction.T.reshape(1, 3, 2, 2), target.T.reshape(1, 3, 2, 2))
    assert float(metric.compute()) == pytest.approx((0 + 30 + 180) / 3, rel=1e-6)


def test_a_normal_that_is_ignored_in_one_channel_does_not_count():
    metric = AngularError()
    target = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).repeat(1, 1, 1, 4)
    for channel in range(3):
        target[0, channel, 0, channel] = 255
    metric.update(torch.tensor([0.6, 0.0, 0.8]).view(1, 3, 1, 1).expand_as(target), target)
    assert metric.pixels == 1
    assert float(metric.compute()) == pytest.approx(math.degrees(math.acos(0.8)), rel=1e-6)


def test_angular_error_of_tiny_angles():
    metric = AngularError()
    prediction = torch.tensor([1e-5, 0.0, 1.0]).view(1, 3, 1, 1)
    metric.update(prediction, torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1))
    assert float(metric.compute()) == pytest.approx(math.degrees(1e-5), rel=1e-4)


def test_rmse_by_hand():
    metric = DepthRMSE()
    prediction = torch.tensor([1.0, 3.0, -2.0, 9.0, 9.0, 9.0]).view(1, 1, 2, 3)
    target = torch.tensor([2.0, 5.0, 2.0, 0.0, 255.0, 80.0]).view(1, 1, 2, 3)
    metric.update(prediction, target)
    # A depth is not negative: -2 counts as 0. What is 0, 80 or more is not a measurement.
    assert float(metric.compute()) == pytest.approx(math.sqrt((1 + 4 + 4) / 3))


def test_rmse_is_as_precise_as_its_inputs():
    error = 9 + 2.0**-20  # float32 holds it, but not its square
    metric = DepthRMSE()
    metric.update(torch.full((1, 1, 2, 3), 1 + error), torch.ones(1, 1, 2, 3))
    assert float(metric.compute()) == pytest.approx(error, rel=1e-11)


def test_boundaries_matched_by_workers_are_the_same():
    alone, shared = BoundaryF(0.0075), BoundaryF(0.0075, workers=1)
    for seed in (0, 1, 2, 3):
        alone.update(*boundary_batch(seed))
        shared.update(*boundary_batch(seed))
    assert value(shared) == value(alone)
    shared.update(*boundary_batch(9))
    shared.reset()  # forgets what the workers still hold
    shared.update(*boundary_batch(0))
    assert value(shared) != value(alone)
    assert shared.pooled.sum() < alone.pooled.sum()


@pytest.mark.slow  # libraries are imported in two processes
def test_workers_need_no_guard_in_the_callers_script():
    script = """
import torch
from sak.metrics.boundary import BoundaryF
print("once")
metric = BoundaryF(0.0075, workers=1)
metric.update(torch.rand(2, 1, 16, 16), torch.zeros(2, 1, 16, 16, dtype=torch.uint8))
print(float(metric.compute()["ods_f"]))
"""
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "once\n0.0\n"), done.stderr
