"""What a student starts with is that of its seed and its parts, whatever else is built."""

import pytest
import torch

from sak import config
from sak.bundles.build import build_committee, build_student, build_tasks, check_model_names
from sak.errors import UserError

WIDTHS = {"dinov2": [24] * 4, "clip": [16] * 4, "sam": [40] * 4}


@pytest.fixture
def start(tiny):
    """The state of a student of these teachers and tasks as a run starts with it."""

    def start(teachers, tasks, seed=0, drawn=0, overrides=()):
        settings = config.load(tiny, [f"data.tasks=[{','.join(tasks)}]", f"seed={seed}", *overrides])
        torch.manual_seed(4711)
        torch.rand(drawn)  # as teachers with random weights do before
        student = build_student(settings, build_tasks(settings.data), {name: WIDTHS[name] for name in teachers})
        return student.state_dict()

    return start


def differing(one, other):
    """The parts that both have and whose start differs."""
    shared = [key for key in one.keys() & other.keys() if one[key].shape == other[key].shape]
    assert shared
    return {key.split(".")[0] for key in shared if not torch.equal(one[key], other[key])}


def test_what_was_drawn_before_does_not_matter(start):
    assert differing(start(["dinov2"], ["semseg"]), start(["dinov2"], ["semseg"], drawn=1000)) == set()


def test_students_of_other_teachers_share_stem_paths_and_heads(start):
    """So that a seed pairs the runs of an ablation."""
    whole = start(["dinov2", "clip", "sam"], ["semseg", "normals"])
    for teachers in (["dinov2"], ["clip"], ["sam", "dinov2"], []):
        assert differing(whole, start(teachers, ["semseg", "normals"])) <= {"routers"}
        assert differing(whole, start(teachers, ["normals"])) <= {"routers"}
    # The same sources have the same routers, too.
    assert differing(start(["dinov2", "clip"], ["semseg"]), start(["dinov2", "clip"], ["normals", "semseg"])) == set()


def test_another_seed_is_another_start_of_every_part(start):
    parts = {"stem", "paths", "routers", "heads"}
    assert differing(start(["dinov2"], ["semseg"]), start(["dinov2"], ["semseg"], seed=1)) == parts


def test_no_two_parts_share_their_numbers(start):
    state = start(["dinov2", "clip"], ["semseg", "saliency"], overrides=["teachers.dinov2.options={}"])
    paths = [state[f"paths.{name}.adapters.1.down.weight"] for name in ("dinov2", "clip")]
    assert not torch.equal(*paths)
    heads = [state[f"heads.{name}.fuse.0.weight"] for name in ("semseg", "saliency")]
    assert not torch.equal(*heads)


def test_building_leaves_the_stream_of_random_numbers_where_one_draw_leaves_it(start):
    start(["dinov2"], ["semseg"])
    after = torch.rand(3)
    start(["dinov2", "clip", "sam"], ["semseg", "normals"])
    assert torch.equal(torch.rand(3), after)


@pytest.mark.parametrize("name", ["keys", "train", "half", "forward", "pop", "type"])
def test_a_name_that_torch_has_itself_is_one_sentence(tiny, name):
    with pytest.raises(UserError, match=f"a teacher has the name '{name}', which torch has for something else"):
        check_model_names(["dinov2", name])
    settings = config.load(tiny, [f"teachers.{name}={{family: dinov2, model: x}}"])
    with pytest.raises(UserError, match="choose another one"):
        build_committee(settings)


def test_an_inner_width_of_nothing_is_refused(start):
    start(["dinov2"], ["semseg"], overrides=["student.adapter_ratio=32"])  # of 32: one is left
    with pytest.raises(UserError, match=r"student\.adapter_ratio is 33, but must not be above the stem's width 32"):
        start(["dinov2"], ["semseg"], overrides=["student.adapter_ratio=33"])
