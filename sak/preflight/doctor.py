"""Everything that an experiment needs, checked before it starts: data, weights, and what it will cost."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from omegaconf import DictConfig

import teachers
from sak.bundles.stem_weights import load_stem
from sak.config.derived import image_size, left_out, unlabelled
from sak.config.schema import plain, teacher_spec
from sak.errors import UserError
from sak.preflight.examination import Problem
from sak.preflight.own_data import with_named_classes
from sak.preflight.plan import Plan, StagePlan, plan
from sak.preflight.survey import Survey, survey_archive, survey_images
from sak.student.stem import Stem
from teachers.base import RANDOM

HUB_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
GB = 1e9


def diagnose(
    config: DictConfig, sample: int | None = None, workers: int = 0, progress: bool = True
) -> tuple[Survey, Plan | None]:
    """What is there, what is wrong, and the plan; None where the parts do not fit together. Nothing is written.

    Args:
        sample: read only so many labelled and so many unlabelled images; None: all.
        workers: processes that read them.
        progress: whether to show a bar.

    Raises:
        UserError: the data set's name, or one of its tasks, is unknown.
    """
    unnamed: list[Problem] = []
    if unlabelled(config):
        survey = Survey()
    else:
        config = config.copy()
        config.data = with_named_classes(config.data, unnamed)
        survey = survey_archive(config.data, sample, workers, progress)
        survey.problems[:0] = unnamed
    train = survey.counts.get("train", 0)
    images = {"distill": train, "multitask": train}
    if config.stages.distill.images is not None and not left_out(config.stages.distill):
        images["distill"] = survey_images(
            config.stages.distill.images, image_size(config, "distill"), survey, sample, workers, progress
        )
    for fact in check_weights(config, survey.problems):
        survey.facts.append(fact)
    for stage, count in images.items():
        settings = config.stages[stage]
        if not left_out(settings) and 0 < count < settings.batch_size:
            detail = f"stages.{stage}.batch_size is {settings.batch_size}, but there are only {count} images"
            survey.problems.append(Problem("config", stage, detail))
    try:
        return survey, plan(config, images)
    except UserError as error:
        survey.problems.append(Problem("config", "student and teachers", str(error)))
        return survey, None


def check_weights(config: DictConfig, problems: list[Problem]) -> Iterator[tuple[str, str]]:
    """Facts about the weights of stem and teachers. Local files are read and compared with the model, strictly."""
    if (method := config.stages.multitask.method) is not None:
        yield "backbone", f"{config.adaptation.backbone}, {method}"
    elif config.student.weights is not None:
        if not Path(config.student.weights).is_dir():
            detail = f"student.weights is {config.student.weights}, which is no folder"
            problems.append(Problem("config", "student", detail))
        yield "stem", f"starts with that of {config.student.weights}"
    elif config.student.stem_weights is not None:
        yield "stem", f"starts with the weights of {config.student.stem_weights}"
        try:
            stem = Stem(config.student.stem, config.data.image_size, plain(config.student.stem_options))
            load_stem(stem, config.student.stem_weights)
        except UserError as error:
            problems.append(Problem("config", "student", str(error)))
        except ValueError:
            pass  # there is no such stem, which the plan says
    elif config.student.pretrained:
        yield "stem", f"starts with timm's weights, {where(config.student.stem)}"
    else:
        yield "stem", "starts with random weights"
    for name, spec in config.teachers.items():
        entry = f"teacher {name}"
        spec = teacher_spec(spec)
        if spec.weights is None:
            yield entry, f"{spec.model}: weights from its library, {where(spec.model)}"
            spec.weights = RANDOM
        elif spec.weights == RANDOM:
            yield entry, f"{spec.model}: random weights, as asked for"
        else:
            yield entry, f"{spec.model}: weights from {spec.weights}"
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch: that weights copied to this device go nowhere
                teachers.build(name, spec)
        except UserError as error:
            problems.append(Problem("teacher", name, str(error)))


def where(model: str) -> str:
    """Whether the hub's cache holds the weights of a timm model."""
    known = timm.models.get_pretrained_cfg(model) if timm.is_model(model.split(".")[0]) else None
    if known is None or not known.hf_hub_id:
        return "downloaded on first use"
    cached = any(isinstance(try_to_load_from_cache(known.hf_hub_id, file), str) for file in HUB_FILES)
    return "which are in the cache" if cached else f"downloaded on first use from {known.hf_hub_id} (not in the cache)"


def describe_plan(plan: Plan) -> str:
    """The plan as text."""
    student = sum(number for part, number in plan.parameters.items() if not part.startswith("teacher "))
    lines = [f"parameters (millions): {student / 1e6:.1f} in the student"]
    lines += [f"  {part:<18}{number / 1e6:>9.2f}" for part, number in plan.parameters.items()]
    for name, stage in plan.stages.items():
        lines += [
            f"stage {name}: {_length(stage)}",
            f"  trained parameters       {stage.trained / 1e6:>9.2f} million",
            f"  weights and teachers     {stage.weights / GB:>9.2f} GB",
            f"  AdamW's states           {stage.states / GB:>9.2f} GB",
            f"  gradients, activations   {stage.moving / GB:>9.2f} GB at their highest",
            f"  memory on one device     {stage.peak / GB:>9.2f} GB",
            f"  a checkpoint on disk     {stage.checkpoint / GB:>9.2f} GB each",
        ]
    return "\n".join(lines)


def _length(stage: StagePlan) -> str:
    if not stage.steps:
        return "as long as its images make it, but there are none"
    epochs = f", {stage.epochs:.4g} epochs" if stage.epochs else ""
    return f"{stage.steps:,} steps, {stage.images:,} images{epochs}"
