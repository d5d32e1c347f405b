"""Each part of what the miniatures are trained for has its value.

The average, the balance, the spread, the masks and the pairs of the self-distillation; the contrast; the best of three
masks; a question for each class.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from teachers.pretrain import promptable, self_distillation
from teachers.pretrain.contrastive import MAX_LOGIT_SCALE, Contrastive
from teachers.pretrain.data import Scenes
from teachers.pretrain.promptable import Promptable
from teachers.pretrain.self_distillation import Network, SelfDistillation, balanced, cross_entropy, spread
from teachers.pretrain.supervised import Supervised


@pytest.fixture(scope="module")
def scenes():
    draw = torch.Generator().manual_seed(0)
    count = 6
    return Scenes(
        images=torch.randint(0, 256, (count, 3, 72, 96), generator=draw, dtype=torch.uint8),
        captions=[f"a square on ground {number}" for number in range(count)],
        semseg=torch.zeros(count, 72, 96, dtype=torch.uint8),
        salient=torch.zeros(count, 72, 96, dtype=torch.bool),
        regions=torch.ones(count, 72, 96, dtype=torch.uint8),
        things=torch.zeros(count, 460, dtype=torch.bool),
    )


@pytest.fixture
def objective(scenes):
    torch.manual_seed(0)
    objective = SelfDistillation(scenes, batch_size=3)
    for parameter in objective.teacher.parameters():  # which starts as the student
        parameter.add_(0.05 * torch.randn_like(parameter))
    nn.init.normal_(objective.student.mask_token)
    return objective


def logits_of(distributions):
    return self_distillation.TEACHER_TEMPERATURE * torch.tensor(distributions).log()


def test_one_round_of_balance_by_hand():
    """Columns: 0.8 + 0.6 and 0.2 + 0.4; then rows: 0.8 / 1.4 + 0.2 / 0.6 and 0.6 / 1.4 + 0.4 / 0.6."""
    ours = balanced(logits_of([[0.8, 0.2], [0.6, 0.4]]), rounds=1)
    first, second = 0.8 / 1.4 + 0.2 / 0.6, 0.6 / 1.4 + 0.4 / 0.6
    expected = [[0.8 / 1.4 / first, 0.2 / 0.6 / first], [0.6 / 1.4 / second, 0.4 / 0.6 / second]]
    torch.testing.assert_close(ours, torch.tensor(expected))


def test_balanced_targets_use_all_prototypes_though_every_token_prefers_one():
    draw = torch.Generator().manual_seed(1)
    logits = 0.02 * torch.randn(64, 8, generator=draw)
    logits[:, 0] += 0.3
    assert (logits / self_distillation.TEACHER_TEMPERATURE).softmax(1).sum(0)[0] > 60
    targets = balanced(logits)
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    assert ((targets.sum(0) - 8).abs() < 0.4).all()


def test_the_spread_by_hand():
    """Three tokens at 0, 60 and 180 degrees, of any length: their nearest others are 1, 1 and sqrt(3) away."""
    angles = torch.tensor([0.0, 60.0, 180.0]).deg2rad()
    tokens = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1.0], [5.0], [0.2]])
    assert spread(tokens).item() == pytest.approx(-math.log(math.sqrt(3)) / 3, abs=1e-5)
    assert spread(torch.tensor([[1.0, 0.0], [1.0, 1e-3]])) > 6  # neighbours are pushed apart


def test_the_cross_entropy_by_hand():
    """Over temperature 0.1, logits 0.1 and 0 are 1 and 0: log-probabilities -log(1 + 1/e) and that minus 1."""
    logits, targets = torch.tensor([[0.1, 0.0], [0.0, 0.1]]), torch.tensor([[0.75, 0.25], [1.0, 0.0]])
    right = math.log(1 + math.exp(-1))
    assert cross_entropy(logits, targets).item() == pytest.approx(((right + 0.25) + (right + 1)) / 2, rel=1e-5)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.01), (0.5, 0.005), (1.0, 0.0)])
def test_the_teacher_is_the_students_average(objective, progress, share):
    student = {key: value.clone() for key, value in objective.student.state_dict().items()}
    before = {key: value.clone() for key, value in objective.teacher.state_dict().items()}
    objective.after_step(progress)
    after = objective.teacher.state_dict()
    assert {"backbone.blocks.0.attn.qkv.weight", "image_head.prototypes", "mask_token"} <= after.keys()
    for key in before:
        torch.testing.assert_close(after[key], (1 - share) * before[key] + share * student[key], rtol=1e-5, atol=1e-7)
        assert torch.equal(objective.student.state_dict()[key], student[key])
    exported = objective.exported()  # the average, not what was averaged
    assert torch.equal(exported["norm.weight"], after["backbone.norm.weight"])
    assert not torch.equal(exported["norm.weight"], student["backbone.norm.weight"])


def test_up_to_three_fifths_of_the_patches_are_hidden_another_share_in_each_view():
    masks = SelfDistillation._mask(400, 12, torch.Generator().manual_seed(0))
    shares = masks.float().mean((1, 2))
    assert masks.shape == (400, 12, 12)
    assert shares.max() < 0.75
    assert shares.max() > 0.55
    assert shares.min() < 0.05
    assert shares.mean().item() == pytest.approx(0.3, abs=0.03)
    assert shares.std().item() == pytest.approx(0.6 / math.sqrt(12), rel=0.15)  # of the uniform distribution


@torch.no_grad()
def test_nothing_of_a_hidden_patch_is_seen():
    torch.manual_seed(0)
    network = Network().eval()
    nn.init.normal_(network.mask_token)
    views = torch.randn(2, 3, 48, 48)
    mask = torch.zeros(2, 6, 6, dtype=torch.bool)
    mask[0, 2, 3] = True
    tokens = network(views, mask)
    hidden, other = views.clone(), views.clone()
    hidden[0, :, 16:24, 24:32] += 1
    other[0, :, 16:24, 32:40] += 1
    torch.testing.assert_close(network(hidden, mask), tokens)
    assert (network(other, mask)[0] - tokens[0]).abs().max() > 1e-3
    assert (network(views)[0] - tokens[0]).abs().max() > 1e-3
    torch.testing.assert_close(network(views)[1], tokens[1])
    network.mask_token.zero_()  # what stands there is the token
    assert (network(views, mask)[0] - tokens[0]).abs().max() > 1e-3


@torch.no_grad()
def test_the_loss_written_out(objective, monkeypatch):
    """Two global and four local views of three scenes: ten pairs of a teacher's view and another one of the student."""
    draw = torch.Generator().manual_seed(2)
    views = [torch.randn(3, 3, side, side, generator=draw) for side in (48, 48, 24, 24, 24, 24)]
    waiting = list(views)
    monkeypatch.setattr(objective, "_view", lambda *_: waiting.pop(0))
    mask = torch.rand(6, 6, 6, generator=draw) < 0.4
    monkeypatch.setattr(objective, "_mask", lambda *_: mask)
    ours = objective.loss(0.0, torch.Generator().manual_seed(0))

    student, teacher = objective.student, objective.teacher
    with torch.autocast("cpu", torch.bfloat16):
        seen, tokens = teacher(torch.cat(views[:2])), student(torch.cat(views[:2]), mask)
        local = student(torch.cat(views[2:]))
        targets = balanced(teacher.image_head(seen[:, 0]))
        # heads spread the tokens of a batch: all global views, all local ones, all hidden patches
        logits = torch.cat([student.image_head(tokens[:, 0]), student.image_head(local[:, 0])])
        patch_targets = balanced(
            teacher.patch_head(torch.stack([seen[v, 1 + n] for v, n in mask.flatten(1).nonzero()]))
        )
        patch_logits = student.patch_head(torch.stack([tokens[v, 1 + n] for v, n in mask.flatten(1).nonzero()]))

    def entropy(logits, target):
        return -sum(target[k] * torch.log_softmax(logits / 0.1, 0)[k] for k in range(len(target)))

    image = [
        entropy(logits[3 * v + b], targets[3 * t + b]) for t in (0, 1) for v in range(6) if v != t for b in range(3)
    ]
    patch = [entropy(*pair) for pair in zip(patch_logits, patch_targets, strict=True)]
    apart = [spread(tokens[3 * v : 3 * v + 3, 0].float()) for v in (0, 1)]
    assert len(image) == 30
    expected = sum(image) / 30 + sum(patch) / len(patch) + 0.1 * sum(apart) / 2
    assert ours.item() == pytest.approx(expected.item(), rel=1e-3)


def test_gradients_reach_the_student_alone(objective):
    objective.loss(0.0, torch.Generator().manual_seed(0)).backward()
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
    assert objective.student.mask_token.grad.abs().sum() > 0
    for part in (objective.student.image_head, objective.student.patch_head, objective.student.backbone):
        assert all(parameter.grad.abs().sum() > 0 for parameter in part.parameters() if parameter.ndim > 1)


def test_late_views_are_as_large_as_the_images_at_which_it_is_used(objective, monkeypatch):
    sides = []
    real = objective._view
    monkeypatch.setattr(objective, "_view", lambda images, size, *rest: sides.append(size) or real(images, size, *rest))
    for progress in (0.0, 0.9):
        objective.loss(progress, torch.Generator().manual_seed(0))
    assert sides == [48, 48, 24, 24, 24, 24, 96, 96, 32, 32, 32, 32]


@torch.no_grad()
def test_the_contrast_written_out(scenes):
    """The mean of both directions: of each image its caption among all, of each caption its image."""
    torch.manual_seed(0)
    objective = Contrastive(scenes, batch_size=4)
    drawn = {}
    real_image, real_text = objective.model.encode_image, objective.model.encode_text
    objective.model.encode_image = lambda *a, **k: drawn.setdefault("images", real_image(*a, **k))
    objective.model.encode_text = lambda *a, **k: drawn.setdefault("texts", real_text(*a, **k))
    objective.model.logit_scale.fill_(math.log(20))
    ours = objective.loss(1.0, torch.Generator().manual_seed(3))
    images, texts = drawn["images"].float(), drawn["texts"].float()
    torch.testing.assert_close(images.norm(dim=1), torch.ones(4), rtol=1e-2, atol=1e-2)
    similar = 20 * images @ texts.T
    right = range(4)
    expected = -sum(F.log_softmax(side, 1)[n, n] for side in (similar, similar.T) for n in right) / 8
    assert ours.item() == pytest.approx(expected.item(), rel=1e-4)
    objective.model.logit_scale.fill_(10.0)
    objective.after_step(0.5)
    assert objective.model.logit_scale.exp().item() == pytest.approx(MAX_LOGIT_SCALE)


@torch.no_grad()
def test_the_best_of_three_masks_is_trained_and_all_guess_their_overlap(scenes, monkeypatch):
    torch.manual_seed(0)
    objective = Promptable(scenes, batch_size=2)
    truths = (torch.rand(2, 96, 96) < 0.5).float()
    logits, guesses = 4 * torch.randn(2, 3, 96, 96), torch.rand(2, 3)
    logits[0, 1], logits[1, 2] = 6 * (truths[0] - 0.5), 6 * (truths[1] - 0.5)  # the second and the third are right
    prompts = (torch.tensor([0, 1]), torch.ones(2, 2), truths)
    monkeypatch.setattr(promptable, "sample_prompts", lambda *_: prompts)
    monkeypatch.setattr(objective, "segment", lambda *_: (logits, guesses))
    expected = 0.0
    for prompt, best in enumerate((1, 2)):
        p = logits[prompt, best].sigmoid()
        right = torch.where(truths[prompt] > 0, p, 1 - p)
        focal = (-((1 - right) ** 2) * right.log()).mean()
        dice = 1 - (2 * (p * truths[prompt]).sum() + 1) / (p.sum() + truths[prompt].sum() + 1)
        expected += (20 * focal + dice) / 2
        for mask in range(3):
            both = ((logits[prompt, mask] > 0) & (truths[prompt] > 0)).sum()
            either = ((logits[prompt, mask] > 0) | (truths[prompt] > 0)).sum()
            expected += (guesses[prompt, mask] - both / either) ** 2 / 6
    assert objective.loss(0.5, torch.Generator().manual_seed(0)).item() == pytest.approx(expected.item(), rel=1e-4)


@torch.no_grad()
def test_each_class_is_a_question_of_its_own(scenes, monkeypatch):
    scenes.things[:, [3, 7]] = torch.tensor([[True, False], [False, True]] * 3)
    torch.manual_seed(0)
    objective = Supervised(scenes, batch_size=4)
    assert objective.classes.tolist() == [3, 7]
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.0], [-3.0, 1.0], [1.0, 1.0]])
    monkeypatch.setattr(objective.backbone, "forward", lambda images: logits)
    index = torch.randperm(6, generator=torch.Generator().manual_seed(5))[:4]
    expected = 0.0
    for row, scene in enumerate(index.tolist()):
        for column, label in enumerate((scene % 2 == 0, scene % 2 == 1)):
            sign = 1 if label else -1
            expected += math.log(1 + math.exp(-sign * logits[row, column])) / 4
    assert objective.loss(0.5, torch.Generator().manual_seed(5)).item() == pytest.approx(expected, rel=1e-5)
    scenes.things[:] = False
