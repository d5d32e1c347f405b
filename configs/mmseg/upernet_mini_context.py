# mmsegmentation's UPerNet on the frozen features of a student, on mini_context's semseg. The run and the data of
# configs/sak_pascal_mini.yaml have to be there; a head of SegFormer is `decode_head=dict(type="SegformerHead", ...)`.
custom_imports = dict(imports=["sak.deploy.mmseg"])
default_scope = "mmseg"

size, patch, width, classes = (128, 128), 8, 128, 21  # of the student and the data
root = "data/mini_context"

model = dict(
    type="EncoderDecoder",
    # RGB in [0, 1]: the student normalises by itself.
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[0, 0, 0],
        std=[255, 255, 255],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=patch,
        test_cfg=dict(size_divisor=patch),
    ),
    backbone=dict(type="SAKStudent", bundle="runs/sak_pascal_mini/student", source="semseg", frozen=True),
    decode_head=dict(
        type="UPerHead",
        in_channels=[width] * 4,
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=64,
        num_classes=classes,
        norm_cfg=dict(type="BN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=size, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=size),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
data = dict(type="SAKSemSeg", dataset="mini_context", data_root=root)
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(split="train", pipeline=train_pipeline, **data),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(split="val", pipeline=test_pipeline, **data),
)
test_dataloader = val_dataloader
# A class that is nowhere counts 0, as in our own metric.
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"], nan_to_num=0)
test_evaluator = val_evaluator

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01))
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=0, begin=0, end=500, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=500, val_interval=500)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=500))
work_dir = "runs/upernet_mini_context"
