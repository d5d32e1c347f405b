import pytest
import safetensors.torch
import timm
import torch

from sak import Student
from sak.distillation import losses
from sak.student.stem import Stem

TINY = {
    "stem": "vit_tiny_patch16_384",
    "stem_options": {"embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 8},
    "image_size": (32, 48),
    "levels": (0, 1, 2, 3),
    "tasks": {"semseg": 5, "edge": 1},
    "teachers": {"dinov2": [24] * 4, "clip": [32] * 4},
}


def tiny(**changes):
    torch.manual_seed(0)
    return Student(**{**TINY, **changes})


def images(height=32, width=48):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_shapes():
    out = tiny()(images())
    assert {task: tuple(p.shape) for task, p in out.predictions.items()} == {
        "semseg": (2, 5, 32, 48),
        "edge": (2, 1, 32, 48),
    }
    assert [tuple(m.shape) for m in out.paths["dinov2"]] == [(2, 24, 4, 6)] * 4
    assert [tuple(w.shape) for w in out.routing["edge"]] == [(2, 3)] * 4


def test_weights_sum_to_one_with_and_without_noise():
    student = tiny()
    for mode in (True, False):
        for weights in student.train(mode)(images()).routing["semseg"]:
            torch.testing.assert_close(weights.sum(1), torch.ones(2))


def test_noise_is_drawn_while_training_alone():
    student = tiny()
    student.eval()
    torch.testing.assert_close(student(images()).routing["edge"][0], student(images()).routing["edge"][0])
    student.train()
    assert not torch.equal(student(images()).routing["edge"][0], student(images()).routing["edge"][0])


@pytest.mark.parametrize("size", [(32, 48), (48, 32), (64, 64), (16, 80)])
def test_other_image_sizes(size):
    out = tiny().eval()(images(*size))
    assert out.predictions["semseg"].shape[-2:] == size
    assert out.paths["clip"][0].shape[-2:] == (size[0] // 8, size[1] // 8)


def test_pretrained_weights_of_the_stem(monkeypatch):
    """Of the very tag that was named, the position embedding resized, the final norm left out."""
    create, name = timm.create_model, "vit_tiny_patch16_384.augreg_in21k_ft_in1k"
    source = create(name, num_classes=0)
    asked = []

    def downloaded(model, pretrained=False, **options):
        asked.append((model, pretrained))
        return source if pretrained else create(model, **options)

    monkeypatch.setattr(timm, "create_model", downloaded)
    student = tiny(stem=name, stem_options=None, image_size=(32, 48))
    student.stem.load_pretrained()
    assert asked[-1] == (name, True)
    assert torch.equal(student.stem.vit.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)
    assert student.stem.vit.pos_embed.shape[1] == 1 + 2 * 3
    assert torch.equal(student.stem.vit.pos_embed[:, 0], source.pos_embed[:, 0])


def test_gradients_reach_every_part():
    student = tiny()
    out = student(images())
    terms = losses.distillation_terms(out.paths, {t: [torch.randn_like(m) for m in p] for t, p in out.paths.items()})
    (losses.total(terms) + sum(p.square().mean() for p in out.predictions.values())).backward()
    without = [name for name, p in student.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_distillation_alone_leaves_heads_and_routers_without_gradient():
    student = tiny()
    out = student(images(), tasks=())
    assert out.predictions == {}
    assert out.routing == {}
    sum(m.square().mean() for p in out.paths.values() for m in p).backward()
    assert all(p.grad is None for part in (student.heads, student.routers) for p in part.parameters())


@pytest.mark.parametrize(
    ("aligner", "aligned"), [(None, {"dinov2": 4, "clip": 0}), (True, {"dinov2": 4, "clip": 4}), (False, {})]
)
def test_aligners(aligner, aligned):
    student = tiny(aligner=aligner)
    for teacher, path in student.paths.items():
        assert sum(isinstance(a, torch.nn.Linear) for a in path.aligners) == aligned.get(teacher, 0)


def test_one_path_does_not_touch_another():
    student = tiny().eval()
    before = student(images())
    torch.nn.init.normal_(student.paths["clip"].adapters[0].up.weight)
    after = student(images())
    assert torch.equal(before.paths["dinov2"][3], after.paths["dinov2"][3])
    assert not torch.equal(before.paths["clip"][3], after.paths["clip"][3])


def test_sum_has_no_routers():
    student = tiny(router="sum").eval()
    out = student(images())
    assert out.routing == {}
    assert not any("router" in name for name, _ in student.named_parameters())


def test_without_paths_teachers_are_distilled_from_the_stem_and_heads_read_the_stem_alone():
    student = tiny(paths="none").eval()
    assert student.sources == ("stem",)
    assert len(student.routers) == 0
    out = student(images())
    assert out.routing == {}
    tokens = student.stem((images() - student.mean) / student.std)
    for teacher, width in {"dinov2": 24, "clip": 32}.items():  # an aligner even where the widths are equal
        for level, block in enumerate(student.levels):
            aligned = student.paths[teacher].aligners[level](tokens[block + 1][:, 1:])
            assert aligned.shape[-1] == width
            assert torch.equal(out.paths[teacher][level], aligned.transpose(1, 2).unflatten(2, (4, 6)))
    alone = tiny(teachers={}).eval()
    alone.stem.load_state_dict(student.stem.state_dict())
    alone.heads.load_state_dict(student.heads.state_dict())
    assert torch.equal(alone(images()).predictions["edge"], out.predictions["edge"])


def test_without_paths_gradients_reach_every_part():
    student = tiny(paths="none")
    out = student(images())
    (sum(m.square().mean() for p in [*out.paths.values()] for m in p) + out.predictions["edge"].square().mean()
     + out.predictions["semseg"].square().mean()).backward()  # fmt: skip
    assert [name for name, p in student.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_without_paths_a_bundle_keeps_or_drops_its_aligners(tmp_path):
    student = tiny(paths="none").eval()
    student.save_pretrained(tmp_path / "whole")
    again = Student.from_pretrained(tmp_path / "whole").eval()
    assert torch.equal(again(images()).paths["clip"][2], student(images()).paths["clip"][2])
    student.drop_aligners()
    student.save_pretrained(tmp_path / "inference")
    again = Student.from_pretrained(tmp_path / "inference").eval()
    assert again.sources == ("stem",)
    assert not list(again.paths.parameters())
    assert torch.equal(again(images()).predictions["edge"], student(images()).predictions["edge"])


def test_without_teachers_there_is_nothing_to_route():
    student = tiny(teachers={})
    assert student.sources == ("stem",)
    assert len(student.routers) == 0
    assert student(images()).routing == {}


def test_an_image_size_for_good_moves_the_position_embedding_to_its_grid(tmp_path):
    student = tiny().eval()
    before = student.stem.vit.pos_embed.detach().clone()
    on_the_fly = student(images(64, 64)).predictions["edge"]
    student.set_image_size((64, 64))
    assert student.stem.vit.pos_embed.shape[1] == 1 + 8 * 8
    assert student.stem.vit.pos_embed.requires_grad
    torch.testing.assert_close(student(images(64, 64)).predictions["edge"], on_the_fly)
    student.save_pretrained(tmp_path)
    again = Student.from_pretrained(tmp_path).eval()
    assert again.stem.image_size == (64, 64)
    assert torch.equal(again(images()).predictions["edge"], student(images()).predictions["edge"])
    with pytest.raises(ValueError, match="30x48 is not divisible"):
        student.set_image_size((30, 48))
    unmoved = tiny()
    unmoved.set_image_size((32, 48))
    assert torch.equal(unmoved.stem.vit.pos_embed, before)
    unmoved.set_image_size((48, 32))  # as many tokens in another grid
    assert not torch.equal(unmoved.stem.vit.pos_embed, before)


def test_bundle_round_trip(tmp_path):
    student = tiny().eval()
    student.save_pretrained(tmp_path)
    again = Student.from_pretrained(tmp_path).eval()
    assert again.sources == student.sources == ("stem", "dinov2", "clip")
    for task, prediction in student(images()).predictions.items():
        assert torch.equal(again(images()).predictions[task], prediction)


def test_a_bundle_that_lacks_a_weight_or_has_one_too_many_is_refused(tmp_path):
    tiny().save_pretrained(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    key = "heads.edge.classify.bias"
    lacking = {name: value for name, value in weights.items() if name != key}
    for changed in (lacking, {**weights, "heads.edge.extra": weights[key].clone()}):
        safetensors.torch.save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(RuntimeError, match=r"heads.edge.(classify.bias|extra)"):
            Student.from_pretrained(tmp_path)


def test_a_bundle_without_aligners_predicts_the_same(tmp_path):
    student = tiny().eval()
    before = student(images())
    student.drop_aligners()
    student.save_pretrained(tmp_path)
    again = Student.from_pretrained(tmp_path).eval()(images())
    assert torch.equal(again.predictions["semseg"], before.predictions["semseg"])
    assert again.paths["dinov2"][0].shape[1] == 32  # the stem's width


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": (0, 1, 2, 4)}, r"levels \[0, 1, 2, 4\].*4 blocks \(0 to 3\)"),
        ({"levels": (1, 0, 2, 3)}, "increasing"),
        ({"image_size": (32, 50)}, "32x50 is not divisible by the stem's patch size 8.*32x48"),
        ({"stem": "vit_nonsense"}, "not a timm model"),
        ({"stem": "resnet18", "stem_options": None}, "not a plain vision transformer"),
        ({"router": "gate"}, "unknown router 'gate'; known: mor, token, token_topk, equal, sum"),
        ({"paths": "many"}, "unknown paths 'many'; known: adapter, none"),
        ({"teachers": {"clip": [32] * 3}}, "'clip' has 3 levels and the student 4"),
        ({"heads": {"semseg": {"type": "FCNHead"}}}, "unknown head 'FCNHead'"),
        ({"heads": {"semseg": {"type": "mmseg.NoHead"}}}, "no head 'NoHead'"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_an_image_that_the_patch_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="30x48 is not divisible"):
        tiny()(images(30, 48))


@pytest.mark.parametrize("name", ["SegformerHead", "FCNHead", "UPerHead"])
def test_heads_of_mmsegmentation(name):
    options = {"channels": 16, "dropout_ratio": 0.0}
    student = tiny(heads={"semseg": {"type": f"mmseg.{name}", "options": options}}).eval()
    out = student(images())
    assert out.predictions["semseg"].shape == (2, 5, 32, 48)
    assert out.predictions["edge"].shape == (2, 1, 32, 48)
    out.predictions["semseg"].sum().backward()
    assert student.stem.vit.cls_token.grad.abs().sum() > 0


def test_options_that_a_head_does_not_take_are_named():
    with pytest.raises(ValueError, match="SegformerHead cannot be built"):
        tiny(heads={"semseg": {"type": "mmseg.SegformerHead", "options": {"colour": "red"}}})


@pytest.mark.parametrize("tokens", [0, 10**6])
def test_attention_in_bf16_is_the_same_written_out_or_fused(monkeypatch, tokens):
    """Whichever is the faster: both stay as close to float32."""
    monkeypatch.setattr("sak.student.stem.WRITTEN_OUT", tokens)
    torch.manual_seed(0)
    stem = Stem("vit_tiny_patch16_224", (64, 64), {"depth": 2, "embed_dim": 32, "num_heads": 2}).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        exact = stem(images)[-1]
        assert all(block.attn.fused_attn for block in stem.vit.blocks)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = stem(images)[-1]
    assert all(block.attn.fused_attn is (tokens == 0) for block in stem.vit.blocks)
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.02


def test_who_switches_fused_attention_off_in_timm_has_none(monkeypatch):
    monkeypatch.setattr("sak.student.stem.use_fused_attn", lambda: False)
    stem = Stem("vit_tiny_patch16_224", (32, 32), {"depth": 2, "embed_dim": 32, "num_heads": 2})
    stem(torch.randn(1, 3, 32, 32))
    assert not any(block.attn.fused_attn for block in stem.vit.blocks)
