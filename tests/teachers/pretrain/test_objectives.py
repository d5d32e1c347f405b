"""The parts of each objective against values worked out by hand: a test falls if its part is left out."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from teachers.pretrain import promptable, prototypes, self_distillation
from teachers.pretrain.contrastive import Contrastive
from teachers.pretrain.loop import Phase
from teachers.pretrain.self_distillation import SelfDistillation
from teachers.pretrain.supervised import Supervised
from teachers.pretrain.views import View

SMALL = Phase("small", 10, 4, 1e-3)


@pytest.fixture
def distillation(scenes):
    torch.manual_seed(0)
    return SelfDistillation(scenes)


def test_targets_use_all_prototypes_alike():
    """Where every token prefers one prototype, a plain softmax would give it all; balanced, each gets its share."""
    torch.manual_seed(0)
    logits = 0.1 * torch.randn(64, 4) + torch.tensor([0.5, 0.0, 0.0, 0.0])
    targets = prototypes.balanced(logits, rounds=20)
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    torch.testing.assert_close(targets.sum(0), torch.full((4,), 16.0), rtol=0.02, atol=0)
    assert (logits / prototypes.TEACHER_TEMPERATURE).softmax(1).sum(0)[0] > 60


def test_targets_of_two_tokens_by_hand():
    """exp((1 - 0.95) / 0.05) = e; one round divides by the columns' sums, then by the rows'."""
    targets = prototypes.balanced(torch.tensor([[1.0, 0.95], [1.0, 1.0]]), rounds=1)
    a, b = 1 / 2, (1 / math.e) / (1 / math.e + 1)
    c = 1 / (1 / math.e + 1)
    torch.testing.assert_close(targets, torch.tensor([[a / (a + b), b / (a + b)], [a / (a + c), c / (a + c)]]))


def test_cross_entropy_by_hand():
    logits, targets = torch.tensor([[0.1, 0.0]]), torch.tensor([[0.25, 0.75]])
    p = math.e / (1 + math.e)  # at temperature 0.1
    expected = -(0.25 * math.log(p) + 0.75 * math.log(1 - p))
    assert prototypes.cross_entropy(logits, targets).item() == pytest.approx(expected, rel=1e-5)


def test_contrast_by_hand():
    """Two queries: one like its own key, the other like that of the first."""
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = prototypes.contrast(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), keys)
    right, wrong = math.log(1 + math.exp(-10)), math.log(1 + math.exp(10))
    assert loss.item() == pytest.approx((right + wrong) / 2, rel=1e-5)
    assert prototypes.contrast(keys, keys).item() == pytest.approx(right, abs=1e-6)


def test_spread_by_hand():
    """Unit vectors at 0°, 60° and 180°: nearest distances 1, 1 and √3."""
    tokens = torch.tensor([[2.0, 0.0], [0.5, math.sqrt(0.75)], [-3.0, 0.0]])
    assert prototypes.spread(tokens).item() == pytest.approx(-math.log(math.sqrt(3)) / 3, abs=1e-4)


def test_every_view_learns_from_every_other_global_view():
    """Six views, two of them global: ten pairs, none of a view with itself."""
    targets = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])]
    views = [torch.tensor([[float(number), 0.0]], requires_grad=True) for number in range(6)]
    loss = self_distillation.between_views(prototypes.cross_entropy, views, targets)
    pairs = [(0, v) for v in (1, 2, 3, 4, 5)] + [(1, v) for v in (0, 2, 3, 4, 5)]
    expected = [F.cross_entropy(views[v] / 0.1, targets[t]) for t, v in pairs]
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_the_queue_keeps_the_newest():
    queue = prototypes.Queue(5, 1)
    assert queue.push(torch.tensor([[1.0], [2.0]])).flatten().tolist() == [1, 2]
    assert queue.push(torch.tensor([[3.0], [4.0]])).flatten().tolist() == [3, 4, 1, 2]
    assert queue.push(torch.tensor([[5.0], [6.0]])).flatten().tolist() == [5, 6, 3, 4, 1]
    restored = prototypes.Queue(5, 1)
    restored.load_state_dict(queue.state_dict())
    assert restored.push(torch.tensor([[7.0]])).flatten().tolist() == [7, 5, 6, 3, 4]


def test_the_teacher_is_a_momentum_average(distillation):
    before = {name: value.clone() for name, value in distillation.teacher.named_parameters()}
    with torch.no_grad():
        for parameter in distillation.student.parameters():
            parameter.add_(1.0)
    distillation.after_step(SMALL, 0.5)
    its = dict(distillation.student.named_parameters())
    for name, value in distillation.teacher.named_parameters():
        m = self_distillation.MOMENTUM
        torch.testing.assert_close(value, m * before[name] + (1 - m) * its[name])
    exported = distillation.exported()  # the average, not what was averaged
    assert exported["norm.weight"].equal(distillation.teacher.backbone.norm.weight)
    assert not exported["norm.weight"].equal(distillation.student.backbone.norm.weight)
    assert 0.9 < self_distillation.MOMENTUM < 1  # at 1 nothing of a phase would reach what is exported
    assert not any(parameter.requires_grad for parameter in distillation.teacher.parameters())


def test_only_the_student_learns(distillation, generator):
    sum(distillation.losses(SMALL, generator).values()).backward()
    assert all(parameter.grad is None for parameter in distillation.teacher.parameters())
    still = {name for name, p in distillation.student.named_parameters() if p.grad is None or not p.grad.any()}
    assert still == set()  # the token that stands for hidden patches learns too


def test_the_student_does_not_see_what_is_hidden(distillation):
    torch.manual_seed(1)
    pictures, mask = torch.rand(2, 3, 64, 64), torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[:, 2:5, 2:5] = True
    others = pictures.clone()
    others[:, :, 16:40, 16:40] = torch.rand(2, 3, 24, 24)  # just the hidden patches
    with torch.no_grad():
        torch.testing.assert_close(distillation.student(pictures, mask), distillation.student(others, mask))
        assert not torch.allclose(distillation.student(pictures), distillation.student(others), atol=1e-3)


def test_hidden_patches_are_compared_with_the_same_patches_of_the_teacher(distillation, generator, monkeypatch):
    """With the teacher's own tokens in the student's place, hidden logits are the targets' logits in the same order."""
    seen = {}

    def entropy(logits, targets):
        seen[len(logits)] = (logits, targets)
        return logits.sum() * 0

    monkeypatch.setattr(self_distillation, "cross_entropy", entropy)
    monkeypatch.setattr(self_distillation, "balanced", lambda logits: logits)
    distillation.student.load_state_dict(distillation.teacher.state_dict())
    plain = distillation.student.forward
    monkeypatch.setattr(distillation.student, "forward", lambda images, mask=None: plain(images))
    distillation.losses(SMALL, generator)
    patches = max(seen)  # more than there are class tokens
    assert patches > 30
    torch.testing.assert_close(*seen[patches], rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_the_self_distillation_written_out(distillation, monkeypatch):
    """Two global and four local views of three scenes: ten pairs of a teacher's view and another one of the student."""
    draw = torch.Generator().manual_seed(2)
    nn.init.normal_(distillation.student.mask_token)
    for parameter in distillation.teacher.parameters():  # which starts as the student
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    seen = [torch.randn(3 * count, 3, side, side, generator=draw) for count, side in ((2, 48), (4, 24))]
    box, thing = torch.tensor([[0.5, 0.5, 1.0, 1.0]] * 3), torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]] * 3)
    given = [
        View(pixels, box, torch.tensor([False, False, number == 1]), thing)  # the third is mirrored in one
        for number, pixels in enumerate([*seen[0].split(3), *seen[1].split(3)])
    ]
    monkeypatch.setattr(distillation, "views", lambda *_: given)
    monkeypatch.setattr(self_distillation, "PLACES", 200)  # more than there are
    mask = torch.rand(6, 6, 6, generator=draw) < 0.4
    monkeypatch.setattr(self_distillation.views, "block_masks", lambda *_: mask)
    terms = distillation.losses(Phase("small", 10, 3, 1e-3), draw)

    student, teacher = distillation.student, distillation.teacher
    with torch.autocast("cpu", torch.bfloat16):
        truth, tokens, local = teacher(seen[0]), student(seen[0], mask), student(seen[1])
        targets = prototypes.balanced(teacher.image_head(truth[:, 0]))
        logits = torch.cat([student.image_head(tokens[:, 0]), student.image_head(local[:, 0])])
        patches = [(v, 1 + n) for v, n in mask.flatten(1).nonzero().tolist()]
        patch_targets = prototypes.balanced(teacher.patch_head(torch.stack([truth[place] for place in patches])))
        patch_logits = student.patch_head(torch.stack([tokens[place] for place in patches]))

    def entropy(logits, target):
        return -sum(target[k] * torch.log_softmax(logits / 0.1, 0)[k] for k in range(len(target)))

    image = [
        entropy(logits[3 * v + b], targets[3 * t + b]) for t in (0, 1) for v in range(6) if v != t for b in range(3)
    ]
    assert len(image) == 30
    assert terms["image"].item() == pytest.approx(sum(image).item() / 30, rel=1e-3)
    patch = [entropy(*pair) for pair in zip(patch_logits, patch_targets, strict=True)]
    assert terms["patch"].item() == pytest.approx(sum(patch).item() / len(patch), rel=1e-3)
    keys = teacher.image_head.embed(truth[:, 0])
    queries = student.image_head.embed(torch.cat([tokens[:, 0], local[:, 0]]))
    told = [
        -torch.log_softmax(keys[3 * t : 3 * t + 3] @ queries[3 * v + b] / 0.1, 0)[b]
        for t in (0, 1) for v in range(6) if v != t for b in range(3)
    ]  # fmt: skip
    assert terms["contrast"].item() == pytest.approx(sum(told).item() / 30, rel=1e-3)
    place_keys = teacher.patch_head.embed(truth[:, 1:]).view(2, 3, 6, 6, -1)
    place_queries = student.patch_head.embed(tokens[:, 1:]).view(2, 108, -1)
    same = [torch.stack([view[0], view[1], view[2].flip(1)]).reshape(108, -1) for view in place_keys]
    pairs = [place_queries[v] @ same[1 - v].T / 0.1 for v in (0, 1)]
    told = [-pair.log_softmax(1).diag().mean() for pair in pairs]
    assert terms["places"].item() == pytest.approx(sum(told).item() / 2, rel=1e-3)
    apart = [prototypes.spread(tokens[3 * v : 3 * v + 3, 0].float()) for v in (0, 1)]
    assert terms["spread"].item() == pytest.approx(0.1 * sum(apart).item() / 2, rel=1e-3)


def test_late_views_are_as_large_as_the_images_at_which_it_is_used(distillation, generator, monkeypatch):
    sides, real = [], self_distillation.views.crop
    monkeypatch.setattr(self_distillation.views, "crop", lambda *given: sides.append(given[-1]) or real(*given))
    for name in ("small", "large"):
        distillation.losses(Phase(name, 10, 2, 1e-3), generator)
    assert sides == [48, 48, 24, 24, 24, 24, 128, 128, 48, 48, 48, 48]


def test_views_show_the_scene_and_the_scene_again(scenes, generator, monkeypatch):
    painted = dataclasses.replace(
        scenes,
        images=torch.full_like(scenes.images, 255),
        again=(torch.zeros_like(scenes.images), scenes.again[1]),
    )
    objective = SelfDistillation(painted)
    monkeypatch.setattr(self_distillation.views, "distort", lambda images, generator, recolour: images)
    seen = objective.views(torch.arange(4), self_distillation.VIEWS["small"], generator)
    brightness = [(view.pixels * objective.std + objective.mean).mean().item() for view in seen]
    assert brightness == pytest.approx([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], abs=1e-4)


def test_no_thing_in_both_views_is_no_loss(distillation):
    nothing = View(
        torch.zeros(2, 3, 48, 48), torch.full((2, 4), 0.5), torch.zeros(2, dtype=torch.bool), torch.zeros(2, 5)
    )
    vectors = [F.normalize(torch.randn(2, 36, 8), dim=-1).requires_grad_() for _ in range(2)]
    loss = self_distillation.between_places(vectors, vectors, [nothing] * 2, torch.Generator())
    loss.backward()
    assert loss.item() == 0


def test_mask_losses_by_hand():
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., :2] = 1
    right, wrong = 40 * (truth - 0.5), -40 * (truth - 0.5)
    assert promptable.dice(right, truth).item() == pytest.approx(0, abs=1e-5)
    assert promptable.dice(wrong, truth).item() == pytest.approx(1 - 1 / 17, abs=1e-5)
    assert promptable.focal(torch.zeros(1, 1, 4, 4), truth).item() == pytest.approx(np.log(2) / 4, rel=1e-5)
    sure = torch.full((1, 1, 4, 4), math.log(9.0))  # 0.9 everywhere: right on half of the pixels
    expected = (0.1**2 * -math.log(0.9) + 0.9**2 * -math.log(0.1)) / 2
    assert promptable.focal(sure, truth).item() == pytest.approx(expected, rel=1e-4)
    assert promptable.iou(right > 0, truth > 0).item() == 1
    assert promptable.iou(wrong > 0, truth > 0).item() == 0


def test_prompts_lie_in_their_masks(generator):
    regions = torch.zeros(2, 20, 20, dtype=torch.long)
    regions[0, :8, :8] = 3
    regions[1, :2, :2] = 4  # too small for a prompt
    images, points, masks = promptable.sample_prompts(regions, 4, generator)
    assert images.tolist() == [0, 0, 1]
    assert sorted(masks.sum((1, 2)).tolist()) == [64, 336, 396]
    for (x, y), mask in zip(points.tolist(), masks, strict=True):  # of an image twice as large
        assert mask[int(y) // 2, int(x) // 2] == 1
        assert x % 2 == y % 2 == 0.5


@torch.no_grad()
def test_prompts_of_many_images_at_once_equal_one_image_at_a_time(scenes):
    torch.manual_seed(0)
    objective = promptable.Promptable(scenes).eval()
    side = promptable.SIDE
    embeddings = objective.embed(torch.rand(3, 3, side, side))
    points = torch.tensor([[5.0, 9.0], [50.0, 20.0], [90.0, 90.0]])
    together, together_iou = objective.segment(embeddings, torch.arange(3), points)
    sam = objective.sam
    for number in range(3):
        sparse, dense = sam.prompt_encoder((points[number].view(1, 1, 2), torch.ones(1, 1)), None, None)
        masks, ious = sam.mask_decoder(
            embeddings[number : number + 1], sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=True
        )
        torch.testing.assert_close(together[number], masks[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together_iou[number], ious[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_images_are_embedded_as_the_library_does(scenes):
    torch.manual_seed(0)
    objective = promptable.Promptable(scenes).eval()
    images = torch.rand(2, 3, promptable.SIDE, promptable.SIDE)
    theirs = objective.sam.image_encoder(objective.sam.preprocess(255 * images))
    torch.testing.assert_close(objective.embed(images), theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_quarter_has_the_positions_of_its_place(scenes):
    """Without content, a view at a corner gets that corner's positions, and a prompt there the same code."""
    torch.manual_seed(0)
    objective = promptable.Promptable(scenes).eval()
    positions = objective.sam.image_encoder.pos_embed.permute(0, 3, 1, 2)
    torch.testing.assert_close(promptable.cut(positions, (3, 5), 16), positions[:, :, 3:19, 5:21])
    codes = []
    objective.sam.prompt_encoder.register_forward_hook(lambda module, inputs, out: codes.append(out[0]))
    half = torch.zeros(1, 64, 16, 16)
    objective.segment(half, torch.tensor([0]), torch.tensor([[10.0, 20.0]]), corner=(3, 5))
    objective.segment(torch.zeros(1, 64, 32, 32), torch.tensor([0]), torch.tensor([[10.0 + 40, 20.0 + 24]]))
    torch.testing.assert_close(*codes)


def test_of_three_masks_the_best_learns(scenes, generator, monkeypatch):
    torch.manual_seed(0)
    objective = promptable.Promptable(scenes)
    given = {}

    def segment(embeddings, image_of, points, corner):
        size = 4 * embeddings.shape[-1]
        given["logits"] = nn.Parameter(torch.randn(len(image_of), 3, size, size))
        given["predicted"] = nn.Parameter(torch.zeros(len(image_of), 3))
        return given["logits"], given["predicted"]

    monkeypatch.setattr(objective, "segment", segment)
    terms = objective.losses(Phase("quarters", 10, 2, 1e-3), generator)
    (terms["focal"] + terms["dice"] + terms["iou"]).backward()
    moved = given["logits"].grad.abs().amax((2, 3)) > 0
    assert moved.sum(1).tolist() == [1] * len(moved)
    assert (given["predicted"].grad != 0).any(1).all()  # all three learn to predict how good they are


@torch.no_grad()
def test_the_best_of_three_masks_is_trained_and_all_guess_their_overlap(scenes, monkeypatch):
    objective = promptable.Promptable(scenes)
    draw = torch.Generator().manual_seed(0)
    truths = (torch.rand(2, 64, 64, generator=draw) < 0.5).float()
    logits, guesses = 4 * torch.randn(2, 3, 64, 64, generator=draw), torch.rand(2, 3, generator=draw)
    logits[0, 1], logits[1, 2] = 6 * (truths[0] - 0.5), 6 * (truths[1] - 0.5)  # the second and the third are right
    prompts = (torch.tensor([0, 1]), torch.ones(2, 2), truths)
    monkeypatch.setattr(promptable, "sample_prompts", lambda *_: prompts)
    monkeypatch.setattr(objective, "segment", lambda *_: (logits, guesses))
    expected = {"focal": 0.0, "dice": 0.0, "iou": 0.0}
    for prompt, best in enumerate((1, 2)):
        p = logits[prompt, best].sigmoid()
        right = torch.where(truths[prompt] > 0, p, 1 - p)
        expected["focal"] += 20 * (-((1 - right) ** 2) * right.log()).mean().item() / 2
        overlap = (2 * (p * truths[prompt]).sum() + 1) / (p.sum() + truths[prompt].sum() + 1)
        expected["dice"] += (1 - overlap).item() / 2
        for mask in range(3):
            both = ((logits[prompt, mask] > 0) & (truths[prompt] > 0)).sum()
            either = ((logits[prompt, mask] > 0) | (truths[prompt] > 0)).sum()
            expected["iou"] += 2 * (guesses[prompt, mask] - both / either).square().item() / 6
    terms = objective.losses(Phase("quarters", 10, 2, 1e-3), draw)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-4)


def test_the_contrast_is_clip_s(scenes, generator):
    torch.manual_seed(0)
    objective = Contrastive(scenes)
    features = {}
    for name in ("encode_image", "encode_text"):
        method = getattr(objective.model, name)

        def kept(*arguments, name=name, method=method, **keywords):
            features[name] = method(*arguments, **keywords)
            return features[name]

        setattr(objective.model, name, kept)
    loss = objective.losses(Phase("all patches", 10, 6, 1e-3), generator)["contrast"]
    images, texts = features["encode_image"].float(), features["encode_text"].float()
    logits = images @ texts.T * objective.model.logit_scale.exp()
    both = (F.cross_entropy(logits, torch.arange(6)) + F.cross_entropy(logits.T, torch.arange(6))) / 2
    torch.testing.assert_close(loss, both)


def test_the_temperature_is_bounded(scenes):
    objective = Contrastive(scenes)
    objective.model.logit_scale.data.fill_(9.0)
    objective.after_step(Phase("all patches", 10, 6, 1e-3), 0.5)
    assert objective.model.logit_scale.exp().item() == pytest.approx(100, rel=1e-4)


def test_the_supervised_loss_by_hand(scenes, generator):
    torch.manual_seed(0)
    objective = Supervised(scenes)
    for parameter in objective.backbone.head.parameters():
        nn.init.zeros_(parameter)  # every class is as likely as not
    loss = objective.losses(Phase("all patches", 10, 6, 1e-3), generator)["classes"]
    assert loss.item() == pytest.approx(len(objective.classes) * math.log(2), rel=1e-3)
    known = scenes.things()
    assert objective.classes.tolist() == known.any(0).nonzero().flatten().tolist()
    assert objective.labels.bool().equal(known[:, objective.classes])


@torch.no_grad()
def test_each_class_is_a_question_of_its_own(scenes, monkeypatch):
    torch.manual_seed(0)
    objective = Supervised(scenes)
    logits = torch.randn(4, len(objective.classes))
    monkeypatch.setattr(objective.backbone, "forward", lambda images: logits)
    index = torch.randint(len(scenes), (4,), generator=torch.Generator().manual_seed(5))
    known, expected = scenes.things(), 0.0
    for row, scene in enumerate(index.tolist()):
        for column, number in enumerate(objective.classes.tolist()):
            sign = 1 if known[scene, number] else -1
            expected += math.log(1 + math.exp(-sign * logits[row, column])) / 4
    loss = objective.losses(Phase("all patches", 10, 4, 1e-3), torch.Generator().manual_seed(5))["classes"]
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("kind", "few"), [(Supervised, "few patches"), (Contrastive, "few patches")])
def test_few_patches_are_a_quarter(scenes, generator, kind, few):
    objective = kind(scenes)
    lengths = []
    (first,) = [block.get_submodule("0" if kind is Supervised else "resblocks.0") for block in objective.blocks()]
    first.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[1]))
    for name in (few, "all patches"):
        objective.losses(Phase(name, 10, 4, 1e-3), generator)
    assert lengths == [64 + 1, 256 + 1]
