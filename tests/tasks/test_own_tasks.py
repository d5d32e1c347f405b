"""Tasks of one's own: where their labels are read, what happens to each kind, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from sak import data
from sak.config.schema import DataConfig
from sak.data import transforms
from sak.errors import UserError
from sak.labels import IGNORE
from sak.tasks import Depth, Edge, Kind, Normals, TaskDescription, find_task

CODE = '''
import numpy as np
from PIL import Image
from sak.tasks import Depth, Edge, Kind, SemSeg, Task, TaskDescription
from sak.tasks.semseg import Segmentation


class Shade(Depth):
    """How bright it is, read from the images themselves."""

    name, kind = "shade", Kind.FIELD
    files = (("JPEGImages/{}.jpg",),)

    @staticmethod
    def read(path):
        return np.asarray(Image.open(path).convert("L"), np.float32)[..., None] / 256


class Cracks(Edge):
    name = "cracks"


class Materials(Segmentation):
    name, weight = "materials", 1.0


class Placeless(Depth):
    name = "placeless"


class Nameless(Segmentation):
    weight = 1.0


class Taken(Depth):
    pass


class Reserved(Depth):
    name = "boundaries"


class Other(Depth):
    name = "shade"


class Half(Task):
    name, kind, weight, measures, units = "half", Kind.FIELD, 1.0, {"x": "lower"}, ""
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_tasks_of_a_test.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name: f"own_tasks_of_a_test:{name}"


def test_a_task_of_ones_own_on_pascal_context(own, archive):
    settings = DataConfig(
        dataset="pascal_context", root=str(archive), tasks=["semseg", own("Shade")], image_size=[96, 96]
    )
    found = data.build(settings, "train")
    assert found.tasks == ("semseg", "shade")
    sample = found[0]
    top, left = transforms.margins([int(side) for side in sample["size"]], (96, 96))
    grey = np.asarray(Image.open(found.image_files[0]).convert("L"), np.float32) / 256
    height, width = grey.shape
    np.testing.assert_array_equal(sample["shade"][0, top : top + height, left : left + width], grey)
    assert "shade" not in data.build(settings, "train", tasks=["semseg"])[0]
    with pytest.raises(UserError, match="knows nothing of the task 'placeless': its class has to have default, files"):
        data.build(DataConfig(**{**vars(settings), "tasks": [own("Placeless")]}), "train")


@pytest.mark.parametrize(
    ("kind", "base", "flipped", "enlarged"),
    [
        (Kind.VECTORS, Normals, [-0.6, 0.0, 0.8], [0.6, 0.0, 0.8]),
        (Kind.DISTANCE, Depth, [3.0], [2.0]),
        (Kind.FIELD, Depth, [3.0], [3.0]),
        (Kind.BOUNDARY, Edge, [1.0], [1.0]),
    ],
)
def test_what_happens_to_a_label_follows_from_its_kind(kind, base, flipped, enlarged):
    class Own(base):
        name = "own"

    Own.kind = kind
    tasks = {"own": Own(base.default)}
    values = {Kind.VECTORS: [0.6, 0.0, 0.8], Kind.BOUNDARY: [1.0]}.get(kind, [3.0])
    label = np.full((4, 6, len(values)), values, np.float32)
    label[0] = IGNORE
    sample = {"image": np.zeros((4, 6, 3), np.uint8), "own": label}
    mirrored = transforms.flip(sample, tasks)["own"]
    np.testing.assert_allclose(mirrored[1:], np.broadcast_to(flipped, mirrored[1:].shape).astype(np.float32))
    larger = transforms.random_scale(sample, np.random.default_rng(0), tasks, 1.5, 1.5)["own"]
    np.testing.assert_allclose(larger[3:], np.broadcast_to(enlarged, larger[3:].shape).astype(np.float32))
    assert (mirrored[0] == IGNORE).all()
    assert (larger[0] == IGNORE).all()


def test_images_of_nothing_but_background_are_ignored_if_the_data_set_says_so():
    for ignore in (False, True):
        said = TaskDescription.of_classes(["a", "nothing"], background=1, ignore_empty=ignore)
        task = find_task("semseg")(said)
        empty = transforms.ignore_empty({"semseg": np.full((2, 2), 1, np.uint8)}, {"semseg": task})
        assert (empty["semseg"] == (IGNORE if ignore else 1)).all()


def test_boundaries_of_ones_own_are_evaluated_on_their_own_lines(own, strangers, tmp_path):
    """In own data beside the others."""
    for split in ("train", "val"):
        (tmp_path / f"street/images/{split}").mkdir(parents=True)
        (tmp_path / f"street/cracks/{split}").mkdir(parents=True)
        lines = np.zeros((48, 48), np.uint8)
        lines[20], lines[:, 30] = 255, 255
        Image.open(strangers / f"images/{split}/a0.jpg").save(tmp_path / f"street/images/{split}/a0.jpg")
        Image.fromarray(lines).save(tmp_path / f"street/cracks/{split}/a0.png")
    settings = DataConfig(dataset="folders", root=str(tmp_path / "street"), tasks=[own("Cracks")], image_size=[64, 64])
    sample = data.build(settings, "val")[0]
    task = data.kind_of(settings).DESCRIPTION.build(own("Cracks"))
    assert sample["cracks"].dtype == torch.float32
    truth = task.truth({key: value[None] for key, value in sample.items() if torch.is_tensor(value)})
    scores = []
    for prediction in ((truth == 1).float(), (truth == 1).float().roll((7, 7), (-2, -1))):
        metric = task.new_metric()
        metric.update(prediction, truth)
        scores.append(task.measured(metric)["ods_f"])
    assert scores[0] > 90  # thin lines lose some pixels near the border
    assert scores[1] < 30


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Nameless", "Nameless lacks name, which every task says of itself"),
        ("Taken", "Taken has the name 'depth', but must have one of its own"),
        ("Reserved", "Reserved has the name 'boundaries', but must have one of its own"),
        ("Half", "Half lacks colour, constants, loss, new_metric, predict, to_file"),
        ("Nobody", "has no 'Nobody'"),
    ],
)
def test_what_is_no_task_is_said_so(own, name, sentence):
    with pytest.raises(UserError, match=sentence):
        find_task(own(name))


def test_two_tasks_of_one_name_are_refused(own, archive):
    settings = DataConfig(dataset="pascal_context", root=str(archive), tasks=[own("Shade"), own("Other")])
    with pytest.raises(UserError, match="names two tasks that are called 'shade'"):
        data.kind_of(settings)
