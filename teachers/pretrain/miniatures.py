"""The architectures of the miniature committee: what is trained here is what the family files load."""

from teachers.base import TeacherSpec

IMAGE_SIZE = 96
LEVELS = [1, 3, 5, 7]

MINIATURES = {
    "dinov2": TeacherSpec(
        family="dinov2",
        model="vit_small_patch14_dinov2",
        weights="teachers/mini/dinov2.safetensors",
        levels=LEVELS,
        options={"img_size": IMAGE_SIZE, "patch_size": 8, "embed_dim": 144, "depth": 8, "num_heads": 3},
    ),
    "clip": TeacherSpec(
        family="clip",
        model="ViT-B-16",
        weights="teachers/mini/clip.safetensors",
        levels=LEVELS,
        options={
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "width": 128,
            "layers": 8,
            "head_width": 32,
            "embed_dim": 128,
        },
    ),
    "sam": TeacherSpec(
        family="sam",
        model="vit_b",
        weights="teachers/mini/sam.safetensors",
        levels=LEVELS,
        options={
            "img_size": IMAGE_SIZE,
            "patch_size": 8,
            "embed_dim": 128,
            "depth": 8,
            "num_heads": 4,
            "window_size": 6,
            "global_attn_indexes": [1, 3, 5, 7],
            "out_chans": 64,
        },
    ),
    # no member of the committee: the plain supervised network that the members are compared with
    "vit": TeacherSpec(
        family="timm",
        model="vit_tiny_patch16_384",
        weights="teachers/mini/vit.safetensors",
        levels=LEVELS,
        options={"img_size": IMAGE_SIZE, "patch_size": 8, "embed_dim": 128, "depth": 8, "num_heads": 4},
    ),
}
