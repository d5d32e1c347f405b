import numpy as np
import pytest
import torch

from sak import data
from sak.errors import UserError
from sak.labels import IGNORE

SIZE = (40, 36)
EVERY = [(name, dataset) for dataset in ("pascal_context", "nyud") for name in data.described(dataset).tasks]


def label_of(task, seed=0):
    """A random label with an ignored corner, batch first."""
    random = np.random.default_rng(seed)
    if task.name in ("semseg", "human_parts", "saliency"):
        label = torch.from_numpy(random.integers(0, task.channels, (2, *SIZE)))
        label[:, :3, :3] = IGNORE
        return label
    if task.name == "normals":
        label = torch.nn.functional.normalize(torch.from_numpy(random.normal(size=(2, 3, *SIZE))).float(), dim=1)
    elif task.name == "edge":
        label = torch.from_numpy(random.integers(0, 2, (2, 1, *SIZE))).float()
    else:
        label = torch.from_numpy(random.uniform(1, 5, (2, 1, *SIZE))).float()
    label[:, :, :3, :3] = IGNORE
    return label


def perfect(task, label):
    """Raw outputs that predict the label."""
    if task.name in ("semseg", "human_parts", "saliency"):
        return 40 * torch.nn.functional.one_hot(label.where(label != IGNORE, 0), task.channels).movedim(-1, 1).float()
    return 40 * (2 * label - 1) if task.name == "edge" else label


@pytest.mark.parametrize(("name", "dataset"), EVERY)
def test_loss_of_a_perfect_prediction_is_zero_and_of_another_is_not(name, dataset):
    task = data.described(dataset).build(name)
    label = label_of(task)
    output = perfect(task, label)
    assert task.loss(output, label).item() == pytest.approx(0, abs=1e-5)
    assert task.loss(torch.roll(output, 5, dims=-1), label).item() > 0.01


LN2 = float(np.log(2))


@pytest.mark.parametrize(
    ("name", "output", "label", "loss"),
    [
        # No opinion: the cross-entropy of every pixel is the logarithm of the number of classes.
        ("semseg", torch.zeros(1, 40, 1, 4), [[[7, 0, 39, IGNORE]]], float(np.log(40))),
        # One of four valid pixels is salient and weighs 3/4, the others 1/4 each.
        ("saliency", torch.zeros(1, 2, 1, 5), [[[1, 0, 0, 0, IGNORE]]], (0.75 + 3 * 0.25) * LN2 / 4),
        (
            "saliency",
            torch.zeros(1, 2, 1, 2),
            [[[1, 1]]],
            0.0,
        ),  # a class that is not there lets the other weigh nothing
        ("edge", torch.zeros(1, 1, 1, 5), [[[[1.0, 0, 0, 0, IGNORE]]]], (0.95 + 3 * 0.05) * LN2 / 4),
        # Unit vectors at right angles, whatever the output's length; one pixel is ignored in a single channel.
        (
            "normals",
            torch.tensor([5.0, 0, 0]).view(1, 3, 1, 1).repeat(1, 1, 1, 2),
            [[[[0, 0]], [[0, IGNORE]], [[1, 1]]]],
            2.0,
        ),
        ("depth", torch.full((1, 1, 1, 3), 4.0), [[[[1.0, 6.0, IGNORE]]]], (3 + 2) / 2),
    ],
)
def test_losses_by_hand(name, output, label, loss):
    task = data.described("nyud" if name in ("semseg", "depth") else "pascal_context").build(name)
    label = torch.tensor(label, dtype=torch.int64 if name in ("semseg", "saliency") else torch.float32)
    assert task.loss(output, label).item() == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(("name", "dataset"), EVERY)
@pytest.mark.parametrize("seed", range(3))
def test_losses_and_weights_are_those_written_out_plainly(name, dataset, seed, reference):
    task, plain = data.described(dataset).build(name), reference("step")
    label = label_of(task, seed)
    if name in ("saliency", "edge"):  # uneven classes
        rare = torch.rand(label.shape, generator=torch.Generator().manual_seed(seed)) < 0.2
        label = label.where(label == IGNORE, rare.to(label.dtype))
    output = torch.randn(2, task.channels, *SIZE, generator=torch.Generator().manual_seed(seed))
    one, other = output.clone().requires_grad_(), output.clone().requires_grad_()
    ours, expected = task.loss(one, label), plain.task_loss(name, other, label)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
    ours.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-8)
    assert task.weight == plain.WEIGHTS[name]
    assert task.loss(output.bfloat16(), label).dtype == torch.float32


@pytest.mark.parametrize(("name", "dataset"), EVERY)
def test_ignored_pixels_do_not_count(name, dataset):
    task = data.described(dataset).build(name)
    label = label_of(task)
    output = torch.randn(2, task.channels, *SIZE)
    changed = output.clone()
    changed[..., :3, :3] = 7
    assert torch.equal(task.loss(output, label), task.loss(changed, label))
    everything = torch.full_like(label, IGNORE)
    assert task.loss(output.requires_grad_(), everything).item() == 0
    task.loss(output, everything).backward()
    assert output.grad.isfinite().all()


@pytest.mark.parametrize(("name", "dataset"), EVERY)
def test_metric_of_a_perfect_prediction(name, dataset):
    task = data.described(dataset).build(name)
    label = label_of(task)
    metric = task.new_metric()
    batch = {name: label}
    if name == "edge":  # a closed curve: loose ends of a line would be thinned away
        label.fill_(0)
        label[:, :, 10:30, 10:25] = 1
        label[:, :, 11:29, 11:24] = 0
        batch = {"edge": label, "boundaries": label.byte()}
    metric.update(task.predict(perfect(task, label)), task.truth(batch))
    values = task.measured(metric)
    assert list(values) == list(task.measures)
    best = {"miou": 100, "max_f": 100, "ods_f": 100, "mean_error": 0, "rmse": 0}
    headline = next(iter(task.measures))
    # Non-maximum suppression and thinning cost a curve its corners.
    assert values[headline] == pytest.approx(best[headline], abs=5 if name == "edge" else 0.1)


@pytest.mark.parametrize(("name", "dataset"), EVERY)
def test_colours_are_pictures(name, dataset):
    task = data.described(dataset).build(name)
    label = label_of(task)
    for picture in (
        task.colour(label[0].numpy()),
        task.colour(task.predict(torch.randn(1, task.channels, *SIZE))[0].numpy()),
    ):
        assert picture.shape == (*SIZE, 3)
        assert picture.dtype == np.uint8


def test_constant_of_semseg_is_the_most_frequent_class():
    labels = [torch.tensor([[3, 3, IGNORE], [IGNORE, IGNORE, 5]])]
    assert data.described("nyud").build("semseg").constants(labels).argmax(1).tolist() == [3]


def test_constant_of_normals_has_the_least_mean_angle():
    task = data.described("nyud").build("normals")
    label = torch.nn.functional.normalize(
        torch.tensor([0.3, -0.2, 1.0])[:, None, None] + 0.6 * torch.randn(3, 20, 20), dim=0
    )
    label[:, 0, 0] = IGNORE
    metric_of = {}
    best = task.constants([label])[0]
    for name, vector in {"best": best, **{str(i): best + 0.05 * torch.randn(3) for i in range(20)}}.items():
        metric = task.new_metric()
        metric.update(task.predict(vector.view(1, 3, 1, 1).expand(1, 3, 20, 20)), label[None])
        metric_of[name] = float(metric.compute())
    assert min(metric_of, key=metric_of.get) == "best"


def test_constant_of_depth_is_the_mean():
    labels = [torch.tensor([[[1.0, 2.0], [3.0, IGNORE]]])]
    assert data.described("nyud").build("depth").constants(labels).item() == pytest.approx(2.0)


def test_unknown_names():
    with pytest.raises(UserError, match="unknown task 'segmentation'; known: semseg, human_parts"):
        data.described("nyud").build("segmentation")
    with pytest.raises(UserError, match="NYUD-v2 has no task 'saliency': it has semseg, normals, edge, depth"):
        data.described("nyud").build("saliency")


def test_of_equally_high_classes_the_first_is_predicted():
    output = torch.randint(0, 3, (2, 21, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    semseg = data.described("pascal_context").build("semseg")
    for maps in (output, output.contiguous(memory_format=torch.channels_last)):
        assert semseg.predict(maps).tolist() == maps.numpy().argmax(1).tolist()


def test_normals_are_unit_vectors_and_a_null_vector_has_no_gradient():
    output = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    output[0, :, 0] = 0
    ours, reference = output.clone().requires_grad_(), output.clone().requires_grad_()
    normals = data.described("pascal_context").build("normals")
    predicted, expected = normals.predict(ours), torch.nn.functional.normalize(reference, dim=1)
    torch.testing.assert_close(predicted, expected, rtol=1e-6, atol=1e-7)
    for maps in (predicted, expected):
        (maps * torch.arange(3)[:, None, None]).sum().backward()
    finite = output.norm(dim=1, keepdim=True) > 0
    torch.testing.assert_close(ours.grad * finite, reference.grad * finite, rtol=1e-5, atol=1e-6)
    assert ours.grad.isfinite().all()
