"""In mmsegmentation: the config trains and is evaluated, and its metric and ours agree."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from sak import Student
from sak.data.pascal_context import PascalContext
from sak.metrics.miou import MeanIoU

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "tests/fixtures/pascal_format/PASCALContext"


@pytest.fixture
def config(trained, tmp_path):
    config = Config.fromfile(ROOT / "configs/mmseg/upernet_mini_context.py")
    config.work_dir = str(tmp_path / "work")
    config.model.backbone.bundle = str(trained / "student")
    config.model.decode_head.update(in_channels=[32] * 4, channels=16)
    for settings in (config.model.data_preprocessor, config.model.data_preprocessor.test_cfg):
        settings.size_divisor = 16
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.update(num_workers=0, batch_size=1 if loader is not config.train_dataloader else 2)
        loader.dataset.update(dataset="pascal_context", data_root=str(ARCHIVE))
    config.train_cfg.update(max_iters=2, val_interval=2)
    config.log_level = "ERROR"
    return config


@pytest.mark.parametrize("head", ["UPerHead", "SegformerHead"])
def test_the_config_trains_and_the_metrics_agree(config, trained, head):
    if head == "SegformerHead":
        config.model.decode_head.pop("pool_scales")
        config.model.decode_head.type = head
    runner = Runner.from_cfg(config)
    student = Student.from_pretrained(trained / "student").state_dict()
    runner.train()
    for key, value in runner.model.backbone.features.student.state_dict().items():
        assert torch.equal(value, student[key]), key  # frozen, its batch norms too
    ours, pairs = MeanIoU(21), []
    evaluator = runner.val_evaluator
    process = evaluator.process
    evaluator.process = lambda data_samples, data_batch: (pairs.extend(data_samples), process(data_samples, data_batch))
    metrics = runner.val_loop.run()
    assert len(pairs) == 2
    truths = PascalContext(ARCHIVE, "val", tasks=["semseg"], image_size=(96, 96))
    for sample, truth in zip(pairs, truths, strict=True):
        prediction = sample.pred_sem_seg.data
        height, width = truth["size"]
        top, left = (96 - height) // 2, (96 - width) // 2
        inside = truth["semseg"][top : top + height, left : left + width]
        assert prediction.shape[1:] == inside.shape
        ours.update(prediction, inside[None])
    assert metrics["mIoU"] == pytest.approx(ours.compute().item(), abs=0.006)  # theirs is rounded to 2 digits
    assert runner.val_dataloader.dataset.metainfo["classes"][15] == "person"
    assert runner.val_dataloader.dataset.metainfo["palette"][15] == [192, 128, 128]


def test_who_normalises(trained):
    from sak.deploy.mmseg import SAKStudent

    images, bundle = torch.rand(1, 3, 96, 96), str(trained / "student")
    plain = SAKStudent(bundle, source="semseg").eval()
    student = Student.from_pretrained(trained / "student").eval()
    expected = student.features(images, "semseg")
    assert len(plain(images)) == 4
    theirs = SAKStudent(bundle, source="semseg", normalised=True).eval()((images - student.mean) / student.std)
    for one, two, three in zip(plain(images), theirs, expected, strict=True):
        assert torch.equal(one, three)
        torch.testing.assert_close(two, three, atol=1e-4, rtol=1e-4)


def test_a_backbone_that_learns(trained):
    from sak.deploy.mmseg import SAKStudent

    backbone = SAKStudent(str(trained / "student"), source="dinov2", out_indices=[1, 3], frozen=False).train()
    maps = backbone(torch.rand(2, 3, 32, 48))
    assert [tuple(level.shape) for level in maps] == [(2, 32, 2, 3)] * 2
    sum(level.sum() for level in maps).backward()
    assert backbone.features.student.stem.vit.pos_embed.grad is not None
