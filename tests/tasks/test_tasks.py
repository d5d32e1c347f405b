import numpy as np
import pytest
import torch

from sak import tasks
from sak.errors import UserError
from sak.labels import IGNORE

SIZE = (40, 36)
EVERY = [(name, dataset) for name, kind in tasks.TASKS.items() for dataset in kind.channels_of]


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
    task = tasks.build(name, dataset)
    label = label_of(task)
    output = perfect(task, label)
    assert task.loss(output, label).item() == pytest.approx(0, abs=1e-5)
    assert task.loss(torch.roll(output, 5, dims=-1), label).item() > 0.01


@pytest.mark.parametrize(("name", "dataset"), EVERY)
def test_ignored_pixels_do_not_count(name, dataset):
    task = tasks.build(name, dataset)
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
    task = tasks.build(name, dataset)
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
    task = tasks.build(name, dataset)
    label = label_of(task)
    for picture in (
        task.colour(label[0].numpy()),
        task.colour(task.predict(torch.randn(1, task.channels, *SIZE))[0].numpy()),
    ):
        assert picture.shape == (*SIZE, 3)
        assert picture.dtype == np.uint8


def test_constant_of_semseg_is_the_most_frequent_class():
    labels = [torch.tensor([[3, 3, IGNORE], [IGNORE, IGNORE, 5]])]
    assert tasks.build("semseg", "nyud").constants(labels).argmax(1).tolist() == [3]


def test_constant_of_normals_has_the_least_mean_angle():
    task = tasks.build("normals", "nyud")
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
    assert tasks.build("depth", "nyud").constants(labels).item() == pytest.approx(2.0)


def test_unknown_names():
    with pytest.raises(UserError, match="unknown task 'segmentation'; known: semseg, human_parts"):
        tasks.build("segmentation", "nyud")
    with pytest.raises(UserError, match="'nyud' has no task 'saliency'; it has: semseg, normals, edge, depth"):
        tasks.build("saliency", "nyud")
