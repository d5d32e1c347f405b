"""The training of the miniatures, on an archive of a few coloured squares."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import scipy.io
import torch
from torch import nn

import teachers
from sak.errors import UserError
from sak.tensors import metadata_of
from teachers.pretrain import data, evaluation, promptable
from teachers.pretrain.loop import fit
from teachers.pretrain.miniatures import MINIATURES
from teachers.pretrain.run import pretrain


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Eight scenes in the on-disk format: a square of one of two classes on one of two grounds."""
    root = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(0)
    captions = {}
    maps = ("semseg/VOC12", "semseg/pascal-context", "SegmentationObject", "sal_distill")
    for folder in (*maps, "JPEGImages", "pascal-context/trainval", "ImageSets/Context"):
        (root / folder).mkdir(parents=True)
    ids = [f"{number:03}" for number in range(8)]
    for number, name in enumerate(ids):
        label, ground = 1 + number % 2, 30 + number // 2 % 2
        mask = np.zeros((72, 96), np.uint8)
        y, x = rng.integers(5, 30, size=2)
        mask[y : y + 35, x : x + 40] = 1
        image = np.where(mask[..., None], (40, 90 * label, 160), (ground * 4, 200, 20)) + rng.integers(
            0, 30, (72, 96, 3)
        )
        cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), image.astype(np.uint8))
        cv2.imwrite(str(root / "semseg" / ("VOC12", "pascal-context")[number % 2] / f"{name}.png"), mask * label)
        cv2.imwrite(str(root / "SegmentationObject" / f"{name}.png"), mask)
        cv2.imwrite(str(root / "sal_distill" / f"{name}.png"), mask * 255)
        label_map = np.where(mask, label, ground).astype(np.uint16)
        scipy.io.savemat(root / "pascal-context/trainval" / f"{name}.mat", {"LabelMap": label_map})
        captions[name] = f"a square {label} on ground {ground}"
    (root / "ImageSets/Context/train.txt").write_text("\n".join(ids[:5]) + "\n")
    (root / "ImageSets/Context/val.txt").write_text("\n".join(ids[5:]) + "\n")
    (root / "captions.json").write_text(json.dumps(captions))
    return root


def test_load_reads_what_the_archive_holds(archive):
    train = data.load(archive, "train")
    assert train.images.shape == (5, 3, 72, 96)
    assert train.captions[1] == "a square 2 on ground 30"
    assert train.main_class().tolist() == [1, 2, 1, 2, 1]
    assert train.regions[0].unique().tolist() == [1, 2 + 1]  # the instance, then the ground's place among the labels
    assert (train.regions[0] == 1).equal(train.salient[0])
    assert [scene.nonzero().flatten().tolist() for scene in train.things] == [[1], [2], [1], [2], [1]]
    # RGB: the square's green is 90 times its class, brighter in the second scene
    green = [train.images[scene, 1][train.salient[scene]].float().mean() for scene in (0, 1)]
    assert green[1] - green[0] == pytest.approx(90, abs=8)


def test_an_incomplete_archive_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*train\.txt"):
        data.load(tmp_path, "train")


def test_crop_keeps_the_box_and_mirrors_it():
    image = torch.arange(64.0).view(1, 1, 8, 8)
    right_half = torch.tensor([[0.75, 0.5, 0.5, 1.0]])
    straight = data.crop(image, right_half, torch.tensor([False]), 4, mode="nearest")
    assert set(straight.flatten().long().remainder(8).tolist()) <= {4, 5, 6, 7}
    mirrored = data.crop(image, right_half, torch.tensor([True]), 4)
    torch.testing.assert_close(mirrored.flip(3), data.crop(image, right_half, torch.tensor([False]), 4))
    boxes = data.boxes(200, (0.1, 0.9), torch.Generator().manual_seed(0))
    assert (boxes[:, :2] - boxes[:, 2:] / 2).min() >= 0
    assert (boxes[:, :2] + boxes[:, 2:] / 2).max() <= 1 + 1e-6


def test_prompts_lie_in_their_masks():
    regions = torch.zeros(2, 20, 20, dtype=torch.long)
    regions[0, :8, :8] = 3
    regions[1, :2, :2] = 4  # too small for a prompt
    images, points, masks = promptable.sample_prompts(regions, 4, torch.Generator().manual_seed(1))
    assert images.tolist() == [0, 0, 1]
    assert sorted(masks.sum((1, 2)).tolist()) == [64, 336, 396]
    assert all(mask[int(y), int(x)] == 1 for (x, y), mask in zip(points, masks, strict=True))


def test_mask_losses_by_hand():
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., :2] = 1
    right, wrong = 40 * (truth - 0.5), -40 * (truth - 0.5)
    assert promptable.dice(right, truth).item() == pytest.approx(0, abs=1e-5)
    assert promptable.dice(wrong, truth).item() == pytest.approx(1 - 1 / 17, abs=1e-5)
    assert promptable.focal(torch.zeros(1, 1, 4, 4), truth).item() == pytest.approx(np.log(2) / 4, rel=1e-5)
    assert promptable.iou(right > 0, truth > 0).item() == 1
    assert promptable.iou(wrong > 0, truth > 0).item() == 0


@torch.no_grad()
def test_prompts_of_many_images_at_once_equal_one_image_at_a_time(archive):
    torch.manual_seed(0)
    objective = promptable.Promptable(data.load(archive, "train"), batch_size=2).eval()
    embeddings, points = (
        objective.embed(torch.rand(3, 3, 96, 96)),
        torch.tensor([[5.0, 9.0], [50.0, 20.0], [90.0, 90.0]]),
    )
    together, together_iou = objective.segment(embeddings, points)
    sam = objective.sam
    for number in range(3):
        sparse, dense = sam.prompt_encoder((points[number].view(1, 1, 2), torch.ones(1, 1)), None, None)
        masks, ious = sam.mask_decoder(
            embeddings[number : number + 1], sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=True
        )
        masks = nn.functional.interpolate(masks, size=(96, 96), mode="bilinear")
        torch.testing.assert_close(together[number], masks[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together_iou[number], ious[0], rtol=1e-4, atol=1e-5)


def test_average_precision_by_hand():
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    truths = torch.tensor([[True, True], [False, False], [True, False], [False, False]])
    precision = evaluation._average_precision(scores, truths)
    torch.testing.assert_close(precision, torch.tensor([(1 + 2 / 3) / 2, 1 / 4]))


class Line(nn.Module):
    """A least-squares objective, to watch the loop itself."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 1))

    def loss(self, progress, generator):
        x = torch.randn(16, 3, generator=generator)
        return (x @ self.weight - x.sum(1, keepdim=True)).square().mean()

    def after_step(self, progress):
        if progress == self.stop_at:
            raise KeyboardInterrupt

    stop_at = None


def test_a_stopped_run_resumes_where_it_was(tmp_path):
    straight, stopped, resumed = Line(), Line(), Line()
    fit(straight, 10, 0.1, tmp_path / "a.pt", seed=3, every=4)
    stopped.stop_at = 0.6
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, 10, 0.1, tmp_path / "b.pt", seed=3, every=4)
    _, starts = fit(resumed, 10, 0.1, tmp_path / "b.pt", seed=3, every=4)
    assert starts == 2
    assert resumed.weight.equal(straight.weight)
    assert straight.weight.abs().min() > 0.2
    with pytest.raises(UserError, match="delete it to start anew"):
        fit(Line(), 11, 0.1, tmp_path / "b.pt", seed=3)


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_two_steps_give_weights_that_the_family_loads(name, archive, tmp_path):
    spec = MINIATURES[name]
    spec = teachers.TeacherSpec(**{**vars(spec), "weights": str(tmp_path / f"{name}.safetensors")})
    pretrain(name, [archive], tmp_path, tmp_path / "work", "the command", steps=2, batch_size=4)
    features = teachers.build(name, spec)(torch.rand(1, 3, 96, 96))
    assert all(level.isfinite().all() for level in features)
    text = (tmp_path / f"{name}.md").read_text()
    assert "the command" in text
    assert "2 steps of 4 images" in text
    assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("content", [b"PK corrupt", None])
def test_a_checkpoint_that_is_none_is_one_sentence(content, tmp_path):
    if content is None:
        torch.save([1, 2], tmp_path / "a.pt")
    else:
        (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pt (cannot be read|is no checkpoint of this training)"):
        fit(Line(), 10, 0.1, tmp_path / "a.pt", seed=3)


def test_a_vit_of_another_width(archive, tmp_path):
    pretrain("vit", [archive], tmp_path, tmp_path / "work", "c", steps=1, batch_size=2, width=24)
    spec = MINIATURES["vit"]
    weights, options = str(tmp_path / "vit.safetensors"), {**spec.options, "embed_dim": 24}
    small = teachers.build("small", dataclasses.replace(spec, weights=weights, options=options))
    assert [level.shape[1] for level in small(torch.rand(1, 3, 96, 96))] == [24] * 4


def test_weights_of_another_miniature_to_go_on_from_are_refused(archive, tmp_path):
    with pytest.raises(
        UserError, match=r"clip\.safetensors does not fit the miniature sam; give weights of it as --init"
    ):
        pretrain("sam", [archive], tmp_path, tmp_path, "c", steps=1, batch_size=2, init=MINIATURES["clip"].weights)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_what_is_exported_notes_its_network_and_can_be_gone_on_from(name, archive, tmp_path):
    pretrain(name, [archive], tmp_path, tmp_path / "w", "c", steps=1, batch_size=2, init=MINIATURES[name].weights)
    notes, shipped = metadata_of(tmp_path / f"{name}.safetensors"), metadata_of(MINIATURES[name].weights)
    assert notes == shipped
    assert "sak_network" in notes
