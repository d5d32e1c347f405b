"""What is evaluated, on which data, and where the results go."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from sak import config, data
from sak.data import mini
from sak.errors import UserError
from sak.evaluation.subject import check_output, default_output, open_subject


def test_every_student_has_a_place_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/student", "b/student", "student", "sak.v2", "sak.v3", "a_student", "runs/tiny/student"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    for name in ("sak.pth", "sak.safetensors", "b/sak.pth"):
        (tmp_path / name).write_text("")
    (tmp_path / "runs" / "tiny" / "config.yaml").write_text("")
    places = {
        "a/student": "evaluation/a/student",
        "b/student": "evaluation/b/student",
        "student": "evaluation/student",
        "a_student": "evaluation/a_student",
        "sak.v2": "evaluation/sak.v2",
        "sak.v3": "evaluation/sak.v3",
        "sak.pth": "evaluation/sak.pth",
        "sak.safetensors": "evaluation/sak.safetensors",
        "b/sak.pth": "evaluation/b/sak.pth",
        "runs/tiny": "runs/tiny/evaluation",
        "runs/tiny/student": "evaluation/runs/tiny/student",
        "user/name": "evaluation/user/name",
    }
    assert {place: str(default_output(place)) for place in places} == places
    assert len(set(places.values())) == len(places)
    assert (
        default_output("a/../a/student/") == default_output(str(tmp_path / "a/student")) == Path("evaluation/a/student")
    )
    assert default_output("/etc", "inspection") == Path("inspection/etc")
    monkeypatch.chdir(tmp_path / "a")
    assert default_output("../b/student") == Path("evaluation", *(tmp_path / "b/student").parts[1:])


def test_what_a_run_may_skip_is_carried_along(trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    skipping = ["data.on_error=skip", "data.max_skipped=0.25", "data.timeout=77"]
    config.save(config.load(run / "config.yaml", skipping), run / "config.yaml")
    found = open_subject(str(run)).data
    assert (found.on_error, found.max_skipped, found.timeout) == ("skip", 0.25, 77)
    assert open_subject(str(run / "student"), root=config.load(run / "config.yaml").data.root).data.on_error == "stop"


def test_a_skipped_image_is_counted_in_the_results(trained, archive, tmp_path, call_tool):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    skipping = ["data.on_error=skip", "data.max_skipped=0.5", f"data.root={archive}"]
    config.save(config.load(run / "config.yaml", skipping), run / "config.yaml")
    first = (archive / "ImageSets" / "Context" / "val.txt").read_text().split()[0]
    (archive / "JPEGImages" / f"{first}.jpg").write_bytes(b"no picture")
    for _ in range(2):  # counted anew each time
        assert call_tool("evaluate", run, "--overwrite")[0] == 0
        text = (run / "evaluation" / "results.md").read_text()
        assert "1 of 2 images of `val` are faulty (`skipped.txt`): they are left out of all metrics." in text


@pytest.mark.parametrize("tool", [("evaluate",), ("inspect_router",), ("inspect_fidelity", "data.root=")])
def test_a_place_that_was_named_is_never_rendered_to(trained, tmp_path, call_tool, monkeypatch, tool):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    text = (run / "config.yaml").read_text().replace("dataset: pascal_context", "dataset: mini_context")
    (run / "config.yaml").write_text(text)
    monkeypatch.setattr(mini, "ensure", lambda *_, **__: pytest.fail("rendered"))
    name, *option = tool
    place = [f"{option[0]}{tmp_path / 'typo'}"] if option else ["--data", tmp_path / "typo"]
    code, _, errors = call_tool(name, run, *place)
    assert (code, len(errors)) == (2, 1)
    assert "typo, but there is no such directory" in errors[0]
    assert not (tmp_path / "typo").exists()


def test_the_run_s_own_data_are_rendered_again(trained, tmp_path, monkeypatch):
    """What is not named is what the run itself rendered."""
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    settings = config.load(run / "config.yaml", ["data.dataset=mini_context", f"data.root={tmp_path / 'gone'}"])
    config.save(settings, run / "config.yaml")
    asked = []
    monkeypatch.setattr(mini, "ensure", lambda root, *_, **__: asked.append(root))
    data.prepare(open_subject(str(run)).data)
    assert asked == [str(tmp_path / "gone")]


def test_results_do_not_replace_what_is_none(tmp_path):
    (tmp_path / "archive" / "semseg").mkdir(parents=True)
    (tmp_path / "results" / "semseg").mkdir(parents=True)
    (tmp_path / "results" / "metrics.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "config.json").write_text("{}")
    check_output(tmp_path / "new", ["semseg"], "metrics.json")
    check_output(tmp_path / "results", ["semseg"], "metrics.json")
    check_output(tmp_path / "archive", ["normals"], "metrics.json")
    with pytest.raises(UserError, match="archive/semseg is in the way, and not of an earlier start"):
        check_output(tmp_path / "archive", ["normals", "semseg"], "metrics.json")
    for name in ("run", "bundle"):
        with pytest.raises(UserError, match=f"{name} is a run or a bundle itself"):
            check_output(tmp_path / name)


def test_maps_that_are_replaced_are_those_of_an_earlier_evaluation(trained, tmp_path, call_tool):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    shutil.copytree(tmp_path / "run" / "student", tmp_path / "out" / "semseg")  # something else of that name
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for option in ([], ["--overwrite"]):
        assert call_tool("evaluate", run, "--output", "out", "--save-maps", *option)[0] == 2
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    for option in ([], ["--overwrite"]):
        assert call_tool("evaluate", run, "--output", "maps", "--save-maps", *option)[0] == 0
        assert len(list((tmp_path / "maps" / "semseg").iterdir())) == 2
    assert set(json.loads((tmp_path / "maps" / "metrics.json").read_text())) == {
        path.name for path in (tmp_path / "maps").iterdir() if path.is_dir()
    }
    assert torch.get_num_threads() == 1
