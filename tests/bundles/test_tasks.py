"""What a bundle says of its tasks, and what is made of bundles that are older."""

import json
import shutil

import numpy as np
import pytest

from sak import Student, data
from sak.bundles.tasks import records, tasks_of
from sak.errors import UserError
from sak.tasks import Edge, SemSeg, TaskDescription, build, record, recorded

SMALL = {"stem": "vit_tiny_patch16_384", "image_size": (32, 32), "teachers": {}, "levels": [0]}
STEM = {"stem_options": {"embed_dim": 32, "depth": 1, "num_heads": 2}}
FIVE = TaskDescription.of_classes(("sky", "road", "car", "tree", "house"), [(i, 40 * i, 255 - i) for i in range(5)])


def student_of(tasks):
    return Student(
        **SMALL, **STEM, tasks={name: task.channels for name, task in tasks.items()}, descriptions=records(tasks)
    )


def test_a_bundle_brings_names_and_colours_back(tmp_path):
    tasks = {"semseg": build("semseg", FIVE), "edge": build("edge", TaskDescription(1, max_dist=0.02))}
    student_of(tasks).save_pretrained(tmp_path / "bundle")
    found = tasks_of(Student.from_pretrained(tmp_path / "bundle"))
    assert list(found) == ["semseg", "edge"]
    assert [task.description for task in found.values()] == [FIVE, tasks["edge"].description]
    assert found["semseg"].colour(np.array([[1, 4]])).tolist() == [[[1, 40, 254], [4, 160, 251]]]
    assert list(found["semseg"].key([np.array([[2]])])) == ["car"]
    assert found["edge"].new_metric().max_dist == 0.02


def test_who_reads_config_json_needs_nothing_of_ours(tmp_path):
    """Names and colours are written out, also where they are PASCAL VOC's."""
    student_of({"semseg": data.described("pascal_context").build("semseg")}).save_pretrained(tmp_path / "bundle")
    said = json.loads((tmp_path / "bundle" / "config.json").read_text())["descriptions"]["semseg"]
    assert (said["task"], said["kind"], said["channels"], said["background"]) == ("semseg", "classes", 21, 0)
    assert (said["classes"][15], said["colours"][15]) == ("person", [192, 128, 128])


def test_an_older_bundle_is_of_the_benchmark_that_fits(trained, tmp_path):
    bundle = shutil.copytree(trained / "student", tmp_path / "bundle")
    settings = json.loads((bundle / "config.json").read_text())
    del settings["descriptions"]
    (bundle / "config.json").write_text(json.dumps({**settings, "format": 1}))
    old, new = (tasks_of(Student.from_pretrained(place)) for place in (bundle, trained / "student"))
    assert list(old) == list(new) == ["semseg", "human_parts", "saliency", "normals", "edge"]
    assert [task.classes for task in old.values()] == [task.classes for task in new.values()]
    assert old["human_parts"].description.ignore_empty
    assert isinstance(old["edge"], Edge)


def test_without_a_benchmark_the_classes_have_no_names():
    tasks = tasks_of(Student(**SMALL, **STEM, tasks={"semseg": 5}))
    assert (tasks["semseg"].channels, tasks["semseg"].classes) == (5, ())
    assert list(tasks["semseg"].key([np.array([[3]])])) == ["class 3"]
    with pytest.raises(UserError, match="a head for 'flow', of which its bundle says nothing"):
        tasks_of(Student(**SMALL, **STEM, tasks={"flow": 2}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 4, "classes": [], "colours": []}, "has 5 channels, but its description is of semseg with 4"),
        ({"task": "saliency", "classes": []}, "is of saliency with 5"),
        ({"task": 3}, "it is none that sak has written"),
        ({"colours": [[1, 2]] * 5}, "cannot be read"),
        ({"colours": [[1, 2, 300]] * 5}, r"the colour \[1, 2, 300\] is none"),
        ({"classes": ["a", "b"]}, "2 names of classes for 5 classes"),
        ({"classes": ["a", "b", "c", "d", "a"]}, "two classes are called 'a'"),
        ({"task": "gone.away:Task"}, "there is no module gone for gone.away:Task"),
        ({"task": "json:loads"}, r"json:loads is no subclass of sak\.tasks\.base\.Task"),
    ],
)
def test_a_description_that_was_changed_is_refused(change, message):
    kept = {**record(build("semseg", FIVE)), **change}
    with pytest.raises(UserError, match=message):
        tasks_of(Student(**SMALL, **STEM, tasks={"semseg": 5}, descriptions={"semseg": kept}))


def test_a_class_of_ones_own_is_kept_by_its_place():
    class Other(SemSeg):
        name = "other"

    assert record(Other(FIVE))["task"] == f"{__name__}:{Other.__qualname__}"
    assert recorded(record(build("semseg", FIVE))).description == FIVE
