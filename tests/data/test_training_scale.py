"""The range of training's random scale, boundaries drawn after it, and a share of the labels."""

import shutil

import numpy as np
import pytest
import torch

from sak import config, data
from sak.bundles.build import build_labelled, build_training_set
from sak.data.nyud import NYUDv2
from sak.data.pascal_context import PascalContext
from sak.data.reading import read_image
from sak.errors import UserError

SIZE = (64, 64)


def samples(root, tasks=("edge", "semseg"), epochs=4, **options):
    dataset = PascalContext(root, "train", tasks, image_size=SIZE, augment=True, **options)
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        yield from dataset


def test_the_scale_decides_how_much_of_the_canvas_is_filled(archive):
    whole = {name: read_image(path).shape[:2] for name, path in named(archive)}
    for low, high in ((0.25, 0.5), (0.9, 0.9)):
        for sample in samples(archive, scale=(low, high)):
            sides = [min(canvas, high * side) for canvas, side in zip(SIZE, whole[sample["name"]], strict=True)]
            least = [min(canvas, low * side) for canvas, side in zip(SIZE, whole[sample["name"]], strict=True)]
            for side, smallest, largest in zip(sample["size"], least, sides, strict=True):
                assert smallest - 1 <= side <= largest + 1


def named(root):
    dataset = PascalContext(root, "train", ())
    return zip(dataset.names, dataset.image_files, strict=True)


def test_the_published_range_is_the_default(archive):
    for one, other in zip(samples(archive), samples(archive, scale=(0.5, 2.0)), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("image", "edge", "semseg"))


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_boundaries_drawn_after_scaling_are_those_of_the_scaled_regions(archive, factor):
    """Enlarged lines grow thick, and shrunk ones break; the image and other labels are the same either way."""
    shares = []
    options = {"scale": (factor, factor), "epochs": 2}
    for late, early in zip(
        samples(archive, edges_after_scaling=True, **options), samples(archive, **options), strict=True
    ):
        assert all(torch.equal(late[key], early[key]) for key in ("image", "semseg"))
        assert late["edge"].dtype == early["edge"].dtype == torch.float32
        assert set(late["edge"].unique().tolist()) <= {0.0, 1.0, 255.0}
        shares.append([float((each["edge"] == 1).float().mean()) for each in (late, early)])
    late, early = np.mean(shares, axis=0)
    assert late < 0.6 * early if factor > 1 else late > 1.2 * early


def test_at_the_images_own_scale_both_ways_are_the_same(archive):
    options = {"scale": (1.0, 1.0)}
    for late, early in zip(
        samples(archive, edges_after_scaling=True, **options), samples(archive, **options), strict=True
    ):
        assert torch.equal(late["edge"], early["edge"])


def test_lines_that_are_stored_cannot_be_drawn_again(tmp_path):
    with pytest.raises(UserError, match=r"data\.edges_after_scaling is set, but the boundaries of NYUD-v2 are stored"):
        NYUDv2(tmp_path, tasks=["edge"], edges_after_scaling=True)
    with pytest.raises(UserError, match="gt_sets"):  # what is not asked for is no obstacle: its files are missing
        NYUDv2(tmp_path, tasks=["semseg"], edges_after_scaling=True)


def test_evaluation_does_not_ask_for_them(tiny, archive):
    settings = config.load(tiny, [f"data.root={archive}", "data.edges_after_scaling=true", "data.scale=[0.2,0.2]"])
    plain = config.load(tiny, [f"data.root={archive}"])
    one, other = (data.build(each.data, "val")[0] for each in (settings, plain))
    assert all(torch.equal(one[key], other[key]) for key in one if isinstance(one[key], torch.Tensor))


@pytest.mark.parametrize("given", ["[2,1]", "[0,1]", "[1]", "[1,17]"])
def test_a_range_that_is_none_is_refused(tiny, given):
    with pytest.raises(UserError, match=r"data\.scale is .*\[least, largest\]"):
        config.load(tiny, [f"data.scale={given}"])


# --- a share of the labels ------------------------------------------------------------------------------------------


@pytest.fixture
def several(archive):
    """The archive with eight training images."""
    names = [f"2008_{number:06d}" for number in range(8)]
    for folder in ("JPEGImages", "semseg/VOC12"):
        (file,) = (archive / folder).glob("2008_001000.*")
        for name in names:
            shutil.copy(file, file.with_stem(name))
    (archive / "ImageSets/Context/train.txt").write_text("\n".join(names))
    return archive


def training_names(settings, stage):
    return [file.stem for file in build_training_set(settings, stage, lambda: build_labelled(settings)).image_files]


def test_a_smaller_share_is_part_of_a_larger_one_and_the_first_stage_sees_all(tiny, several):
    def settings(share, seed=0):
        asked = ["data.tasks=[semseg]", f"stages.multitask.labelled={share}", f"seed={seed}"]
        return config.load(tiny, [f"data.root={several}", *asked])

    shares = {share: training_names(settings(share), "multitask") for share in (0.01, 0.25, 0.75, 1.0)}
    assert [len(names) for names in shares.values()] == [1, 2, 6, 8]
    assert set(shares[0.01]) < set(shares[0.25]) < set(shares[0.75]) < set(shares[1.0])
    assert sorted(shares[0.75]) == shares[0.75]  # in the list's order
    assert training_names(settings(0.25), "distill") == shares[1.0]
    assert len({tuple(training_names(settings(0.25, seed), "multitask")) for seed in range(8)}) > 1


def test_labels_of_a_part_are_its_images(archive):
    whole = PascalContext(archive, "train", ["semseg"], image_size=SIZE)
    part = whole.part(0.5, seed=0)
    (name,) = part.names
    expected = whole[whole.names.index(name)]
    assert all(torch.equal(part[0][key], expected[key]) for key in ("image", "semseg"))
    assert len(whole) == len(whole.names) == 2


@pytest.mark.parametrize("share", ["0", "-0.5", "1.5"])
def test_no_such_share(tiny, share):
    with pytest.raises(UserError, match=r"stages\.multitask\.labelled is .*a share of the images"):
        config.load(tiny, [f"stages.multitask.labelled={share}"])
