"""Bad input of every kind to every tool: one line that says what, where and what to do, exit code 2, nothing changed.

All calls happen in one directory, which is listed with the hashes of its files before and after each of them.
"""

import errno
import hashlib
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sak import Student, cli

ROOT = Path(__file__).parents[1]
ARCHIVE = ROOT / "tests" / "fixtures" / "pascal_format" / "PASCALContext"
LONG = "n" * 300
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

# --- the directory ----------------------------------------------------------------------------------------------------

LETTERS = "abcdefghijklmnopqrst"
DOUBLED = [f"{one}: &{one} [*{before}, *{before}]" for before, one in itertools.pairwise(LETTERS)]
YAML = {  # files of bad/: what they hold, and what is said of them
    "empty": ("", "data.dataset has no value"),
    "list": ("- 1\n- 2\n", "must hold keys and values, not a list"),
    "text": ("root:x:0:0:hush\nbin:x:1:1:hush", "must hold keys and values, not text"),
    "unclosed": ("name: x\ndata: [1, 2", "line 2"),
    "tab": ("data:\n\troot: x", "line 2: found character"),
    "twice": ("name: a\nseed: 1\nname: b", "line 3: name is given twice"),
    "utf16": ("name: a".encode("utf-16"), "not in UTF-8"),
    "latin1": (b"name: caf\xe9", "not in UTF-8"),
    "nul": (b"name: a\0b", "unacceptable character"),
    "nul_escaped": ('name: "a\\0b"', "without control characters"),
    "newline": ('name: "a\\nb"', "without control characters"),
    "blank": ("name: ' '", "must be text that is not empty"),
    "bomb": ("\n".join(["a: &a [x, x]", *DOUBLED]), "with its aliases written out"),
    "itself": ("data: &x {root: *x}", "holds itself"),
    "deep": ("data: " + "[" * 1200, "nested too deeply"),
    "code": ("student: {stem_options: {a: !!python/object/apply:os.getcwd []}}", "cannot be read: could not determine"),
    "two": ("name: a\n---\nname: b", "line 2: but found another document"),
    "listed_key": ("? [a, b]\n: 1", "given by names"),
    "anchor": ("name: *nowhere", "found undefined alias"),
    "around": ("extends: ../bad/around.yaml", "extends itself through"),
    "there": ("extends: back.yaml", "extends itself through"),
    "back": ("extends: there.yaml", "extends itself through"),
    "linked": ("extends: link.yaml", "extends itself through"),
    "of_a_folder": ("extends: ..", "no config file at bad/.., which bad/of_a_folder.yaml extends"),
    "of_nothing": ("extends: nowhere.yaml", "which bad/of_nothing.yaml extends"),
    "of_text": ("extends: text.yaml", "text.yaml must hold keys and values"),
    "of_two": ("extends: [a.yaml, b.yaml]", "line 1: extends must be the path of one file"),
    "unknown": ("name: a\nstudnet: {}", "line 2: unknown key studnet; the nearest known key is student"),
    "unknown_below": ("data:\n  rooot: x", "line 2: unknown key data.rooot; the nearest known key is data.root"),
    "many_teachers": ("teachers: [dinov2]", "teachers must be keys and values"),
    "no_teacher": ("teachers: {sam: null}", "there is no teacher sam to take out"),
    "no_number": (
        "stages:\n  distill:\n    optim: {lr: fast}",
        "line 3: stages.distill.optim.lr is 'fast', but must be a",
    ),
}


def corrupt(world, name, **files):
    """A copy of the bundle with some of its files replaced: by text, JSON, bytes, or None to remove it."""
    shutil.copytree(world / "bundle", world / name)
    for file, content in files.items():
        path = world / name / {"config": "config.json", "weights": "model.safetensors"}[file]
        if content is None:
            path.unlink()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))


def run_with(world, name, file, content):
    """A copy of the run in which one file is another, or a directory if the content is None."""
    run = Path(shutil.copytree(world / "runs" / "tiny", world / "runs" / name))
    path = run / file
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if content is None else path.write_bytes(content)
    return run


@pytest.fixture(scope="module")
def world(trained, tmp_path_factory):
    world = tmp_path_factory.mktemp("world")
    text = (ROOT / "tests" / "fixtures" / "tiny.yaml").read_text().format(output="runs", root=ARCHIVE)
    (world / "tiny.yaml").write_text(text)
    (world / "bad").mkdir()
    for name, (content, _) in YAML.items():
        path = world / "bad" / f"{name}.yaml"
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    (world / "bad" / "link.yaml").symlink_to("linked.yaml")
    (world / "circle").symlink_to("circle")
    (world / "file").write_text("no more than text")
    (world / "picture.jpg").write_text("no picture")
    (world / "folder").mkdir()
    shutil.copytree(trained, world / "runs" / "tiny")
    config = re.sub("^output: .*", "output: runs", (trained / "config.yaml").read_text(), flags=re.MULTILINE)
    (world / "runs" / "tiny" / "config.yaml").write_text(config)
    shutil.copytree(trained / "student", world / "bundle")
    settings = json.loads((world / "bundle" / "config.json").read_text())
    weights = (world / "bundle" / "model.safetensors").read_bytes()
    corrupt(world, "no_json", config="{")
    corrupt(world, "json_list", config="[]")
    corrupt(world, "no_config", config=None)
    corrupt(world, "no_weights", weights=None)
    corrupt(world, "newer", config={**settings, "format": 3})
    corrupt(world, "stranger", config={**settings, "wings": 2})
    corrupt(world, "stemless", config={k: v for k, v in settings.items() if k != "stem"})
    corrupt(world, "levels", config={**settings, "levels": "many"})
    corrupt(world, "far_level", config={**settings, "levels": [0, 1, 2, 90]})
    corrupt(world, "cut", weights=weights[:2000])
    corrupt(world, "nothing", weights=b"")
    corrupt(world, "others", weights=safetensors.torch.save({"conv1.weight": torch.ones(3)}))
    Student("vit_tiny_patch16_384", [96, 96], {}, {}, levels=[0], stem_options={"depth": 1}).save_pretrained(
        world / "headless"
    )
    (world / "cut.pth").write_bytes(b"PK\3\4")
    torch.save({"conv1.weight": torch.ones(3)}, world / "resnet.pth")
    torch.save([1, 2], world / "list.pth")
    unfinished = Path(shutil.copytree(world / "runs" / "tiny", world / "runs" / "unfinished"))
    shutil.rmtree(unfinished / "student")
    (unfinished / "metrics.json").unlink()
    run_with(world, "garbage", "config.yaml", b"{")
    run_with(world, "no_lock", ".lock", None)
    run_with(world, "no_folder", "checkpoints", b"")
    run_with(world, "no_file", "results.md", None)
    run_with(world, "strange_inputs", "inputs.json", b"[")
    run_with(world, "other", "config.yaml", re.sub("^seed: 0", "seed: 5", config, flags=re.MULTILINE).encode())
    (world / "runs" / "thesis").mkdir()
    (world / "runs" / "thesis" / "thesis.tex").write_text("years of work")
    (world / "runs" / "a_file").write_text("")
    for name in ("garbage", "no_lock", "other", "no_folder", "no_file", "strange_inputs"):
        (world / "runs" / name / "metrics.json").unlink()
    for name, stage in (("strange_stage", "polish"), ("strange_state", None)):
        run = Path(shutil.copytree(world / "runs" / "tiny", world / "runs" / name))
        (run / "metrics.json").unlink()
        (run / "config.yaml").write_text(re.sub("^name: .*", f"name: {name}", config, flags=re.MULTILINE))
        for path in (run / "checkpoints").iterdir():
            state = torch.load(path, weights_only=True)
            torch.save({**state, "stage": stage} if stage else [state["step"]], path)
    evaluated = run_with(world, "evaluated", "evaluation/metrics.json", b"{}")
    (evaluated / "config.yaml").write_text(config)
    (world / "baselines").mkdir()
    good = {"semseg": {"miou": 30.0}, "human_parts": {"miou": 30.0}, "saliency": {"max_f": 30.0}}
    good |= {"normals": {"mean_error": 30.0}, "edge": {"ods_f": 30.0}}
    for name, semseg in (
        ("nan", {"miou": float("nan")}),
        ("zero", {"miou": 0}),
        ("text", {"miou": "30"}),
        ("flat", 30),
    ):
        (world / "baselines" / f"{name}.json").write_text(json.dumps({**good, "semseg": semseg}))
    (world / "trial" / "trial").mkdir(parents=True)
    (world / "trial" / "trial" / "notes.txt").write_text("of somebody else")
    shutil.copytree(ARCHIVE, world / "archive")
    (world / "elsewhere" / "events").mkdir(parents=True)
    (world / "elsewhere" / "events" / "years").write_text("of work")
    for name, content in (("rows", {"rows": 5}), ("kinds", {"rows": [{"kind": "retrained", "teachers": ["dinov2"]}]})):
        run = shutil.copytree(world / "runs" / "tiny", world / f"ablation_of_{name}" / "runs" / "config-seed0")
        (run.parents[1] / "ablation.json").write_text(json.dumps(content))
    (world / "own_ablation" / "configs").mkdir(parents=True)
    (world / "own_ablation" / "configs" / "config-seed0.yaml").write_text(config)
    shutil.copytree(world / "trial" / "trial", world / "own_ablation" / "trial")
    return world


def listing(folder):
    """{path: what it is}: of files their hash, of links their target."""
    found = {}
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in folders + files):
            found[str(path)] = os.readlink(path) if path.is_symlink() else "" if path.is_dir() else hash_of(path)
    return found


HASHES = {}


def hash_of(path):
    """Computed again only where somebody wrote to the file, as the system says, because each test asks for all."""
    now = path.stat()
    state = (path, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)  # nobody can set the last one
    if state not in HASHES:
        HASHES[state] = hashlib.sha256(path.read_bytes()).hexdigest()
    return HASHES[state]


# --- the table --------------------------------------------------------------------------------------------------------

TINY = "tiny.yaml"
LOSA = "stages.multitask.method=losa stages.distill.steps=0 adaptation.backbone=dinov2"
# Of every numeric key at least one value that is none, or out of range.
NUMBERS = """
    seed=-1 seed=1.5 seed=99999999999999999999 seed= seed=true data.workers=-1 data.workers=100000 data.timeout=0
    data.max_skipped=1.1 data.max_skipped=nan data.image_size=[96] data.image_size=[96,-96] data.image_size=96
    data.image_size=[96,96,96] data.image_size=[1000000,96] data.renderer.train=0 data.renderer.val=-1
    data.renderer.seed=-1 data.renderer.unlabelled=-1
    student.levels=[] student.levels=[3,1] student.levels=[-1,2] student.levels=[0,0]
    student.adapter_ratio=0 student.adapter_ratio=10000 student.router_temperature=0 student.router_temperature=nan
    student.router_top_k=0 teachers.dinov2.levels=[] teachers.dinov2.input_size=0 teachers.dinov2.input_size=-5
    teachers.dinov2.scales=[] teachers.dinov2.scales=[1,1] teachers.dinov2.scales=[0] stages.distill.steps=-1
    stages.distill.epochs=0 stages.distill.batch_size=0 stages.distill.accumulate=0
    stages.distill.checkpoint_every=0 stages.distill.keep_last=0 stages.distill.log_every=-2
    stages.distill.standardise_images=0 stages.distill.teacher_dropping=2 stages.distill.optim.lr=in
    stages.distill.optim.lr=0 stages.distill.optim.lr=-1e-3 stages.distill.optim.weight_decay=nan
    stages.distill.optim.weight_decay=-1 stages.distill.optim.warmup_steps=-1 stages.distill.optim.warmup_epochs=-1
    stages.distill.optim.warmup_lr=-1 stages.distill.optim.min_lr=in stages.multitask.optim.power=-1
    stages.multitask.optim.clip=-1 stages.multitask.optim.clip=0 stages.distill.image_size=[0,0]
    stages.distill.crop_scale=[0.9,0.1] stages.distill.crop_scale=[0,1] stages.distill.crop_scale=[0.5]
    stages.distill.crop_scale=[0.1,2] stages.multitask.alpha=-1 stages.multitask.evaluate_every=-3
    stages.multitask.balance=-0.1 stages.multitask.task_balance_lr=0 stages.multitask.gradnorm_alpha=-1
    cache.views=0 probe.steps=0 probe.batch_size=-1 probe.log_every=0 probe.width=0 probe.scales=[]
    probe.optim.lr=nan precision=fp8 precision= distributed=mpi data.on_error=ignore stages.distill.loss=l3
    stages.distill.standardise=white stages.multitask.task_balance=fair cache.dtype=int4 cache.stages=[test]
    stages.multitask.optim.schedule=step data.tasks=[semseg,semseg] data.tasks=semseg
    data.tasks=[[semseg]] compile=maybe student=5 student=null name=.. name=. name=a/b name= name=${name}
    name=${nothing} name=${ seed=${name} name=${oc.env:NO_SUCH_VARIABLE} teachers.a.b=1 teachers=[a]
    teachers.dinov2=5 student.wings=2 data.image_size[0]=3 =1 seed a=b=c data.root=[ probe.reference=nobody
    cache.path=folder stages.multitask.keep_best=semseg.mou student.add_teacher=dinov2 student.path=file
    data.root=nowhere data.root=file data.root=circle
"""
VALUES = [
    *NUMBERS.split(),
    f"name={LONG}",
    "teachers={a.b: {family: sam, model: x}}",
    "teachers.x={model: x}",
    "student.heads={depth: {type: sak}}",
]
MISFITS = {
    "teachers.nobody=null": "there is no teacher nobody to take out",
    "teachers.stem={family: dinov2, model: x}": "teachers has the name 'stem', but it must be",
    "teachers.keys={family: dinov2, model: x}": "has the name 'keys', which torch has for something else",
    f"teachers.{LONG}={{family: sam, model: x}}": "but it must be at most 60 letters, digits",
    "from=folder": "student.weights: there is no student at folder",
    "from=nowhere": "student.weights: there is no student at nowhere",
    "from=file": "student.weights: there is no student at file",
    "from=cut": "student.weights: cut cannot be read as a bundle",
    "from=newer": "student.weights: newer has been written by a newer sak",
    "student.stem_weights=nowhere": "student.stem_weights: there is no file nowhere",
    "student.stem_weights=folder": "student.stem_weights: there is no file folder",
    "student.stem_weights=cut.pth": "student.stem_weights: cut.pth cannot be read as weights",
    "student.stem_weights=list.pth": "student.stem_weights: list.pth is not a flat dict of tensors",
    "student.stem_weights=resnet.pth": "student.stem_weights: resnet.pth lacks",
    "student.router=mixer": "unknown router 'mixer'; known: mor",
    "student.stem=vit_of_nobody": "stem 'vit_of_nobody' is not a timm model",
    "student.paths=roads": "unknown paths 'roads'",
    "data.dataset=imagenet": "unknown data set 'imagenet'",
    "data.dataset=nowhere:Nobody": "data.dataset: there is no module nowhere",
    "data.dataset=json:loads": "json:loads is no subclass of sak.data.archive.Archive",
    "data.dataset=:": "data.dataset is ':', but must be package.module:Class",
    "data.dataset=folders": "semseg: nobody names its classes",
    "data.tasks=[depth,walking]": "unknown task 'walking'",
    "data.tasks=[nowhere:Nobody]": "data.tasks: there is no module nowhere",
    "data.tasks=[sak.tasks:Task]": "sak.tasks:Task lacks",
    "data.classes={semseg: [a, b]}": "data.classes is set, but PASCAL-Context is what it is",
    "data.splits={val: validation}": "data.splits is set",
    "data.colours={semseg: [[1, 2]]}": r"data.colours.semseg is .* but must be a list of \[red, green, blue\]",
    "data.labels={semseg: {values: [-1]}}": "data.labels.semseg.values is",
    "data.labels={semseg: {ignore: [1, 1]}}": "data.labels.semseg.ignore is",
    "data.labels={depth: {scale: 0}}": "data.labels.depth.scale is 0",
    "data.labels={edge: {max_dist: 2}}": "data.labels.edge.max_dist is 2",
    "data.labels={semseg: {value: [1]}}": "unknown key data.labels.semseg.value; the nearest",
    "data.image_size=[96,90]": "96x90 is not divisible",
    "stages.distill.images=nowhere": "nowhere is not a folder",
    "stages.distill.images=folder": "folder holds no image",
    "stages.multitask.epochs=3": "stages.multitask needs either steps or epochs",
    "stages.distill.batch_size=100": "there are only . training images",
    "teachers.dinov2=null": "no teachers to distil",
    "teachers.dinov2.weights=nowhere.pth": "teacher dinov2: there is no weights file nowhere.pth",
    "teachers.dinov2.weights=cut.pth": "teacher dinov2: cut.pth",
    "teachers.dinov2.weights=resnet.pth": "teacher dinov2: resnet.pth",
    "teachers.dinov2.weights=list.pth": "teacher dinov2: list.pth",
    "teachers.dinov2.model=vit_of_nobody": "teacher dinov2: unknown timm model 'vit_of_nobody'",
    "teachers.dinov2.family=nowhere:Nobody": "teacher dinov2: there is no module nowhere",
}
EVALUATE = {
    "--image-size 0 0": "no whole number from 1",
    "--image-size 90 90": "not divisible by the stem's patch size 16",
    "--image-size 96": "expected 2 arguments",
    "--batch-size 0": "no whole number from 1",
    "--batch-size 1.5": "'1.5' is no whole number",
    "--num-heads 0": "no whole number",
    "--workers -3": "no whole number from 0 to 1024",
    "--workers 100000": "no whole number from 0 to 1024",
    "--threads 0": "no whole number from 1 to 1024",
    "--threads 100000": "no whole number from 1 to 1024",
    "--data nowhere": "--data is nowhere, but there is no such directory",
    "--data file": "--data is file, but",
    "--data folder": "folder/ImageSets/Context/val.txt",
    "--dataset imagenet": "say where imagenet lies",
    "--dataset nyud": "say where nyud lies",
    "--split test": "invalid choice: 'test'",
    "--boundaries loose": "invalid choice: 'loose'",
    "--output file": "file cannot be used",
    "--output file/deeper": "file/deeper cannot be used",
    "--output circle": "circle",
    "--output runs/tiny": "runs/tiny is a run or a bundle itself",
    "--output runs/tiny --overwrite": "runs/tiny is a run or a bundle itself",
    "--output archive --save-maps": "archive/human_parts is in the way|archive/semseg is in the way",
    "--output archive --save-maps --overwrite": "archive/human_parts is in the way|archive/semseg is in the way",
    f"--output {LONG}": "choose a shorter name",
    "--baseline nobody": "no baseline nobody",
    "--baseline folder": "holds no metrics.json",
    "--baseline file": "is no JSON",
    "--baseline baselines/nan.json": "finite number",
    "--baseline baselines/zero.json": "has 0 for semseg.miou",
    "--baseline baselines/text.json": "is not of the form",
    "--baseline baselines/flat.json": "is not of the form",
    "--wings": "unrecognized arguments: --wings",
    "and more": "unrecognized arguments: and more",
}
SUBJECTS = {
    "nowhere": "is no run directory",
    "no/where": "no/where does not exist here, and from the hub cannot be read",
    "file": "file cannot be read as weights",
    "folder": "folder is no run directory",
    "circle": "circle",
    LONG: "choose a shorter name|is no run directory",
    "cut.pth": "cut.pth cannot be read as weights",
    "resnet.pth": "no checkpoint of the published SAK code",
    "list.pth": "list.pth",
    "headless": "has no task heads",
    "no_json": r"no_json cannot be read as a bundle \(",
    "json_list": "json_list is no bundle: its config.json is missing, or holds no JSON object|json_list cannot be read",
    "no_weights": "no_weights is no bundle: it has no model.safetensors",
    "newer": r"newer has been written by a newer sak \(format 3, known: 1 and 2\): update sak",
    "stranger": "has the unknown key 'wings'",
    "stemless": "stemless cannot be read as a bundle",
    "levels": "levels cannot be read as a bundle",
    "far_level": "levels .* must be increasing block indices of the stem",
    "cut": "cut cannot be read as a bundle",
    "nothing": "nothing cannot be read as a bundle",
    "others": "others cannot be read as a bundle",
    "runs/unfinished": "runs/unfinished is unfinished",
    "runs/garbage": "runs/garbage/config.yaml is not a readable YAML file: line 1",
    "runs/thesis": "is no run directory",
}
ABLATE = {
    "--subsets ''": "--subsets is '', but must be values with commas between them",
    "--subsets dinov2,": "--subsets is 'dinov2,'",
    "--subsets dino": "'dino' is no teacher of the config",
    "--subsets all --kinds ''": "--kinds has ''",
    "--subsets all --kinds trained": "--kinds has 'trained'",
    "--kinds masked": "--kinds masked needs --subsets",
    "--routers ''": "the list of values of router is ''",
    "--routers mor,,sum": "the list of values of router is 'mor,,sum'",
    "--routers mixer": "mixer",
    "--adapter-ratios 0": "student.adapter_ratio is 0",
    "--losses l3": "stages.distill.loss is 'l3'",
    "--seeds ''": "--seeds is ''",
    "--seeds 0,x": "--seeds has 'x'",
    "--seeds -1": "--seeds has '-1'",
    "--seeds 0,0": "must be different numbers",
    "--seeds 99999999999999999999": "--seeds has '99999999999999999999'",
    "--vary seed=1,2": "give the seeds with --seeds",
    "--vary name=a,b": "each run is named by its variant",
    "--vary output=a,b": "give the ablation's directory with --output",
    "--vary stages.multitask.steps=0": "leaves out the second stage",
    "--vary stages.multitask.step=1": "unknown key stages.multitask.step",
    "--vary data.image_size=[64,64": "cannot be read",
    "--vary data.image_size=64,64": "data.image_size is '64', but must be a list",
    "--vary wings": "--vary wings is not of the form",
    f"--vary student.stem=x{LONG}": "at most 200 bytes",
    "--vary student.path=a/b,a_b": "student.path",
    "--baseline nobody": "--baseline is 'nobody'",
    "--jobs 0": "no whole number from 1",
    "--output file": "file is a file",
    "--output folder/../file/deeper": "cannot be used",
    "--output .": "is not empty and holds no ablation",
    "--output trial": "is not empty and holds no ablation",
    "--output own_ablation": "own_ablation/trial is in the way",
    "--output trial --dry-run": "is not empty and holds no ablation",
    "--pairs 3": "--pairs is of the selection",
    "--images 3": "--images is of the selection",
    "--value delta_m": "--value is of the selection",
    "--data folder": "--data is of the selection",
    "--select --pairs 0": "no whole number from 1",
    "--select --images 0": "no whole number from 1",
    "stages.multitask.steps=0": "there would be no metrics to compare",
}
OTHERS = {
    "train bad/none.yaml": "no config file at bad/none.yaml",
    "train folder": "no config file at folder",
    "train circle": "no config file at circle",
    f"train {LONG}.yaml": "choose a shorter name",
    "train": "the following arguments are required: config",
    "train tiny.yaml --wings": "unrecognized arguments: --wings",
    "train tiny.yaml name=new stages.distill.steps=0 stages.multitask.steps=0": "nothing to train",
    "train tiny.yaml name=thesis": "not empty and holds no run",
    "train tiny.yaml name=a_file": "runs/a_file is a file",
    "train tiny.yaml name=other": "different experiment: seed is 5 there and 0 here",
    "train tiny.yaml name=garbage": "runs/garbage/config.yaml is not a readable YAML file",
    "train tiny.yaml name=no_lock": "runs/no_lock/.lock cannot be used",
    "train tiny.yaml name=strange_stage": "of step . of 'polish'",
    "train tiny.yaml name=strange_state": "is none of a training",
    "train tiny.yaml name=no_folder": "runs/no_folder/checkpoints is a file, where a run has a directory",
    "train tiny.yaml name=no_file": "runs/no_file/results.md is a directory, where a run has a file",
    "train tiny.yaml name=strange_inputs": "runs/strange_inputs/inputs.json is corrupt",
    "train tiny.yaml output=file": "file",
    "train tiny.yaml output=file/deeper": "file/deeper|file cannot be used",
    "train tiny.yaml output=circle": "circle",
    "inspect_router nowhere": "is no run directory",
    "inspect_router runs/tiny nowhere.jpg": "no image nowhere.jpg",
    "inspect_router runs/tiny picture.jpg": "picture.jpg is no image",
    "inspect_router runs/tiny folder": "folder holds no image",
    "inspect_router runs/tiny circle": "circle",
    "inspect_router runs/tiny --limit 0": "no whole number",
    "inspect_router runs/tiny --data nowhere": "--data is nowhere",
    "inspect_router runs/tiny --workers -3": "no whole number",
    "inspect_router runs/tiny --output file": "file cannot be used",
    "inspect_router runs/tiny --output runs/tiny": "is a run or a bundle itself",
    "inspect_router runs/tiny --output elsewhere": "elsewhere/events is in the way",
    "inspect_router headless": "has no task heads",
    "inspect_fidelity bundle": "say with --config",
    "inspect_fidelity nowhere": "is no run with a config.yaml",
    "inspect_fidelity runs/tiny --limit -1": "no whole number",
    "inspect_fidelity runs/tiny --config nowhere.yaml": "no config file at nowhere.yaml",
    "inspect_fidelity runs/tiny data.root=nowhere": "data.root is nowhere, but there is no such directory",
    "inspect_fidelity runs/tiny wings=2": "unknown key wings",
    "inspect_fidelity runs/tiny --output file": "file",
    "inspect_fidelity runs/tiny --output bundle": "is a run or a bundle itself",
    "inspect_fidelity bundle --config tiny.yaml": "aligner",
    "compare_features tiny.yaml --images 0": "no whole number",
    "compare_features tiny.yaml": "no two models to compare",
    "compare_features tiny.yaml --student nowhere": "there is no student at nowhere",
    "compare_features tiny.yaml --student newer": "newer sak",
    "compare_features nowhere.yaml": "no config file",
    "probe_teachers tiny.yaml teachers.dinov2=null": "nothing to probe",
    "probe_teachers tiny.yaml output=file": "file cannot be used|file/",
    "probe_teachers tiny.yaml data.root=nowhere": "data.root is nowhere",
    "probe_teachers tiny.yaml probe.head.type=mmseg.Nobody": "Nobody",
    "cache_teachers tiny.yaml": "nothing to cache",
    "cache_teachers tiny.yaml cache.path=new": "cache.views is None, but must be a number",
    "cache_teachers tiny.yaml cache.path=file cache.views=1": "file",
    "cache_teachers tiny.yaml cache.path=new cache.views=100000000": "the features need",
    "train tiny.yaml name=new cache.path=new cache.views=100000000": "the features need",
    "cache_teachers tiny.yaml cache.path=new cache.views=1 --part 0/2": "must be one of 1/2 to 2/2",
    "cache_teachers tiny.yaml cache.path=new cache.views=1 --part 3/2": "must be one of 1/2",
    "cache_teachers tiny.yaml cache.path=new cache.views=1 --part half": "two numbers as in 1/4",
    "cache_teachers tiny.yaml cache.path=new cache.views=1 --part 1/0": "--part is 1/0",
    "convert_official nowhere.pth new": "no checkpoint at nowhere.pth",
    "convert_official cut.pth new": "cut.pth cannot be read as weights",
    "convert_official resnet.pth new": "resnet.pth is no checkpoint",
    "convert_official list.pth new": "list.pth",
    "convert_official folder new": "folder",
    "convert_official resnet.pth folder": "folder exists already",
    "convert_official resnet.pth new --image-size 0 64": "no whole number",
    "convert_official resnet.pth new --num-heads 0": "no whole number",
    "convert_official resnet.pth new --dataset coco": "unknown data set 'coco'",
    "convert_official resnet.pth": "required: output",
    "paths": "required: command",
    "paths walk bundle": "invalid choice: 'walk'",
    "paths list nowhere": "there is no student at nowhere",
    "paths list file": "file cannot be read as a path",
    "paths list circle": "circle",
    "paths list stranger": "unknown key 'wings'",
    "paths save bundle sam new.safetensors": "no adapter path of a teacher 'sam'",
    "paths save bundle dinov2 file": "file exists already",
    "paths save bundle dinov2 file/new": "file cannot be used",
    "paths save runs/unfinished dinov2 new": "is unfinished",
    "paths swap bundle file new": "file cannot be read as a path",
    "paths swap bundle nowhere new": "no path file at nowhere",
    "paths swap bundle file folder": "folder exists already",
    "coco_to_folders nowhere.json --out new": "nowhere.json does not exist",
    "coco_to_folders file --out new": "file is no annotation file of COCO's",
    "coco_to_folders tiny.yaml --out new --segments folder": "tiny.yaml is no annotation file of COCO's",
    "coco_to_folders file": "required: --out",
    "compare_scales tiny.yaml --small dinov2": "required: --large",
    "compare_scales tiny.yaml --small dinov2 --large nobody": "'nobody'",
    "compare_scales tiny.yaml --small dinov2 --large dinov2": "name different models",
    "compare_scales tiny.yaml --small dinov2 --large x --scales 1,-2": "--scales is '1,-2'",
    "compare_scales tiny.yaml --small dinov2 --large x --scales 3": "must be 1 and larger ones",
    "compare_scales tiny.yaml --small dinov2 --large x --images 0": "no whole number from 1",
    "ablate_teachers tiny.yaml --scales [1,0]": "teachers.dinov2.scales",
    "pretrain_teachers nobody --data folder": "nobody",
    "pretrain_teachers sam --data nowhere": "nowhere",
    "pretrain_teachers sam": "required: --data",
    "pretrain_teachers sam --data folder --steps -1": "no whole number from 1",
    "pretrain_teachers sam --data folder --steps 0": "no whole number from 1",
    "pretrain_teachers sam --data folder --batch-size 0": "no whole number from 2",
    "pretrain_teachers sam --data folder --steps 1": "sam learns in 2 phases",
    "pretrain_teachers sam --data folder --seed -1": "no whole number from 0",
    "pretrain_teachers sam --data folder --threads 0": "no whole number from 1",
    "pretrain_teachers sam --data folder --init nowhere": "no checkpoint nowhere",
    "pretrain_teachers sam --data folder --width 64": "sam has one width",
    "pretrain_teachers vit --data folder --width 50": "no multiple of the 4 heads",
    "benchmark": "required: section",
    "benchmark flight": "invalid choice: 'flight'",
    "benchmark metrics --threads 0": "no whole number from 1",
    "benchmark metrics --threads 100000": "no whole number from 1",
    "benchmark metrics --page folder": "--page folder is no file",
    "benchmark metrics --quick": "--quick is of the section steps alone",
    "benchmark steps --json": "--json is of what --quick measures",
    "make_figures nothing": "there is no 'nothing' to make",
    "reproduce_mini tiny.yaml --output new": "too little to compare",
    "reproduce_mini nowhere": "nowhere",
    "reproduce_mini tiny.yaml --seeds 0,x": "--seeds has 'x'",
    "reproduce_mini tiny.yaml --factors ,paths": "--factors is ',paths'",
    "reproduce_mini tiny.yaml --jobs 0": "no whole number from 1",
    "reproduce_mini tiny.yaml --page folder": "--page folder is no file",
    "reproduce_mini tiny.yaml --quick --page page.md": "no results worth keeping",
    "reproduce_mini tiny.yaml --page page.md --section ../x": "'../x' is no name of up to 60",
    "reproduce_mini sak_pascal_mini --without-teachers stages.multitask.optim.lt=1": "optim.lt",
    "reproduce_mini sak_pascal_mini --without-teachers lr": "override 'lr'",
    "reproduce_mini tiny.yaml --section half": "--section is a part of a page",
    "doctor nowhere.yaml": "no config file",
    "doctor tiny.yaml --quick 0": "no whole number from 1",
    "doctor tiny.yaml --quick -5": "no whole number from 1",
    "doctor tiny.yaml --workers -3": "no whole number from 0",
    "doctor tiny.yaml data.dataset=imagenet": "unknown data set",
    "doctor tiny.yaml seed=-1": "seed is -1",
    "classify_features": "required: student, folder",
    "classify_features bundle nowhere": "there is no folder nowhere/train",
    "classify_features bundle folder": "there is no folder folder/train",
    "classify_features bundle folder --image-size 0 96": "no whole number from 1",
    "classify_features bundle folder --batch-size 0": "no whole number from 1",
    "classify_features bundle folder --workers -1": "no whole number from 0",
    "classify_features bundle folder --config nowhere": "no config file at nowhere",
    "classify_features bundle folder --output runs/tiny": "runs/tiny is a run or a bundle itself",
    "train sak_pascal_mimi": "of those that come with sak the nearest is sak_pascal_mini",
    "train distill_folder stages.distill.images=null": "stages.distill.images is null",
    "ablate_teachers tiny.yaml --launcher moon": "invalid choice: 'moon'",
    "ablate_teachers tiny.yaml --launcher slurm": "--launcher slurm cannot be used",
    "ablate_teachers tiny.yaml --launcher local --resource x": "--resource x is not of the form KEY=VALUE",
    "ablate_teachers tiny.yaml --resource x=1": "--resource is of a cluster's runs",
    "predict bundle": "required: --out",
    "predict bundle nowhere.jpg --out new": "there is no picture nowhere.jpg",
    "predict bundle folder --out new": "folder holds no picture and no video",
    "predict bundle 'nowhere/*.jpg' --out new": "stands for no file",
    "predict bundle picture.jpg --out file": "file cannot be used",
    "predict bundle picture.jpg --out file/deeper": "cannot be used",
    "predict bundle picture.jpg --out bundle": "is a run or a bundle itself",
    "predict bundle picture.jpg --out archive": "archive/.* is in the way, and not of an earlier start",
    "predict bundle picture.jpg --out new --tasks depth": "no task 'depth'",
    "predict bundle picture.jpg --out new --without sam": "unknown source 'sam'",
    "predict bundle picture.jpg --out new --without stem dinov2": "one has to stay",
    "predict bundle picture.jpg --out new --device abacus": "the device abacus cannot be used here",
    "predict bundle picture.jpg --out new --device cuda:7": "the device cuda:7 cannot be used here",
    "predict bundle picture.jpg --out new --longest-edge 0": "no whole number from 1",
    "predict bundle picture.jpg --out new --precision fp8": "one of fp32, bf16, auto, not in 'fp8'",
    "predict bundle picture.jpg --out new --batch-size 0": "no whole number from 1",
    "predict bundle picture.jpg --out new --every 0": "no whole number from 1",
    "predict headless picture.jpg --out new": "has no task heads",
    **{f"predict {subject} picture.jpg --out new": "" for subject in ("nowhere", "cut", "newer", "cut.pth", "others")},
    "export bundle": "required: --out",
    "export nowhere --out new": "is no run directory",
    "export cut --out new": "cut cannot be read as a bundle",
    "export headless --out new": "has no task heads",
    "export bundle --out new --format tflite": "invalid choice: 'tflite'",
    "export bundle --out new --precision fp8": "invalid choice: 'fp8'",
    "export bundle --out new --tasks depth": "no task 'depth'",
    "export bundle --out new --format torch_export --precision int8": "int8 is of --format onnx alone",
    "export bundle --out folder": "folder is a folder",
    "export bundle --out file/new": "file cannot be used",
    "export bundle --out new --evaluate": "say where pascal_context lies",
    "export bundle --out new --evaluate --data nowhere": "--data is nowhere",
    "demo nowhere": "is no run directory",
    "demo cut": "cut cannot be read as a bundle",
    "demo bundle --port 0": "no whole number from 1 to 65535",
    "demo bundle --device abacus": "the device abacus cannot be used here",
    "compare_adaptation": "required: config",
    f"compare_adaptation {TINY} --methods x": "stages.multitask.method is null",
    f"compare_adaptation {TINY} {LOSA} adaptation.backbone=sam": "adaptation.backbone is 'sam'",
    f"compare_adaptation {TINY} {LOSA} --methods linear,prefix": "--methods has 'prefix'",
    f"compare_adaptation {TINY} {LOSA} --methods linear --output file": "file cannot be used",
    f"train {TINY} {LOSA} name=new adaptation.rank=25": "rank is 25, but must be from 1 to 24",
    f"train {TINY} {LOSA} name=new adaptation.taps=[0,1,2,3,4]": "increasing numbers from 0 to 3",
    f"train {TINY} {LOSA} name=new stages.multitask.method=full teachers.dinov2.scales=[1,2]": "at one scale",
    f"train {TINY} {LOSA} name=new teachers.dinov2.family=student teachers.dinov2.weights=null": "no finished run",
    f"compare_adaptation {TINY} {LOSA} --methods linear --output archive": "archive is not empty and holds no",
    "vision_tokens": "required: --variant, --output",
    "vision_tokens tiny.yaml --variant seed=1 --output curve": "trains no vocabulary",
    "vision_tokens tiny.yaml --variant seed=1 --variant seed=1 --output curve": "is given twice",
    "vision_tokens tiny.yaml --output curve": "required: --variant",
    "train tiny.yaml name=reads stages.vocabulary.steps=1": "vocabulary.data.kinds is empty",
    "read nowhere picture.jpg": "nowhere is no folder",
    "read bundle picture.jpg": "bundle holds a student",
    "read bundle": "required: image",
    "read folder picture.jpg": "there is no student at folder",
    "read bundle picture.jpg --beams 0": "no whole number from 1",
    "evaluate bundle --tesseract": "--tesseract is of a vision vocabulary",
    "doctor tiny.yaml --sheet new.png": "--sheet is of a vision vocabulary",
    "compare_runs": "required: run",
    "compare_runs nowhere": "nowhere is no run",
    "compare_runs runs/unfinished": "runs/unfinished is unfinished",
    "compare_runs runs/tiny --output file": "file cannot be used",
    "compare_runs runs/tiny --baseline nobody": "must be one of tiny",
    "ablate_teachers / --select": "/",
    "ablate_teachers nowhere": "nowhere is no config",
    "ablate_teachers runs/unfinished --select": "is unfinished",
    "ablate_teachers bundle --select": "say where pascal_context lies",
    "ablate_teachers bundle --select --data nowhere": "--data is nowhere",
    "ablate_teachers runs/tiny --select --value semseg.mou": "mou",
    "ablate_teachers runs/tiny --select seed=1": "overrides nothing",
    "ablate_teachers ablation_of_rows/runs/config-seed0 --select --value semseg.miou": "ablation.json is corrupt",
    "ablate_teachers ablation_of_kinds/runs/config-seed0 --select --value semseg.miou": "ablation.json is corrupt",
    "ablate_teachers runs/tiny --select --images 100": "there are 2 validation images",
}  # fmt: skip
CASES = {
    **{f"train bad/{name}.yaml": message for name, (_, message) in YAML.items()},
    **{f"train {TINY} name=new {shlex.quote(value)}": re.escape(value.partition("=")[0][:40]) for value in VALUES},
    **{f"train {TINY} name=new {shlex.quote(value)}": message for value, message in MISFITS.items()},
    **{f"evaluate runs/tiny {arguments}": message for arguments, message in EVALUATE.items()},
    **{f"evaluate {subject}": message for subject, message in SUBJECTS.items()},
    "evaluate runs/evaluated": "holds results already",
    "evaluate": "required: subject",
    **{f"ablate_teachers {TINY} {arguments}": message for arguments, message in ABLATE.items()},
    **OTHERS,
}
ENVIRONMENTS = {
    "RANK=0 WORLD_SIZE=1 LOCAL_RANK=0": "LOCAL_RANK is set, .* but MASTER_PORT is not: start through torchrun",
    "LOCAL_RANK=0": "LOCAL_RANK is set, .* but RANK is not",
    "WORLD_SIZE=2": "WORLD_SIZE is set, .* but RANK is not",
    "WORLD_SIZE=abc": "WORLD_SIZE is set, .* but RANK is not",
    "RANK=0 LOCAL_RANK=0 WORLD_SIZE=2 MASTER_PORT=1": "but MASTER_ADDR is not",
    "RANK=0 LOCAL_RANK=0 WORLD_SIZE=2 MASTER_PORT=x MASTER_ADDR=localhost": "MASTER_PORT is 'x', but must be a number",
    "RANK=2 LOCAL_RANK=0 WORLD_SIZE=2 MASTER_PORT=1 MASTER_ADDR=localhost": "RANK is 2, but must be below WORLD_SIZE",
}


@pytest.fixture(scope="module")
def listed(world):
    """What the directory held after the call before."""
    return {"then": listing(world)}


def run_tool(tool, arguments, monkeypatch):
    """Its exit code."""
    monkeypatch.setattr(sys, "argv", [f"tools/{tool}.py", *arguments])
    threads = torch.get_num_threads()
    try:
        cli.run(runpy.run_path(str(ROOT / "tools" / f"{tool}.py"))["main"])
    except SystemExit as stop:
        return stop.code
    finally:
        torch.set_num_threads(threads)
    return 0


@pytest.fixture
def refuse(world, listed, monkeypatch, capsys):
    """Call a tool in the world's directory, and see that it ends as it should."""
    monkeypatch.chdir(world)

    def refuse(tool, arguments, message):
        code = run_tool(tool, arguments, monkeypatch)
        lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        then, listed["then"] = listed["then"], listing(world)
        assert (code, len(errors)) == (2, 1), lines
        assert not any("Traceback" in line for line in lines)
        assert re.search(message, errors[0]), errors[0]
        assert "hush" not in errors[0]  # what stands in a file that is no config is nobody's business
        assert len(errors[0]) < 700
        assert listed["then"] == then

    return refuse


@pytest.mark.parametrize("command", CASES, ids=lambda command: command[:80])
def test_bad_input_is_one_line_and_changes_nothing(refuse, command):
    tool, *arguments = shlex.split(command)
    refuse(tool, arguments, CASES[command])


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_half_a_launcher_is_one_line(refuse, monkeypatch, environment):
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    for setting in environment.split():
        monkeypatch.setenv(*setting.split("="))
    refuse("train", [TINY, "name=new"], ENVIRONMENTS[environment])


def test_an_argument_that_is_no_text(refuse):
    refuse("train", [TINY, "name=\udcff"], "is not UTF-8")


def test_every_tool_is_in_the_table():
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}
    assert {command.split(" ")[0] for command in CASES} == tools
    assert len(CASES) >= 150


FULL = {  # a tool, what of it meets the full disk, and the place that it names
    "evaluate runs/tiny --output new --save-maps": ("PIL.Image.Image.save", "new"),
    "inspect_router runs/tiny --output new --no-knock-out": ("torch.utils.tensorboard.SummaryWriter.add_image", "new"),
    "inspect_fidelity runs/tiny --output new": ("PIL.Image.Image.save", "new/fidelity.png"),
    "probe_teachers tiny.yaml output=new probe.steps=1 probe.batch_size=1": (
        "torch.utils.tensorboard.SummaryWriter.add_scalar",
        "new",
    ),
    "train tiny.yaml output=new": ("torch.utils.tensorboard.SummaryWriter.add_scalar", "new/tiny"),
    "paths save bundle dinov2 new/path": ("safetensors.torch.save_file", "new/path"),
    "paths swap bundle path.safetensors new": ("safetensors.torch.save_model", "new"),
}


@pytest.mark.parametrize("command", FULL)
def test_a_full_disk_says_where_it_is(world, monkeypatch, capsys, command, tmp_path):
    """Whoever writes, and whatever words the library has for it."""
    shutil.copytree(world, tmp_path / "world", symlinks=True)
    monkeypatch.chdir(tmp_path / "world")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    called, place = FULL[command]
    error = (
        safetensors.SafetensorError(f"I/O error: {full.strerror} (os error 28)") if "safetensors" in called else full
    )

    def write(*_, **__):
        raise error

    tool, *arguments = shlex.split(command)
    run_tool(tool, ["save", "bundle", "dinov2", "path.safetensors"], monkeypatch) if "swap" in arguments else None
    monkeypatch.setattr(called, write)
    assert run_tool(tool, arguments, monkeypatch) == 2
    (line,) = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {place} cannot be used (No space left on device): make room on its disk")
