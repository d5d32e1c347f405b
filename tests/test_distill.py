import pytest
import torch

from sak import distill


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("loss", distill.LOSSES)
def test_zero_on_identical_features(loss):
    paths = {"dinov2": [features(2, 8, 4, 6)], "sam": [features(2, 3, 4, 6, seed=1)]}
    terms = distill.distillation_terms(paths, paths, loss)
    assert set(terms) == {"dinov2/0", "sam/0"}
    assert distill.total(terms).item() == pytest.approx(0, abs=1e-6)


def test_cosine_is_of_the_whole_map_of_an_image():
    student, teacher = features(2, 8, 4, 6), features(2, 8, 4, 6, seed=1)
    expected = [1 - torch.dot(s.flatten(), t.flatten()) / (s.norm() * t.norm()) for s, t in zip(student, teacher)]  # noqa: B905
    assert distill.cosine(student, teacher).item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-6)
    torch.testing.assert_close(distill.cosine(3 * teacher, teacher), torch.tensor(0.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("ours", "theirs"), [((4, 6), (8, 12)), ((8, 12), (4, 6)), ((4, 6), (4, 6))])
def test_the_smaller_grid_grows_to_the_larger(ours, theirs):
    student, teacher = distill.match_grids(features(1, 2, *ours), features(1, 2, *theirs))
    assert student.shape == teacher.shape == (1, 2, *max(ours, theirs))


def test_the_gradient_reaches_the_student_alone():
    student, teacher = features(1, 4, 2, 2).requires_grad_(), features(1, 4, 2, 2, seed=1)
    distill.total(distill.distillation_terms({"a": [student]}, {"a": [teacher]})).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
