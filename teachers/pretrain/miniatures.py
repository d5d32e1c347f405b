"""The miniature committee, as its config describes it: what is trained here is what the family files load."""

from pathlib import Path

from sak import config
from sak.config.schema import TeacherSpec, teacher_spec

CONFIG = Path(__file__).parents[2] / "configs" / "sak_pascal_mini.yaml"

_settings = config.load(CONFIG)
IMAGE_SIZE: int = _settings.data.image_size[0]  # of the scenes that it learns from
# The committee, and the plain supervised network that its members are compared with.
MINIATURES: dict[str, TeacherSpec] = {
    name: teacher_spec(spec) for name, spec in {**_settings.teachers, **_settings.probe.extra}.items()
}
