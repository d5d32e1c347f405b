"""The stage ``vocabulary``: goes on where it was killed, says when a model is blind, leaves a run like others."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import teachers
from sak import config
from sak.config.schema import teacher_spec
from sak.errors import UserError
from sak.training import checkpoint
from sak.training.tracking import read_scalars
from sak.vocabulary.model import VocabularyModel
from sak.vocabulary.network import VocabularyNetwork
from sak.vocabulary.training.blindness import Losses, losses
from sak.vocabulary.training.train import Experiment, VocabularyTraining, train

KINDS = ("text", "detection")


def weights(run):
    return safetensors.torch.load_file(run / "student" / "model.safetensors")


def test_a_run_leaves_what_others_leave(read):
    assert {path.name for path in read.iterdir()} >= {
        "config.yaml", "inputs.json", "environment.json", "checkpoints", "student", "metrics.json", "results.md",
        "panels", "events", "tokenizer.json",
    }  # fmt: skip
    metrics = json.loads((read / "metrics.json").read_text())
    assert metrics.keys() >= {f"{kind}{suffix}" for kind in KINDS for suffix in ("", "_shuffled")}
    assert "anls" in metrics["text"]
    assert "f1" in metrics["detection"]
    assert [path.name for path in sorted((read / "panels").iterdir())] == [
        "vocabulary-0000002.png",
        "vocabulary-0000004.png",
    ]
    scalars = read_scalars(read / "events")
    for tag, steps in (("loss/total", [1, 2, 3, 4]), ("blindness/shuffled", [2, 4]), ("metrics/text/anls", [2, 4])):
        assert [value.step for value in scalars[f"vocabulary/{tag}"]] == steps
    images = EventAccumulator(str(read / "events" / "vocabulary"), {"images": 0}).Reload().Tags()["images"]
    assert images == ["vocabulary/reading/vocabulary"]
    card = (read / "student" / "README.md").read_text()
    assert "tools/read.py" in card
    assert str(read.parent) not in card


def test_its_bundle_reads(read):
    model = VocabularyModel.from_pretrained(read)
    assert model.vision_tokens == 4
    assert isinstance(model.generate(torch.rand(1, 3, 64, 64), ["Read"], max_new_tokens=3)[0], str)


def test_a_finished_run_is_left_alone(read, monkeypatch):
    monkeypatch.setattr(Experiment, "__init__", None)
    assert train(config.load(read / "config.yaml")).path == read


@pytest.mark.parametrize("where", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_killed_and_resumed_is_unbroken(reading, read, monkeypatch, where):
    """With dropout, whose draws are the step's; before, at and after an evaluation."""
    settings, real, calls = reading(), VocabularyTraining._step, []

    def dying(self, micro_batches, step):
        if step == where:
            raise InterruptedError
        calls.append(step)
        return real(self, micro_batches, step)

    with monkeypatch.context() as patch:
        patch.setattr(VocabularyTraining, "_step", dying)
        with pytest.raises(InterruptedError):
            train(settings)
    assert calls == list(range(where))
    resumed = train(settings)
    expected = weights(read)
    assert {name: torch.equal(value, expected[name]) for name, value in weights(resumed.path).items()} == dict.fromkeys(
        expected, True
    )
    assert json.loads(resumed.metrics.read_text()) == json.loads((read / "metrics.json").read_text())


def test_killed_before_its_results_are_written(reading, read, monkeypatch):
    settings = reading()
    with monkeypatch.context() as patch:
        patch.setattr("sak.vocabulary.training.train.write_results", lambda *_: (_ for _ in ()).throw(InterruptedError))
        with pytest.raises(InterruptedError):
            train(settings)
    monkeypatch.setattr(VocabularyTraining, "_step", None)
    assert json.loads(train(settings).metrics.read_text()) == json.loads((read / "metrics.json").read_text())


def test_micro_batches_are_the_batch(reading, read):
    """As far as dropout and the mean over tokens let them be: the same samples, in the same order."""
    settings = reading("stages.vocabulary.accumulate=2", "name=halves", "stages.vocabulary.steps=1")
    halves = Experiment(settings, _run(settings))
    whole = Experiment(one := reading("name=whole"), _run(one))
    parts = next(iter(halves.batches.steps(0, 1)))
    (batch,) = next(iter(whole.batches.steps(0, 1)))
    assert batch["answer"] == [answer for part in parts for answer in part["answer"]]
    assert batch["name"] == [f"train_{kind}_{number:06d}" for number, kind in enumerate(batch["kind"])]


def _run(settings):
    from sak.training.run_directory import RunDirectory

    return RunDirectory(settings)


def test_a_frozen_network_stays_as_it_started(reading, read):
    run = train(reading("name=frozen", f"vocabulary.network.weights={read}", "vocabulary.network.frozen=true")).path
    before, after = weights(read), weights(run)
    for name, value in after.items():
        if name.startswith("vision.network."):
            assert torch.equal(value, before[name]), name
    assert not torch.equal(after["vision.projection.weight"], before["vision.projection.weight"])
    assert "vocabulary.network.weights" in json.loads((run / "inputs.json").read_text())


def test_a_second_training_starts_from_the_first(reading, read):
    settings = reading("name=tuned", f"vocabulary.weights={read}", "stages.vocabulary.optim.lr=1e-12")
    run = train(settings).path
    before, after = weights(read), weights(run)
    assert all(torch.allclose(value, before[name], atol=1e-6) for name, value in after.items())
    same = (VocabularyModel.from_pretrained(place).tokenizer.get_vocab() for place in (read, run))
    assert next(same) == next(same)


def test_a_checkpoint_of_another_model_is_refused(reading, read, tmp_path):
    settings = reading("name=other")
    run = tmp_path / "runs" / "other"
    shutil.copytree(read / "checkpoints", run / "checkpoints")
    config.save(settings, run / "config.yaml")
    path = checkpoint.newest(run / "checkpoints")
    state = torch.load(path)
    state["student"].pop("vision.projection.weight")
    torch.save(state, path)
    with pytest.raises(UserError, match="of another student"):
        train(settings)


# --- blindness --------------------------------------------------------------------------------------------------------


class Sighted(torch.nn.Module):
    """Whose loss is how far the image is from the answer."""

    def forward(self, images, prompts, answers):
        from sak.vocabulary.model import VocabularyOutput

        wanted = torch.tensor([float(answer) for answer in answers])
        return VocabularyOutput((images.mean((1, 2, 3)) - wanted).abs().mean() + 0.5, 0, len(answers))


class One:
    """An accelerator of one process."""

    device = torch.device("cpu")

    def autocast(self):
        return torch.enable_grad()

    def reduce(self, values, how):
        return values


def batch(*samples):
    images = torch.stack([torch.full((3, 2, 2), value) for value, _, _ in samples])
    return {
        "image": images,
        "prompt": ["?"] * len(samples),
        "answer": [answer for _, answer, _ in samples],
        "kind": [kind for _, _, kind in samples],
    }


def test_others_are_of_the_same_kind_and_the_first_has_none():
    batches = [batch((1.0, "1", "a"), (5.0, "5", "b"), (2.0, "2", "a")), batch((4.0, "4", "a"), (9.0, "9", "b"))]
    found = losses(Sighted(), batches, One())
    assert found.own == pytest.approx(0.5)
    assert found.shuffled == pytest.approx(0.5 + (1 + 2 + 4) / 3)  # 2 gets 1, 4 gets 2, 9 gets 5
    assert not found.blind
    assert Losses(own=1.0, shuffled=1.05, cut=0).blind
    assert Losses(own=float("nan"), shuffled=1.0, cut=0).blind


def test_an_untrained_model_is_told_to_be_blind(reading):
    with pytest.warns(UserWarning, match="the model does not look at its images") as caught:
        train(reading("name=blind", "stages.vocabulary.steps=2"))
    assert any("score" in str(warning.message) for warning in caught)  # of the evaluation at the end too


def test_answers_that_are_cut_are_told(reading):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = train(reading("name=cut", "stages.vocabulary.steps=1", "vocabulary.context=60"))
    assert any("longer than the context" in str(warning.message) for warning in caught)
    assert read_scalars(run.events)["vocabulary/cut_answers"][-1].value > 0


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["vocabulary.data.image_size=60"], "both sides must be multiples of 32"),
        (["vocabulary.data.kinds={txt: 1}"], "txt"),
        (["vocabulary.data.kinds={text: 0, detection: 0}"], "vocabulary.data.kinds is empty"),
        (["vocabulary.network.model=vit_x"], "unknown SAM model 'vit_x'"),
        (["vocabulary.network.options.depht=2"], "do not suit vit_b"),
        (["vocabulary.network.weights=nowhere.pth"], "nowhere.pth"),
        (["vocabulary.weights=nowhere"], "there is no student at nowhere"),
        (["vocabulary.language_model.model=optt"], "neither a folder here"),
        (["vocabulary.language_model.tokens=null"], "tokenizer opt is neither a folder here"),
        (["vocabulary.language_model.options.hidden=3"], "has 'hidden', which opt does not know"),
        (["vocabulary.language_model.options.num_attention_heads=5"], "do not suit opt"),
        (["vocabulary.context=100000"], "the language model takes at most 120"),
        (["vocabulary.context=8"], "leave no room for an answer"),
        (["vocabulary.merge=parallel"], "either a teacher or a student"),
        (["vocabulary.merge=series"], "one of none, parallel, serial"),
        (["vocabulary.merge=parallel", "vocabulary.branch.teacher=clip"], "one of the teachers"),
        (["vocabulary.merge=parallel", "vocabulary.branch.student=nowhere"], "there is no student at nowhere"),
        (["vocabulary.branch.student=nowhere"], "parallel or serial"),
        (["distributed=fsdp"], "ddp, as stages.vocabulary"),
        (["compile=true"], "false, as stages.vocabulary"),
        (["stages.vocabulary.batch_size=41"], "only 40 training images"),
        (["stages.vocabulary.epochs=1"], "either steps or epochs"),
        (["vocabulary.language_model.tokens=100"], "at least 260"),
        (["vocabulary.network.channels=[]"], "at least one convolution"),
    ],
)
def test_bad_input_is_one_sentence(reading, tmp_path, monkeypatch, overrides, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as caught:
        train(reading(*overrides))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs" / "reading" / "student").exists()


# --- the recipes ------------------------------------------------------------------------------------------------------

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_papers_recipes():
    tiny, toy = (config.load(CONFIGS / f"{name}.yaml") for name in ("vary_tiny", "vary_toy"))
    for recipe, epochs in ((tiny, 2), (toy, 1)):
        stage = recipe.stages.vocabulary
        assert (stage.epochs, stage.batch_size, stage.optim.lr, stage.optim.schedule) == (epochs, 512, 5e-5, "cosine")
        with torch.device("meta"):
            side, given = recipe.vocabulary.data.image_size, recipe.vocabulary.network
            network = VocabularyNetwork(given.model, [side, side], {}, list(given.channels), given.statistics)
        assert network.grid(side, side) == (16, 16)
        assert network.channels == 1024
    assert (tiny.vocabulary.merge, toy.vocabulary.merge) == ("none", "parallel")
    assert not tiny.vocabulary.network.frozen
    assert toy.vocabulary.network.frozen


def test_the_papers_clip_has_as_many_tokens_as_the_vocabulary():
    spec = config.load(CONFIGS / "vary_toy.yaml").teachers.clip
    spec.weights = "random"
    with torch.device("meta"):
        clip = teachers.build("clip", teacher_spec(spec))
    assert (clip.grid(1024, 1024), clip.dims) == ((16, 16), [1024])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["vocabulary.data.image_size=96"], r"has \[64, 64\] for vocabulary.data.image_size, not \[96, 96\]"),
        (["vocabulary.network.channels=[24,48]"], r"has \[24, 32\] for vocabulary.network.channels"),
        (["vocabulary.context=999"], "the language model takes at most 120"),
    ],
)
def test_a_second_training_of_another_form_is_refused(reading, read, overrides, said):
    with pytest.raises(UserError, match=said):
        train(reading("name=tuned", f"vocabulary.weights={read}", *overrides))
