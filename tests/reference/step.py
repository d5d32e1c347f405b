"""A training step exactly as the paper puts it (SAK, arXiv 2410.14633), with no thought of speed.

Shapes: B batch, C channels of a task, D teacher width, H,W image, h,w token grid. 255 in a label means: ignore.
"""

import torch
from torch.nn import functional as F

WEIGHTS = {"semseg": 1.0, "human_parts": 2.0, "saliency": 5.0, "normals": 10.0, "edge": 50.0, "depth": 1.0}


def task_loss(task, output, label):
    """The unweighted loss of a task: raw output (B,C,H,W) and label -> a scalar."""
    if task in ("semseg", "human_parts"):
        return F.cross_entropy(output, label, ignore_index=255)
    valid = label != 255
    if task == "saliency":
        foreground = (label[valid] == 1).float().mean()
        classes = torch.stack([foreground, 1 - foreground])
        return F.cross_entropy(output, label, classes, ignore_index=255, reduction="sum") / valid.sum()
    if task == "normals":
        output = output / output.norm(dim=1, keepdim=True)
        return (output - label).abs()[valid].sum() / valid[:, 0].sum()
    if task == "edge":
        weights = torch.where(label[valid] == 1, 0.95, 0.05)
        return F.binary_cross_entropy_with_logits(output[valid], label[valid], weights)
    return (output - label).abs()[valid].mean()


def distillation_loss(path, feature):
    """0.9 (1 - cos of whole flattened maps) + 0.1 SmoothL1, the map with the smaller grid resized to the larger."""
    if path.shape[-1] < feature.shape[-1]:
        path = F.interpolate(path, feature.shape[-2:], mode="bilinear", align_corners=False)
    elif feature.shape[-1] < path.shape[-1]:
        feature = F.interpolate(feature, path.shape[-2:], mode="bilinear", align_corners=False)
    one_minus_cosine = F.cosine_embedding_loss(path.flatten(1), feature.flatten(1), torch.ones(len(path)))
    return 0.9 * one_minus_cosine + 0.1 * F.smooth_l1_loss(path, feature)


def training_step(student, teachers, optimizer, batch, clip=None):
    """One step of the student on a batch: {term: its weighted loss}. A student without tasks is distilled alone.

    Args:
        student: a ``PlainStudent``; teachers: {name: a module of ``reference.teachers``}.
    """
    optimizer.zero_grad()
    predictions, paths, _ = student(batch["image"])
    # Losses in float32, whatever the student computes in.
    predictions = {name: values.float() for name, values in predictions.items()}
    paths = {name: [level.float() for level in levels] for name, levels in paths.items()}
    losses = {f"task/{t}": WEIGHTS[t] * task_loss(t, output, batch[t]) for t, output in predictions.items()}
    for name, teacher in teachers.items():
        for level, (path, feature) in enumerate(zip(paths[name], teacher(batch["image"]), strict=True)):
            losses[f"distill/{name}/{level}"] = distillation_loss(path, feature)
    sum(losses.values()).backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(student.parameters(), clip)
    optimizer.step()
    return {name: loss.item() for name, loss in losses.items()}
