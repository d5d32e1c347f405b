import json

import pytest
import torch
from torch.nn import functional as F

from sak.student import Student
from sak.student.router import (
    FIXED,
    LEARNED,
    MixtureOfRepresentations,
    build_router,
    importance_cv2,
    plain_mean,
    plain_sum,
)

SHAPE = {
    "stem": "vit_tiny_patch16_384",
    "stem_options": {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8},
    "image_size": (32, 48),
    "levels": (0, 1),
    "tasks": {"semseg": 5, "edge": 1},
    "teachers": {"dinov2": [24] * 2, "clip": [16] * 2},
}
WIDTH, SOURCES = 16, 3


def student(**changes):
    torch.manual_seed(0)
    return Student(**{**SHAPE, **changes})


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def sources():
    """x and two paths."""
    return torch.randn(3, 2, 6, WIDTH, generator=torch.Generator().manual_seed(2)).unbind()


def router(name, **options):
    torch.manual_seed(0)
    return build_router(name, WIDTH, SOURCES, **options).eval()


def test_weights_of_every_token_by_the_formula(sources):
    x, *paths = sources
    gate = router("token", temperature=0.5)
    mixed, weights = gate(x, paths)
    assert weights.shape == (2, 6, SOURCES)
    for image in range(2):
        for token in range(6):
            logits = gate.gate(x[image, token])[:SOURCES]
            expected = torch.exp(2 * logits) / torch.exp(2 * logits).sum()
            torch.testing.assert_close(weights[image, token], expected)
            by_hand = sum(weight * source[image, token] for weight, source in zip(expected, sources, strict=True))
            torch.testing.assert_close(mixed[image, token], by_hand)


def test_only_the_top_k_sources_of_a_token_weigh(sources):
    gate, dense = router("token_topk", top_k=2), router("token")
    weights, logits = gate.weights(sources[0]), dense.logits(sources[0])
    assert torch.equal((weights == 0).sum(dim=-1), torch.ones(2, 6))
    assert torch.equal(weights.argmin(dim=-1), logits.argmin(dim=-1))
    largest = logits.sort(dim=-1, descending=True).values[..., :2].softmax(dim=-1)
    torch.testing.assert_close(weights.sort(dim=-1, descending=True).values[..., :2], largest)
    every = router("token_topk", top_k=3)
    torch.testing.assert_close(every.weights(sources[0]), dense.weights(sources[0]))


def test_of_a_knocked_out_source_nothing_is_left(sources):
    for name in LEARNED:
        weights = router(name).weights(sources[0], (1,))
        assert torch.equal(weights[..., 1], torch.zeros_like(weights[..., 1])), name
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
    x, first, second = sources
    assert torch.equal(plain_mean(x, [first, second], (1,))[0], (x + second) / 2)
    assert torch.equal(plain_mean(x, [first, second])[0], (x + first + second) / 3)
    assert torch.equal(plain_sum(x, [first, second], (0,))[0], first + second)


@pytest.mark.parametrize("name", LEARNED)
def test_temperature_leads_from_one_source_to_equal_weights(name, sources):
    cold, hot = (router(name, temperature=value, top_k=3).weights(sources[0]) for value in (1e-4, 1e4))
    torch.testing.assert_close(hot, torch.full_like(hot, 1 / 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(cold.amax(dim=-1), torch.ones_like(cold[..., 0]), atol=1e-3, rtol=0)


def test_routers_without_an_opinion_predict_what_equal_weights_do(images):
    equal = student(router="equal").eval()
    expected = equal(images).predictions["semseg"]
    for name in LEARNED:
        other = student(router=name, router_top_k=3).eval()
        own = {key: value for key, value in other.state_dict().items() if key.startswith("routers.")}
        other.load_state_dict({**equal.state_dict(), **own}, strict=True)
        for routers in other.routers.values():
            for gate in routers:
                torch.nn.init.zeros_(gate.gate[-1].weight)
                torch.nn.init.zeros_(gate.gate[-1].bias)
        torch.testing.assert_close(other(images).predictions["semseg"], expected, rtol=1e-4, atol=1e-5)


def test_a_token_router_tells_the_weights_of_every_token_in_its_place(images):
    model = student(router="token").eval()
    out = model(images)
    assert [tuple(level.shape) for level in out.token_routing["edge"]] == [(2, SOURCES, 4, 6)] * 2
    x = model.encode(images).sources[1][0]
    weights = model.routers["edge"][1].weights(x)  # (B, N, S)
    torch.testing.assert_close(out.token_routing["edge"][1][:, :, 2, 3], weights[:, 2 * 6 + 3])
    torch.testing.assert_close(out.routing["edge"][1], weights.mean(dim=1))


@pytest.mark.parametrize("name", ["mor", *FIXED])
def test_others_tell_none(name, images):
    out = student(router=name)(images)
    assert out.token_routing == {}
    assert set(out.routing) == ({"semseg", "edge"} if name == "mor" else set())


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("noisy", [True, False])
def test_every_weight_of_the_gates_gets_a_gradient(name, noisy, images):
    model = student(router=name, noisy_gating=noisy).train()
    torch.manual_seed(1)
    sum(p.square().mean() for p in model(images).predictions.values()).backward()
    without = [key for key, p in model.routers.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def still(gate, x):
    """The logits without noise, and the scale of the noise, as the paper has them: (B, N or 1, S) each."""
    gated = gate.gate(x)
    if isinstance(gate, MixtureOfRepresentations):
        gated = gated.mean(dim=1, keepdim=True)
    return gated[..., :SOURCES], F.softplus(gated[..., SOURCES:]) + 0.01


@pytest.mark.parametrize("name", LEARNED)
def test_noise_is_of_the_gates_own_scale_and_in_training_alone(name, sources):
    gate = router(name)
    logits, scale = still(gate, sources[0])
    assert torch.equal(gate.logits(sources[0]), logits)
    gate.train()
    torch.manual_seed(3)
    noisy = gate.logits(sources[0])
    torch.manual_seed(3)
    torch.testing.assert_close(noisy, logits + torch.randn(2, 6, SOURCES) * scale)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("tokens", [1, 16, 256])
def test_noise_does_not_shrink_with_the_number_of_tokens(name, tokens):
    """Of every token's logits, over draws: mean and deviation to 4 standard errors."""
    gate, x, draws = router(name).train(), torch.randn(2, tokens, WIDTH), 4096 // tokens
    with torch.no_grad():
        logits, scale = still(gate, x)
        noise = torch.stack([(gate.logits(x) - logits) / scale for _ in range(draws)]).flatten(0, 2)
    count = noise.shape[0]
    assert noise.mean(dim=0).abs().max() < 4 / count**0.5
    assert (noise.std(dim=0) - 1).abs().max() < 4 / (2 * count) ** 0.5
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 4 / count**0.5  # each source has its own


def test_tokens_of_an_image_differ_in_training_alone(sources):
    x, gate = sources[0], router("mor")
    assert gate.weights(x).shape == (2, 1, SOURCES)
    gate.train()
    weights = gate.weights(x)
    assert weights.shape == (2, 6, SOURCES)
    assert (weights[:, 1:] - weights[:, :1]).abs().amax(dim=(0, 2)).min() > 1e-2


@pytest.mark.parametrize("training", [True, False])
def test_the_published_router_written_out_plainly(training, sources, reference):
    x, *paths = sources
    gate, plain = router("mor").train(training), reference("student").PlainRouter(WIDTH, SOURCES).train(training)
    plain.load_state_dict(gate.state_dict(), strict=True)
    torch.manual_seed(3)
    mixed, weights = gate(x, paths)
    torch.manual_seed(3)
    expected = plain(x, paths)
    torch.testing.assert_close((mixed, weights), expected)
    assert weights.shape == (2, SOURCES)


@pytest.mark.parametrize(
    "options",
    [
        {"router": "token", "router_temperature": 0.3},
        {"router": "token_topk", "router_top_k": 3},
        {"router": "mor", "router_temperature": 2.0},
        {"router": "equal"},
    ],
)
def test_a_bundle_carries_its_router(options, tmp_path, images):
    model = student(**options).eval()
    model.save_pretrained(tmp_path)
    again = Student.from_pretrained(tmp_path).eval()
    out, expected = again(images), model(images)
    for key in ("predictions", "routing", "token_routing"):
        torch.testing.assert_close(getattr(out, key), getattr(expected, key), rtol=0, atol=0)


def test_a_bundle_from_before_these_options_is_read_as_it_was(tmp_path, images):
    model = student().eval()
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written.pop("router_temperature") == 1.0
    assert written.pop("router_top_k") == 2
    (tmp_path / "config.json").write_text(json.dumps(written))
    again = Student.from_pretrained(tmp_path).eval()
    assert torch.equal(again(images).predictions["edge"], model(images).predictions["edge"])


def test_the_balance_term_by_hand():
    assert importance_cv2(torch.full((4, 3), 1 / 3)).item() == pytest.approx(0, abs=1e-6)
    one = torch.tensor([[0.0, 1.0, 0.0]]).expand(5, 3)
    assert importance_cv2(one).item() == pytest.approx(2.0)  # S - 1
    weights = torch.tensor([[0.5, 0.5], [0.9, 0.1]])  # importance 1.4 and 0.6: mean 1, variance 0.16
    assert importance_cv2(weights).item() == pytest.approx(0.16)
    across = torch.eye(3)  # each image has its own source: the batch as a whole is balanced
    assert importance_cv2(across).item() == pytest.approx(0, abs=1e-6)


def test_the_balance_term_of_half_precision_is_taken_in_full():
    weights = torch.rand(64, 3, generator=torch.Generator().manual_seed(0)).softmax(dim=-1).bfloat16()
    assert importance_cv2(weights).item() == pytest.approx(importance_cv2(weights.double()).item(), rel=1e-3)


def test_the_balance_term_lowers_the_weight_of_the_favourite():
    logits = torch.tensor([[2.0, 0.0, 0.0]], requires_grad=True)
    importance_cv2(logits.softmax(dim=-1)).backward()
    assert logits.grad[0, 0] > 0
    assert (logits.grad[0, 1:] < 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"router_temperature": 0.0}, "router_temperature is 0.0, but must be positive"),
        ({"router": "token_topk", "router_top_k": 1}, "router_top_k is 1, but must be between 2 and .* sources, 3"),
        ({"router": "token_topk", "router_top_k": 4}, "router_top_k is 4"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        student(**options)


def test_the_weights_of_half_precision_are_taken_in_full():
    router = MixtureOfRepresentations(16, 3).eval()
    x = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        weights = router.weights(x)
    assert weights.dtype == torch.float32
    assert weights.sum(-1).sub(1).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("router", ["mor", "token", "token_topk", "sum"])
def test_a_student_can_be_of_half_precision_throughout(router, dtype):
    """As it is exported."""
    options = {"patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
    student = Student("vit_tiny_patch16_384", (32, 32), {"semseg": 5}, {"a": [8] * 2}, range(2), options, router=router)
    images = torch.rand(1, 3, 32, 32)
    exact = student.eval()(images).predictions["semseg"]
    rounded = student.to(dtype)(images.to(dtype)).predictions["semseg"]
    assert rounded.dtype == dtype
    assert (rounded - exact).norm() / exact.norm() < 0.05
