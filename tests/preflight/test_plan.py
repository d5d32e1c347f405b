"""The plan against what really happens: parameters, bytes of a real training step, the size of a real checkpoint."""

import pytest
import torch

from sak import config
from sak.bundles.build import build_tasks
from sak.preflight.plan import LiveMemory, build_without_weights, empty_batch, plan, step_memory
from sak.training import checkpoint, objectives
from sak.training.optimizer import adamw

IMAGES = {"distill": 10, "multitask": 10}


@pytest.fixture
def experiment(tiny):
    return config.load(tiny)


def real_parts(experiment, stage):
    tasks = build_tasks(experiment.data)
    committee, student = build_without_weights(experiment, tasks)
    objectives.choose_trained_weights(student, stage, distils=True)
    if stage == "distill":
        objective = objectives.distillation(objectives.of_images(committee), "cos+l1")
    else:
        objective = objectives.multitask(objectives.of_images(committee), tasks, "cos+l1", 1.0)
    batch = empty_batch(2, (96, 96), tasks if stage == "multitask" else {})
    for name, tensor in batch.items():
        batch[name] = torch.rand_like(tensor) if tensor.is_floating_point() else torch.zeros_like(tensor)
    return student.train(), committee, objective, batch


@pytest.mark.parametrize("stage", ["distill", "multitask"])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_memory_is_that_of_a_real_step(experiment, stage, precision):
    experiment.precision = precision
    planned = plan(experiment, IMAGES).stages[stage]
    student, committee, objective, batch = real_parts(experiment, stage)
    objective(student, batch)[0].backward()  # fills the caches of constants
    student.zero_grad()
    weights, peak = step_memory(student, [student, committee], objective, batch, precision=precision)
    assert planned.weights == weights
    assert planned.peak - planned.states == pytest.approx(peak, rel=0.01)


def test_states_and_checkpoint(experiment, tmp_path):
    planned = plan(experiment, IMAGES).stages["distill"]
    student, _, objective, batch = real_parts(experiment, "distill")
    optimizer = adamw(student, experiment.stages.distill.optim)
    objective(student, batch)[0].backward()
    optimizer.step()
    moments = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    unused = sum(p.numel() for p in student.parameters() if p.requires_grad and p.grad is None)
    assert planned.states == sum(4 * moment.numel() for moment in moments) + 2 * 4 * unused
    assert planned.trained == sum(p.numel() for p in student.parameters() if p.requires_grad)
    state = {"student": student.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint.save(tmp_path, checkpoint.Progress("distill", 1), state)
    (file,) = tmp_path.glob("*.pt")
    # Names and the format's padding weigh something in so small a model.
    assert planned.checkpoint <= file.stat().st_size <= 1.5 * planned.checkpoint


def test_accumulation_needs_less(experiment):
    whole = plan(experiment, IMAGES).stages["multitask"]
    experiment.stages.multitask.accumulate = 2
    halves = plan(experiment, IMAGES).stages["multitask"]
    assert halves.peak < whole.peak
    assert halves.images == whole.images


def test_steps_and_epochs(experiment):
    experiment.stages.distill.steps, experiment.stages.distill.epochs = None, 3
    experiment.stages.multitask.steps = 0
    found = plan(experiment, {"distill": 11, "multitask": 11})
    assert list(found.stages) == ["distill"]
    assert (found.stages["distill"].steps, found.stages["distill"].images) == (15, 30)
    assert found.stages["distill"].epochs == pytest.approx(30 / 11)
    assert found.parameters["heads"] == 0


def test_the_paper_s_student(experiment):
    """Published for ViT-B on PASCAL-Context: stem 86.4, paths 11.5, routers 6.0, heads 29.5 million."""
    experiment.student.stem, experiment.student.stem_options = "vit_base_patch16_384", {}
    experiment.student.levels = [2, 5, 8, 11]
    teacher = experiment.teachers.dinov2
    teacher.model, teacher.options, teacher.levels = "vit_base_patch16_clip_384", {}, [2, 5, 8, 11]
    for name in ("clip", "sam"):
        experiment.teachers[name] = teacher
    experiment.data.image_size = [512, 512]
    experiment.stages.distill.steps = 0
    found = plan(experiment, IMAGES).parameters
    published = {"stem": 86.4, "paths": 11.5, "routers": 6.0, "heads": 29.5}
    assert {part: found[part] / 1e6 for part in published} == pytest.approx(published, abs=0.1)
    assert found["aligners"] == 0


def test_live_memory_sees_what_is_freed():
    memory = LiveMemory()
    with memory:
        kept = torch.zeros(1000)
        temporary = kept + 1
        view = temporary[:10]
        assert memory.now == 8000
        del temporary
        assert memory.now == 8000  # the view keeps it
        del view
        assert memory.now == 4000
        kept.add_(1)
    assert memory.peak == 8000
