"""From a config to the parts of an experiment."""

from omegaconf import DictConfig, OmegaConf

from sak import data, tasks
from sak.errors import UserError
from sak.student import Student
from sak.tasks import Task
from teachers import Committee


def build_tasks(config: DictConfig) -> dict[str, Task]:
    """The config's tasks, in its order."""
    benchmark = data.benchmark(config.data.dataset)
    return {name: tasks.build(name, benchmark) for name in config.data.tasks}


def build_committee(config: DictConfig) -> Committee:
    return Committee({name: OmegaConf.to_object(spec) for name, spec in config.teachers.items()})


def build_student(config: DictConfig, chosen: dict[str, Task], teachers: dict[str, list[int]]) -> Student:
    """
    Args:
        teachers: {teacher: its width at each level}.

    Raises:
        UserError: the parts of the config do not fit together, or the stem's weights cannot be had.
    """
    options = OmegaConf.to_container(config.student)
    pretrained, head, heads = options.pop("pretrained"), options.pop("head"), options.pop("heads")
    if strangers := sorted(heads.keys() - chosen.keys()):
        raise UserError(f"student.heads names {strangers[0]!r}, which is not among data.tasks")
    try:
        student = Student(
            **options,
            image_size=list(config.data.image_size),
            tasks={name: task.channels for name, task in chosen.items()},
            teachers=teachers,
            heads={name: heads.get(name, head) for name in chosen},
        )
    except ValueError as error:
        raise UserError(f"student: {error}") from error
    if pretrained:
        try:
            student.stem.load_pretrained()
        except Exception as error:  # the hub's client raises many kinds
            raise UserError(
                f"the pretrained weights of the stem {config.student.stem} are neither cached nor to be downloaded "
                f"({str(error).splitlines()[0]}); fetch them once where there is a connection, "
                "or set student.pretrained=false to start from random weights"
            ) from error
    return student
