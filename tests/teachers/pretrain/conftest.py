import pytest
import torch

from sak.data.mini import ensure
from teachers.pretrain import data


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """A few rendered scenes: small, with unlabelled ones in pairs."""
    root = tmp_path_factory.mktemp("scenes") / "mini_context"
    return ensure(root, train=24, val=12, size=64, unlabelled=12, positives=True, workers=1, progress=False)


@pytest.fixture(scope="session")
def scenes(archive):
    return data.load_unlabelled(archive)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)
