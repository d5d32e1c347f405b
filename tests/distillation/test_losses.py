import pytest
import torch

from sak.distillation import losses


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_zero_on_identical_features(loss):
    paths = {"dinov2": [features(2, 8, 4, 6)], "sam": [features(2, 3, 4, 6, seed=1)]}
    terms = losses.distillation_terms(paths, paths, loss)
    assert set(terms) == {"dinov2/0", "sam/0"}
    assert losses.total(terms).item() == pytest.approx(0, abs=1e-6)


def test_cosine_is_of_the_whole_map_of_an_image():
    student, teacher = features(2, 8, 4, 6), features(2, 8, 4, 6, seed=1)
    expected = [1 - torch.dot(s.flatten(), t.flatten()) / (s.norm() * t.norm()) for s, t in zip(student, teacher)]  # noqa: B905
    assert losses.cosine(student, teacher).item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-6)
    torch.testing.assert_close(losses.cosine(3 * teacher, teacher), torch.tensor(0.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("ours", "theirs"), [((4, 6), (8, 12)), ((8, 12), (4, 6)), ((4, 6), (4, 6))])
def test_the_smaller_grid_grows_to_the_larger(ours, theirs):
    student, teacher = losses.match_grids(features(1, 2, *ours), features(1, 2, *theirs))
    assert student.shape == teacher.shape == (1, 2, *max(ours, theirs))


def test_a_grid_grows_between_the_centres_of_its_cells():
    row, grown = torch.tensor([[[[0.0, 4.0]]]]), torch.tensor([[[[0.0, 1.0, 3.0, 4.0]]]])
    assert torch.equal(losses.match_grids(row, torch.zeros(1, 1, 1, 4))[0], grown)
    assert torch.equal(losses.match_grids(torch.zeros(1, 1, 1, 4), row)[1], grown)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_features_in_half_precision_are_compared_in_float32(loss):
    student, teacher = (features(2, 8, 4, 6, seed=seed).bfloat16() for seed in range(2))
    (of_half,) = losses.distillation_terms({"a": [student]}, {"a": [teacher]}, loss).values()
    assert torch.equal(of_half, losses.LOSSES[loss](student.float(), teacher.float()))


def test_levels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        losses.distillation_terms({"a": [features(1, 2, 2, 2)] * 2}, {"a": [features(1, 2, 2, 2)]})


def test_the_gradient_reaches_the_student_alone():
    student, teacher = features(1, 4, 2, 2).requires_grad_(), features(1, 4, 2, 2, seed=1)
    losses.total(losses.distillation_terms({"a": [student]}, {"a": [teacher]})).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def loss_and_gradient(loss, student, teacher):
    student = student.clone().requires_grad_()
    value = losses.LOSSES[loss](student, teacher)
    value.backward()
    return value.item(), student.grad.double()


@pytest.mark.parametrize("grid", [(24, 24), (37, 37), (64, 64)])  # of DINOv2 and CLIP in stage 1, and of SAM
@pytest.mark.parametrize("loss", ["cos", "token_cos"])
@pytest.mark.parametrize("away", [0.0, 0.05, 0.5])
def test_cosines_are_accurate_at_full_size(loss, grid, away):
    """Against float64: the value, which is 0 for a perfect student, and its gradient."""
    teacher = 3 * features(2, 768, *grid) + 5 * features(1, 768, 1, 1, seed=2)
    student = teacher + away * teacher.std() * features(2, 768, *grid, seed=1)
    found, exact = (
        loss_and_gradient(loss, student.to(kind), teacher.to(kind)) for kind in (torch.float32, torch.float64)
    )
    assert found[0] == pytest.approx(exact[0], rel=1e-3, abs=5e-7)
    if away:  # else the gradient is 0, and what is left of it rounding
        assert (found[1] - exact[1]).norm() < 1e-5 * exact[1].norm()


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_an_empty_map_has_a_finite_loss_and_gradient(loss):
    for empty in (0, 1):
        maps = [features(2, 8, 4, 6), features(2, 8, 4, 6, seed=1)]
        maps[empty] = torch.zeros_like(maps[empty])
        maps[0].requires_grad_()
        value = losses.LOSSES[loss](*maps)
        value.backward()
        assert value.isfinite()
        assert maps[0].grad.isfinite().all()
        if loss in ("cos", "token_cos"):
            assert value.item() == 1


def test_the_cosine_of_what_is_hardly_there_is_damped_as_published():
    x = torch.tensor([[1e-6, 0.0]])
    assert losses.cosine_similarity(x, x, dim=1).item() == pytest.approx(1e-12 / (1e-12 + 1e-12))


def test_cosine_of_every_token():
    student, teacher = features(2, 8, 4, 6), features(2, 8, 4, 6, seed=1)
    cosines = [
        torch.dot(student[b, :, i, j], teacher[b, :, i, j]) / (student[b, :, i, j].norm() * teacher[b, :, i, j].norm())
        for b in range(2)
        for i in range(4)
        for j in range(6)
    ]
    expected = 1 - torch.stack(cosines).mean()
    torch.testing.assert_close(losses.LOSSES["token_cos"](student, teacher), expected)
    smooth = torch.nn.functional.smooth_l1_loss(student, teacher)
    torch.testing.assert_close(losses.LOSSES["token_cos+l1"](student, teacher), 0.9 * expected + 0.1 * smooth)


def test_cosine_of_every_token_does_not_see_how_long_a_token_is():
    teacher = features(2, 8, 4, 6)
    scaled = (features(2, 1, 4, 6, seed=2).abs() + 0.1) * teacher
    assert losses.token_cosine(scaled, teacher).item() == pytest.approx(0, abs=1e-6)
    assert losses.cosine(scaled, teacher).item() > 0.05


def committee(seed=0):
    """Three teachers, one of another grid, two levels."""
    shapes = {"a": (4, 8, 4, 6), "b/c": (4, 5, 4, 6), "d": (4, 6, 8, 12)}
    return {
        name: [features(*shape, seed=seed + 10 * n + level) * (n + 1) for level in range(2)]
        for n, (name, shape) in enumerate(shapes.items())
    }


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_the_losses_of_single_images_average_to_that_of_the_batch(loss):
    paths, taught = committee(), committee(seed=5)
    whole = losses.distillation_terms(paths, taught, loss)
    single = losses.distillation_terms(paths, taught, loss, per_image=True)
    assert {name: tuple(term.shape) for name, term in single.items()} == dict.fromkeys(whole, (4,))
    torch.testing.assert_close({name: term.mean() for name, term in single.items()}, whole)
    torch.testing.assert_close(losses.total_with_dropping(single, 0.0), losses.total(whole))


def test_teachers_are_dropped_image_by_image_but_never_the_worst_learned():
    terms = losses.distillation_terms(committee(), committee(seed=5), "l2", per_image=True)
    of_teachers = [terms[f"{name}/0"] + terms[f"{name}/1"] for name in ("a", "b/c", "d")]
    highest = torch.stack(of_teachers).amax(dim=0)
    torch.testing.assert_close(losses.total_with_dropping(terms, 1.0), 3 * highest.mean())

    torch.manual_seed(0)
    found = losses.total_with_dropping(terms, 0.5)
    torch.manual_seed(0)
    draws = torch.rand(3, 4)
    kept = []
    for image in range(4):
        of_image = [of_teachers[teacher][image].item() for teacher in range(3)]
        for teacher in range(3):
            if of_image[teacher] == max(of_image) or draws[teacher, image] >= 0.5:
                kept.append(of_image[teacher])
    assert 4 < len(kept) < 12
    assert found.item() == pytest.approx(3 * sum(kept) / len(kept), rel=1e-5)


def test_a_dropped_teacher_sends_no_gradient():
    student = {name: [m.requires_grad_() for m in maps] for name, maps in committee().items()}
    terms = losses.distillation_terms(student, committee(seed=5), "l2", per_image=True)
    losses.total_with_dropping(terms, 1.0).backward()
    worst = torch.stack([terms[f"{name}/0"] + terms[f"{name}/1"] for name in student]).argmax(dim=0)
    for number, maps in enumerate(student.values()):
        moved = maps[0].grad.flatten(1).abs().sum(dim=1) > 0
        assert torch.equal(moved, worst == number)
