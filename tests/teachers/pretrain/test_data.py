"""What the pretraining reads of an archive, against what the renderer drew."""

import numpy as np
import pytest
import torch

from sak.data.mini.classes import CONTEXT_ID, STUFF
from sak.data.mini.drawing import draw, draw_twice
from sak.errors import UserError
from teachers.pretrain import data


def test_labelled_scenes(archive):
    val = data.load(archive, "val")
    assert len(val) == 12
    scene, rendering, sentence = draw(0, "val", 1, 64)
    assert val.captions[1] == sentence
    np.testing.assert_array_equal(val.label_map[1], rendering.context)
    np.testing.assert_array_equal(val.semseg[1], np.where(rendering.borders, 255, rendering.semseg))
    np.testing.assert_array_equal(val.classes[1][val.regions[1].long()], rendering.context)
    ground = np.isfinite(rendering.depth)
    np.testing.assert_allclose(val.normals[1].permute(1, 2, 0)[ground], rendering.normals[ground], atol=0.01)
    assert (val.images[1].float().mean((1, 2)).numpy() - rendering.image.mean((0, 1))).__abs__().max() < 3  # RGB
    assert scene.things[0].voc_id in val.semseg[1]


def test_unlabelled_scenes_and_these_again(scenes):
    _, rendering, sentence, again = draw_twice(0, "unlabelled", 5, 64)
    assert scenes.captions[5] == sentence
    np.testing.assert_array_equal(scenes.classes[5][scenes.regions[5].long()], rendering.context)
    things = rendering.instances > 0
    np.testing.assert_array_equal(scenes.regions[5][things], rendering.instances[things])
    things = again.instances > 0  # whose numbers are the same in both
    np.testing.assert_array_equal(scenes.again[1][5][things], again.instances[things])


def test_things_are_classes_that_cover_enough(scenes):
    known = scenes.things()
    names = {number: name for name, number in CONTEXT_ID.items()}
    for scene in range(len(scenes)):
        shown = scenes.classes[scene][scenes.regions[scene].long()]
        expected = {
            int(label)
            for label in shown.unique()
            if (shown == label).float().mean() >= 0.01 and names[int(label)] not in STUFF
        }
        assert set(known[scene].nonzero().flatten().tolist()) == expected


def test_boxes_hold_the_largest_things_first(scenes):
    boxes = scenes.boxes()
    assert boxes.shape == (2, len(scenes), data.THINGS, 5)
    areas = boxes[0, ..., 4]
    assert (areas[:, :-1] >= areas[:, 1:]).all()
    for scene in range(3):
        left, top, right, bottom = (64 * boxes[0, scene, 0, :4]).round().int().tolist()
        inside = scenes.regions[scene, top:bottom, left:right]
        numbers, counts = inside.unique(return_counts=True)
        assert (counts == round(64 * 64 * areas[scene, 0].item())).any()
        number = numbers[(counts - 64 * 64 * areas[scene, 0]).abs().argmin()]
        assert not (scenes.regions[scene] == number).int().sum() > counts.max()  # nothing of it lies outside
        same = scenes.again[1][scene] == number  # the same thing, in the second view
        assert boxes[1, scene, 0, 4] == pytest.approx(same.float().mean().item(), abs=1e-6)


@pytest.mark.parametrize("missing", ["unlabelled/scenes.json", "captions.json", "ImageSets/Context/val.txt"])
def test_an_incomplete_archive_is_named(archive, tmp_path, missing):
    import shutil

    copy = shutil.copytree(archive, tmp_path / "copy")
    (copy / missing).unlink()
    with pytest.raises(UserError, match=f"there is no .*{missing}"):
        data.load_unlabelled(copy) if "unlabelled" in missing else data.load(copy, "val")


def test_scenes_move_together(scenes):
    moved = scenes.to(torch.device("meta"))
    assert {moved.images.device.type, moved.regions.device.type, moved.again[0].device.type} == {"meta"}
    assert moved.captions == scenes.captions
