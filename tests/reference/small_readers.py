"""Small networks for the tests of the vocabulary."""

from sak.vocabulary.language_model import build_language_model, train_tokenizer
from sak.vocabulary.model import VocabularyModel
from sak.vocabulary.network import VocabularyNetwork
from sak.vocabulary.vision import Alone

OPTIONS = {
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 2,
    "window_size": 3,
    "global_attn_indexes": [1],
    "out_chans": 16,
}
WIDTH = 32
LANGUAGE = {
    "opt": {
        "hidden_size": WIDTH,
        "word_embed_proj_dim": WIDTH,
        "num_hidden_layers": 2,
        "ffn_dim": 64,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
        "dropout": 0.0,
    },
    "qwen2": {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
    },
}


def network(size=(64, 64), channels=(24, 32), **options):
    return VocabularyNetwork("vit_b", size, {**OPTIONS, **options}, list(channels))


def tokenizer():
    return train_tokenizer(["the ball", "a ball and the bottle", "Detect ball in this image"], 300)


def language_model(kind="opt", tokens=None):
    return build_language_model(kind, False, LANGUAGE[kind], tokens or tokenizer())


def reader(kind="opt", **settings):
    tokens = tokenizer()
    return VocabularyModel(Alone(network(), WIDTH), language_model(kind, tokens), tokens, **settings).eval()
