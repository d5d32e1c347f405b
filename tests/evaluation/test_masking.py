import json

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from sak import config, data
from sak.bundles.build import build_tasks
from sak.bundles.bundle import load_bundle
from sak.errors import UserError
from sak.evaluation.evaluate import evaluate
from sak.evaluation.masking import MaskedStudents
from sak.evaluation.subject import open_subject


@pytest.fixture
def masked(trained, tmp_path):
    """Opens the masked students of one run, and what was measured of them."""
    settings = config.load(trained / "config.yaml")
    subject = open_subject(str(trained))
    tasks, dataset = build_tasks(settings.data), data.build(settings.data, "val")
    return lambda: MaskedStudents(subject, tasks, dataset, Accelerator(), tmp_path / "kept.json")


def plain(students, student):
    return evaluate(student, students.tasks, students.dataset, 2, 0, Accelerator())


def test_a_masked_student_is_that_whose_routers_give_the_source_no_weight(masked, trained):
    """As one whose routers' last layer was set by hand to give the path no weight."""
    students, by_hand = masked(), load_bundle(trained / "student")
    for router in (level for levels in by_hand.routers.values() for level in levels):
        router.gate[-1].bias.data[1] = -torch.inf
    same = plain(students, by_hand)
    assert students.metrics([["dinov2"]]) == [same.metrics]
    assert all((level == torch.tensor([1.0, 0.0])).all() for levels in same.routing.values() for level in levels)


class Without(nn.Module):
    """The plain way to mask: `student(images, without=...)`."""

    def __init__(self, student, left_out):
        super().__init__()
        self.student, self.left_out = student, left_out

    def forward(self, images):
        return self.student(images, without=self.left_out)


def test_sets_that_share_a_pass_are_as_each_alone(masked):
    students = masked()
    student = students.subject.student
    sets = [[], ["dinov2"], ["stem"]]
    each = [plain(students, Without(student, left_out)).metrics for left_out in sets]
    assert students.metrics(sets) == each
    assert each[0] != each[1] != each[2]


def test_what_was_measured_is_kept_and_bound_to_the_student(masked, monkeypatch):
    first = masked().metrics([["dinov2"], ["stem"]])
    students = masked()
    with monkeypatch.context() as patch:
        patch.setattr(MaskedStudents, "_evaluate", None)  # must not be called
        assert students.metrics([{"stem"}, {"dinov2"}]) == first[::-1]
    head = students.subject.student.heads["normals"].requires_grad_(False)
    next(head.parameters()).mul_(1.5)
    assert masked().known == {}
    students.file.write_text("{")
    with pytest.raises(UserError, match=r"kept.json is corrupt .*: delete it"):
        masked()


def test_a_group_that_was_measured_survives_an_interruption(masked, monkeypatch):
    monkeypatch.setattr("sak.evaluation.masking.GROUP", 1)
    students, evaluate_group = masked(), MaskedStudents._evaluate

    def interrupted(self, group):
        if "stem" in group:
            raise KeyboardInterrupt
        return evaluate_group(self, group)

    monkeypatch.setattr(MaskedStudents, "_evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        students.metrics([["dinov2"], ["stem"]])
    assert list(json.loads(students.file.read_text())["metrics"]) == ["dinov2"]
    assert list(masked().known) == ["dinov2"]


def test_a_source_that_is_none_is_refused_at_once(masked):
    with pytest.raises(ValueError, match="unknown source 'clip'"):
        masked().metrics([["stem"], ["clip"]])
    with pytest.raises(ValueError, match="all"):
        masked().metrics([["stem", "dinov2"]])
