"""What the loss is of, how answers are written, and bundles."""

import json
import shutil

import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from sak.errors import UserError
from sak.vocabulary.language_model import train_tokenizer
from sak.vocabulary.model import VocabularyModel
from sak.vocabulary.prompts import DETECT_ALL, END, READ, around_image

IMAGES = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
PROMPTS = ["Read it", "Detect ball, bottle in this image", "Read"]
ANSWERS = ["the ball 535", "", "ball </s> <img> [010, 020]"]


def alone(model, image, prompt, answer):
    """-log p of each token of the answer and its end, from the logits of the whole sequence, word for word."""
    tokens, embed = model.tokenizer, model.language_model.get_input_embeddings()

    def ids(text):
        return tokens(text, add_special_tokens=False).input_ids

    before = [tokens.convert_tokens_to_ids("</s>"), *ids("USER: <img>")]
    after = ids(f"</img> {prompt} ASSISTANT: ")
    # In an answer nothing is special: its pieces are encoded so that no mark is whole.
    told = [number for piece in answer.replace("<", "<\0").split("\0") for number in ids(piece)]
    told = [*told, tokens.convert_tokens_to_ids("</s>")]
    embedded = torch.cat([embed(torch.tensor(before)), model.vision(image[None])[0], embed(torch.tensor(after + told))])
    logits = model.language_model(inputs_embeds=embedded[None]).logits[0]
    return F.cross_entropy(logits[len(embedded) - len(told) - 1 : -1], torch.tensor(told), reduction="none")


@pytest.mark.parametrize("kind", ["opt", "qwen2"])
def test_the_loss_is_of_the_answers_and_their_ends_alone(parts, kind):
    model = parts.reader(kind)
    output = model(IMAGES, PROMPTS, ANSWERS)
    expected = torch.cat([alone(model, *sample) for sample in zip(IMAGES, PROMPTS, ANSWERS, strict=True)])
    assert output.tokens == len(expected)
    assert output.cut == 0
    torch.testing.assert_close(output.loss, expected.mean(), rtol=1e-4, atol=1e-5)


def test_an_empty_answer_is_its_end(parts):
    output = parts.reader()(IMAGES[:1], ["Read"], [""])
    assert output.tokens == 1


def test_an_answer_too_long_is_cut_and_counted_and_no_image_token_is(parts):
    model = parts.reader()
    whole = model(IMAGES[:1], ["Read"], ["a"]).tokens
    room = model._after("Read", model.vision_tokens)[1]
    output = model(IMAGES[:2], ["Read", "Read"], ["1" * 500, "a"])
    assert output.cut == 1
    assert output.tokens == room + whole  # which has no end: more would follow
    with pytest.raises(UserError, match="leave no room for an answer in a context of 128"):
        model(IMAGES[:1], ["Read " * 200], ["a"])


def test_a_context_of_ones_own(parts):
    assert parts.reader(context=60).context == 60
    with pytest.raises(UserError, match="context is 500, but the language model takes at most 128"):
        parts.reader(context=500)


def test_what_follows_an_answer_has_no_part_in_its_loss(parts):
    """Padding to the length of a longer neighbour."""
    model = parts.reader()
    first = model(IMAGES[:1], PROMPTS[:1], ANSWERS[:1])
    both = model(IMAGES[:2], PROMPTS[:2], [ANSWERS[0], "a longer answer 123456789"])
    second = model(IMAGES[1:2], PROMPTS[1:2], ["a longer answer 123456789"])
    weighed = (first.loss * first.tokens + second.loss * second.tokens) / both.tokens
    torch.testing.assert_close(both.loss, weighed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["opt", "qwen2"])
@pytest.mark.parametrize("beams", [1, 3])
def test_the_cache_changes_nothing(parts, kind, beams):
    model = parts.reader(kind)
    cached = model.generate(IMAGES, PROMPTS, beams=beams, max_new_tokens=12)
    assert cached == model.generate(IMAGES, PROMPTS, beams=beams, max_new_tokens=12, use_cache=False)
    assert any(cached)


@pytest.mark.parametrize("kind", ["opt", "qwen2"])
def test_each_of_a_batch_is_read_as_if_it_were_alone(parts, kind):
    model = parts.reader(kind)
    together = model.generate(IMAGES, PROMPTS, max_new_tokens=12)
    assert together == [
        model.generate(IMAGES[i : i + 1], PROMPTS[i : i + 1], max_new_tokens=12)[0] for i in range(len(IMAGES))
    ]


def test_it_learns_one_answer_by_heart_and_stops_at_its_end(parts):
    torch.manual_seed(0)
    model = parts.reader().train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    prompts, answers = ["Read", "Read"], ["ball 12.", ""]
    for _ in range(80):
        loss = model(IMAGES[:2], prompts, answers).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    assert model.generate(IMAGES[:2], prompts) == answers
    assert model.generate(IMAGES[:2], prompts, beams=2) == answers
    pieces = []
    assert model.generate(IMAGES[:1], prompts[:1], stream=pieces.append) == answers[:1]
    assert "".join(pieces) == answers[0]
    assert len(pieces) > 1


def test_a_stream_is_of_one_text(parts):
    with pytest.raises(UserError, match="of one image, and of one beam"):
        parts.reader().generate(IMAGES, PROMPTS, stream=print)


def test_never_more_is_written_than_there_is_room_for(parts):
    model = parts.reader(context=45)
    assert len(model.tokenizer(model.generate(IMAGES[:1], ["Read"])[0]).input_ids) < 45


def test_pixels_of_0_to_255_are_warned_of_once(parts):
    model = parts.reader()
    with pytest.warns(UserWarning, match=r"wants RGB in \[0, 1\]"):
        model(255 * IMAGES, PROMPTS, ANSWERS)


def test_marks_in_a_prompt_are_refused(parts):
    with pytest.raises(UserError, match="<img>"):
        parts.reader()(IMAGES[:1], ["Read <img>"], ["a"])


# --- bundles ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(parts, tmp_path_factory):
    place = tmp_path_factory.mktemp("bundles") / "reader"
    parts.reader().save_pretrained(place)
    return place


@pytest.mark.parametrize("kind", ["opt", "qwen2"])
def test_a_bundle_holds_the_whole_model(parts, tmp_path, kind):
    model = parts.reader(kind, context=100)
    model.save_pretrained(tmp_path / "bundle")
    again = VocabularyModel.from_pretrained(tmp_path / "bundle")
    assert not again.training
    assert again.context == 100
    assert again.generate(IMAGES, PROMPTS, max_new_tokens=8) == model.generate(IMAGES, PROMPTS, max_new_tokens=8)
    assert torch.equal(again(IMAGES, PROMPTS, ANSWERS).loss, model(IMAGES, PROMPTS, ANSWERS).loss)


def test_embeddings_that_are_the_head_too_stand_there_once(bundle):
    names = safetensors.torch.load_file(bundle / "model.safetensors").keys()
    embeddings = [name for name in names if name.endswith(("embed_tokens.weight", "lm_head.weight"))]
    assert len(embeddings) == 1


def damaged(bundle, place, change):
    shutil.copytree(bundle, place)
    change(place)
    return place


def config_with(**changes):
    def change(place):
        content = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps({**content, **changes}))

    return change


def weights_with(edit):
    def change(place):
        tensors = safetensors.torch.load_file(place / "model.safetensors")
        edit(tensors)
        safetensors.torch.save_file(tensors, place / "model.safetensors")

    return change


def without_image_token(place):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / name).write_text((place / name).read_text().replace("<img>", "<gmi>"))


NEW = "vision.projection.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (config_with(format=9), "newer sak"),
        (config_with(kind="student"), "holds no model that reads"),
        (config_with(network={"model": "vit_x", "image_size": [64, 64]}), "unknown SAM model"),
        (config_with(network={"model": "vit_b", "sides": 1}), "cannot be read as a bundle"),
        (config_with(language_model={"model_type": "optt"}), "no kind of model 'optt'"),
        (config_with(context="many"), "cannot be read as a bundle"),
        (lambda place: (place / "config.json").write_text("{"), "is no JSON"),
        (lambda place: (place / "model.safetensors").write_bytes(b"x" * 99), "cannot be read as weights"),
        (lambda place: (place / "tokenizer.json").unlink(), "tokenizer"),
        (without_image_token, "cannot be read as a bundle"),
        (weights_with(lambda tensors: tensors.pop(NEW)), f"lacks {NEW}"),
        (weights_with(lambda tensors: tensors.update(other=torch.ones(2))), "holds unknown other"),
        (weights_with(lambda tensors: tensors.update({NEW: torch.ones(2, 2)})), f"another shape of {NEW}"),
        (weights_with(lambda tensors: tensors[NEW].fill_(torch.nan)), f"is not finite in {NEW}"),
    ],
)
def test_a_corrupt_bundle_is_refused_in_one_sentence(bundle, tmp_path, change, said):
    with pytest.raises(UserError, match=said) as caught:
        VocabularyModel.from_pretrained(damaged(bundle, tmp_path / "damaged", change))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_the_image_token_is_refused(parts):
    model = parts.reader()
    model.tokenizer.convert_tokens_to_ids = lambda token: None
    with pytest.raises(UserError, match="the tokenizer has no token <img>"):
        VocabularyModel(model.vision, model.language_model, model.tokenizer)


def test_a_student_is_no_reader_and_a_reader_no_student(bundle, trained):
    from sak import Student

    with pytest.raises(UserError, match="holds no model that reads"):
        VocabularyModel.from_pretrained(trained)
    with pytest.raises(ValueError, match="holds a model that reads, and no student"):
        Student.from_pretrained(bundle)


def test_the_templates_phrases_are_tokens_and_letters_too():
    tokens = train_tokenizer(["the heather", READ, DETECT_ALL], 260)
    before, after = around_image(READ)
    told = f"{before}{after}the heather 42 {END}"
    names = [tokens.decode([each]) for each in tokens(told).input_ids]
    assert names == ["USER: ", "<img>", "</img>", " ", READ, " ASSISTANT: ", *"the heather 42 ", END]
    assert tokens.decode(tokens(told).input_ids) == told
