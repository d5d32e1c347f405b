"""A teacher that comes changes nothing until it is trained, and one that goes leaves what was."""

import math

import pytest
import torch

from sak.student import Student
from sak.student.growth import (
    EPSILON,
    EnteringGate,
    add_teacher,
    fold,
    keep_entrances_positive,
    realigned,
    remove_teacher,
    reopen,
    replace_path,
)
from sak.student.router import MIN_NOISE

DIMS = {"a": [24, 24], "b": [32, 32]}


def build(teachers=DIMS, **settings):
    torch.manual_seed(0)
    student = Student(
        "vit_tiny_patch16_384",
        (64, 64),
        {"semseg": 3, "edge": 1},
        teachers,
        levels=[0, 1],
        stem_options={"patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2},
        **settings,
    ).eval()
    # Routers as training leaves them: with weights that differ from image to image and are far from even.
    with torch.no_grad():
        for name, parameter in student.routers.named_parameters():
            if ".gate.3." in name:
                parameter.normal_(std=0.5)
    return student


def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def gates(student):
    return [router.gate[-1] for levels in student.routers.values() for router in levels]


def states_equal(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("router", ["mor", "token"])
@pytest.mark.parametrize("settings", [{}, {"noisy_gating": False}, {"router_temperature": 3.0}])
def test_a_new_teacher_changes_no_prediction_and_no_old_weight(router, settings):
    student = build(router=router, **settings)
    grown = add_teacher(student, "c", [16, 16])
    assert grown.sources == ("stem", "a", "b", "c")
    with torch.no_grad():
        before, after = student(images()), grown(images())
    fold(grown)
    with torch.no_grad():
        folded = grown(images())
    for task, prediction in before.predictions.items():
        assert prediction.std() > 1e-3
        for now in (after, folded):
            torch.testing.assert_close(now.predictions[task], prediction, rtol=0, atol=1e-6)
            for level, weights in enumerate(before.routing[task]):
                torch.testing.assert_close(now.routing[task][level][:, :3], weights, rtol=0, atol=5e-7)
                assert now.routing[task][level][:, 3].max() < 1e-12
    assert all(torch.equal(one, other) for one, other in zip(before.paths["a"], after.paths["a"], strict=True))
    assert [tuple(level.shape) for level in after.paths["c"]] == [(3, 16, 4, 4)] * 2


@pytest.mark.parametrize("router", ["mor", "token"])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_no_noise_opens_a_source_that_is_not_in_yet(router, temperature):
    """Nor one that was of no use and folded, nor once it is let in again."""
    grown = add_teacher(build(router=router, router_temperature=temperature), "c", [32, 32]).train()
    for change in (lambda: None, lambda: fold(grown), lambda: reopen(grown, "c")):
        change()
        grown.train()
        for part in grown.routers["semseg"]:
            x = torch.randn(8, 256, 32)
            with torch.no_grad():
                between_draws = (part.logits(x) - part.logits(x)).abs()
                weights = part.eval().weights(x)
            # Only the noise that every source has at least; at its start it weighs ε by no less than the others' mean.
            assert between_draws[..., 3].max() < 10 * MIN_NOISE < 1 < between_draws[..., :3].max()
            assert weights[..., 3].max() < EPSILON


@pytest.mark.parametrize("noisy", [True, False])
def test_what_was_folded_unused_opens_as_if_it_were_new(noisy):
    grown = add_teacher(build(noisy_gating=noisy, router_temperature=0.5), "c", [32, 32])
    new = [gate.bias.detach().clone() for gate in gates(grown)]
    fold(grown)
    older = [gate.bias.detach().clone() for gate in gates(grown)]
    reopen(grown, "c")
    for gate, bias in zip(gates(grown), new, strict=True):
        torch.testing.assert_close(gate.bias, bias, rtol=0, atol=1e-5)
    if noisy:  # of a bundle in which the raw scales of the noise were left as they are
        fold(grown)
        for gate, folded, bias in zip(gates(grown), older, new, strict=True):
            gate.bias.data = torch.cat([folded[:4], bias[4:]])
        reopen(grown, "c")
        for gate, bias in zip(gates(grown), new, strict=True):
            torch.testing.assert_close(gate.bias, bias, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shift", [-40.0, 40.0])
@pytest.mark.parametrize("entered", [True, False])
def test_what_is_shut_is_seen_beside_the_other_sources(shift, entered):
    """A softmax does not see what all logits have in common."""
    grown = add_teacher(build(noisy_gating=False), "c", [32, 32])
    with torch.no_grad():
        for gate in gates(grown):
            gate.entrance.fill_(float(entered))
            gate.bias += shift
    fold(grown)
    reopen(grown, "c")
    assert [isinstance(gate, EnteringGate) for gate in gates(grown)] == [not entered] * 4


def test_a_source_that_is_in_has_the_noise_of_its_gate():
    grown = add_teacher(build(), "c", [32, 32])
    with torch.no_grad():
        for gate in gates(grown):
            gate.entrance.fill_(0.5)
            assert torch.equal(gate.whole_bias()[4:], gate.bias[4:])
            assert gate.whole_bias()[3] - gate.bias[3] == pytest.approx(math.log(30 * 0.5))
    fold(grown)
    before = [gate.bias.clone() for gate in gates(grown)]
    reopen(grown, "c")  # which has a weight, and stays
    assert all(torch.equal(gate.bias, bias) for gate, bias in zip(gates(grown), before, strict=True))
    assert not any(isinstance(gate, EnteringGate) for gate in gates(grown))


def test_the_gradient_of_the_entrance_is_that_of_its_formula():
    """dL/dθ at 0, against the finite difference of a student whose source has entered a little."""
    grown = add_teacher(build(), "c", [32, 32]).double()
    fixed = torch.randn(3, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def loss():
        return (grown(images().double()).predictions["semseg"] * fixed).sum()

    entrance = grown.routers["semseg"][1].gate[-1].entrance
    loss().backward()
    slope = entrance.grad.item()
    with torch.no_grad():
        start = loss().item()
        entrance.fill_(1e-6)
        measured = (loss().item() - start) / 1e-6
    assert abs(slope) > 1e-3
    assert slope == pytest.approx(measured, rel=1e-4)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_source_that_helps_enters_and_one_that_harms_does_not(autocast):
    """Only the routers learn, towards the new path's features, or away from them."""
    for sign in (1, -1):
        grown = add_teacher(build(), "c", [32, 32])
        grown.freeze(["stem", "paths", "heads"])
        optimizer = torch.optim.AdamW([p for p in grown.parameters() if p.requires_grad], lr=1e-2)
        keep_entrances_positive(grown, optimizer)
        stem, *paths = torch.randn(4, 3, 16, 32, generator=torch.Generator().manual_seed(1))
        shares = []
        grown.train()
        for step in range(60):
            torch.manual_seed(step)  # of the gates' noise
            optimizer.zero_grad()
            loss = 0
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                for router in grown.routers["semseg"]:
                    mixed, weights = router(stem, paths)
                    loss = loss - sign * (mixed.float() * paths[-1]).mean()
                    shares.append(weights[:, -1].mean().item())
            loss.backward()
            optimizer.step()
        entrances = [gate.entrance.item() for gate in gates(grown)[:2]]
        assert max(shares[:2]) < 1e-12
        assert min(entrances) >= 0
        if sign == 1:
            assert min(shares[-2:]) > 0.5
        else:
            assert max(shares[-2:]) < 1e-2


def test_a_source_enters_within_a_short_training():
    """Adam moves no weight by more than its rate in a step: here by 0.1 in all."""
    grown = add_teacher(build(), "c", [32, 32])
    grown.freeze(["stem", "paths", "heads"])
    optimizer = torch.optim.AdamW([p for p in grown.parameters() if p.requires_grad], lr=1e-3)
    keep_entrances_positive(grown, optimizer)
    stem, *paths = torch.randn(4, 3, 16, 32, generator=torch.Generator().manual_seed(1))
    for step in range(100):
        torch.manual_seed(step)  # of the gates' noise
        optimizer.zero_grad()
        mixed, weights = grown.train().routers["semseg"][0](stem, paths)
        (mixed - paths[-1]).square().mean().backward()
        optimizer.step()
    assert weights[:, -1].mean() > 0.4  # an average source has 0.25


def test_a_source_that_was_of_no_use_can_enter_later():
    grown = add_teacher(build(), "c", [32, 32])
    entrance = gates(grown)[0].entrance
    optimizer = torch.optim.SGD([entrance], lr=1.0, momentum=0.0)
    keep_entrances_positive(grown, optimizer)
    for gradient, left in ((2.0, 0.0), (-0.5, 0.5), (0.2, 0.3), (1.0, 0.0)):
        entrance.grad = torch.tensor([gradient])
        optimizer.step()
        assert entrance.item() == pytest.approx(left)


def test_the_whole_student_passes_its_gradient_to_the_entrance():
    grown = add_teacher(build(), "c", [32, 32]).train()
    grown.freeze(["stem", "paths.a", "paths.b"])
    grown(images()).predictions["edge"].square().mean().backward()
    for level in grown.routers["edge"]:
        assert level.gate[-1].entrance.grad.abs() > 1e-9
    assert grown.stem.vit.cls_token.grad is None
    assert all(p.grad is None for p in grown.paths["a"].parameters())


@pytest.mark.parametrize("settings", [{}, {"noisy_gating": False}, {"router": "token"}, {"aligner": False}])
def test_removing_what_was_added_gives_back_the_student_bit_for_bit(settings, tmp_path):
    student = build(**settings)
    back = remove_teacher(add_teacher(student, "c", [16, 16], aligner=None), "c")
    assert states_equal(back, student)
    student.save_pretrained(tmp_path / "student")
    back.save_pretrained(tmp_path / "back")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "back" / file).read_bytes() == (tmp_path / "student" / file).read_bytes()
    with torch.no_grad():
        for task, prediction in student(images()).predictions.items():
            assert torch.equal(back(images()).predictions[task], prediction)


@pytest.mark.parametrize("teacher", ["a", "b"])
def test_without_a_teacher_the_other_weights_are_renormalised(teacher):
    student = build()
    removed = remove_teacher(student, teacher)
    left = [source for source in student.sources if source != teacher]
    assert removed.sources == tuple(left)
    places = [student.sources.index(source) for source in left]
    with torch.no_grad():
        before, after = student(images()), removed(images())
        knocked_out = student(images(), without=[teacher])
    for task in before.routing:
        for old, new in zip(before.routing[task], after.routing[task], strict=True):
            kept = old[:, places]
            torch.testing.assert_close(new, kept / kept.sum(dim=1, keepdim=True), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(after.predictions[task], knocked_out.predictions[task], rtol=1e-4, atol=1e-5)


def test_without_its_last_teacher_the_stem_is_left():
    student = build({"a": [24, 24]})
    removed = remove_teacher(student, "a")
    assert (removed.sources, len(removed.routers), len(removed.paths)) == (("stem",), 0, 0)
    assert removed.settings == build({}).settings
    with torch.no_grad():
        torch.testing.assert_close(
            removed(images()).predictions["edge"], student(images(), without=["a"]).predictions["edge"]
        )


def test_what_was_trained_comes_back_from_its_bundle_as_it_was(tmp_path):
    grown = add_teacher(build(aligner=False), "c", [16, 16], aligner=None)
    with torch.no_grad():
        for share, gate in zip((0.0, 1e-3, 0.5, 2.0), gates(grown), strict=True):
            gate.entrance.fill_(share)
        before = grown(images())
    fold(grown)
    assert not any(isinstance(gate, EnteringGate) for gate in gates(grown))
    grown.save_pretrained(tmp_path)
    loaded = Student.from_pretrained(tmp_path).eval()
    assert loaded.aligners == {"a": False, "b": False, "c": None}
    with torch.no_grad():
        after = loaded(images())
    for task, prediction in before.predictions.items():
        assert torch.equal(after.predictions[task], prediction)
    assert all(torch.equal(one, other) for one, other in zip(before.paths["c"], after.paths["c"], strict=True))
    assert [tuple(level.shape) for level in after.paths["a"]] == [(3, 32, 4, 4)] * 2


def test_another_path_in_place_of_one():
    student, other = build(), build()
    path = add_teacher(other, "c", [16, 16]).paths["c"]
    replaced = replace_path(student, "a", path, [16, 16], None)
    assert torch.equal(replaced.paths["a"].adapters[0].down.weight, path.adapters[0].down.weight)
    assert tuple(replaced(images()).paths["a"][0].shape) == (3, 16, 4, 4)
    back = replace_path(replaced, "a", student.paths["a"], DIMS["a"], None)
    assert states_equal(back, student)


def test_dropped_aligners_are_drawn_anew_on_one_path():
    student = build()
    student.drop_aligners()
    aligned = realigned(student, "a", None)
    assert aligned.aligners == {"a": None, "b": False}
    assert tuple(aligned(images()).paths["a"][0].shape) == (3, 24, 4, 4)
    kept = {key: value for key, value in aligned.state_dict().items() if "aligners" not in key}
    assert kept.keys() == student.state_dict().keys()
    assert all(torch.equal(value, student.state_dict()[key]) for key, value in kept.items())


def test_frozen_parts_rest_in_every_mode():
    student = build().train()
    student.freeze(["stem", "heads", "paths.a"])
    norm = student.heads["edge"].fuse[1]
    before = norm.running_mean.clone()
    for mode in (True, False, True):
        student.train(mode)
        student(images())
        assert [student.stem.training, norm.training, student.paths["b"].training] == [False, False, mode]
    assert torch.equal(norm.running_mean, before)
    assert not any(p.requires_grad for p in student.heads.parameters())
    assert all(p.requires_grad for p in student.paths["b"].parameters())


def test_what_cannot_be_added_or_removed():
    for settings, teacher, message in (
        ({}, "a", "it has a teacher 'a' already; its teachers: a, b"),
        ({"router": "sum"}, "c", r"it has no routers \(student.router is sum.*another source would change"),
        ({"router": "equal"}, "c", "it has no routers"),
        ({"router": "token_topk"}, "c", "token_topk, which never choose"),
        ({"paths": "none"}, "c", "no adapter paths"),
    ):
        with pytest.raises(ValueError, match=message):
            add_teacher(build(**settings), teacher, [16, 16])
    with pytest.raises(ValueError, match="'c' has 3 levels and the student 2"):
        add_teacher(build(), "c", [16, 16, 16])
    with pytest.raises(ValueError, match="it has no teacher 'c'; its teachers: a, b"):
        remove_teacher(build(), "c")
    with pytest.raises(ValueError, match="router_top_k is 3"):
        remove_teacher(build(router="token_topk", router_top_k=3), "a")
