from pathlib import Path

import pytest

from sak import config
from sak.vocabulary.training.train import train

READING = (Path(__file__).parents[1] / "fixtures" / "reading.yaml").read_text(encoding="utf-8")  # with {output}


@pytest.fixture(scope="session")
def parts(reference):
    """Small networks."""
    return reference("small_readers")


@pytest.fixture
def reading(tmp_path):
    """Gives the tiny experiment's config, with overrides."""
    (tmp_path / "reading.yaml").write_text(READING.format(output=tmp_path / "runs"))
    return lambda *overrides: config.load(tmp_path / "reading.yaml", overrides)


@pytest.fixture(scope="session")
def read(tmp_path_factory, drawing):
    """The directory of the tiny experiment's finished run; for tests that only look at it, or copy it."""
    folder = tmp_path_factory.mktemp("read")
    (folder / "reading.yaml").write_text(READING.format(output=folder / "runs"))
    with drawing():
        return train(config.load(folder / "reading.yaml")).path
