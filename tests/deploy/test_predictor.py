"""The predictor: pictures of every kind and size, against plain forward passes of the student."""

import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import sak
from sak.data.transforms import finish, packed_for_evaluation
from sak.deploy.pictures import find_shots, pixels_of
from sak.deploy.prediction import Prediction
from sak.errors import UserError
from sak.plotting import pixels
from sak.tasks.depth import Depth

RNG = np.random.default_rng(0)


def evaluated(picture, height, width):
    """The image as an evaluation gives it to the student."""
    return finish(packed_for_evaluation({"image": picture}, (height, width), {}))["image"]


def noise(*size):
    """A picture of blobs, uint8."""
    small = RNG.integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3), dtype=np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def predictor(trained):
    return sak.Predictor(trained)


@pytest.mark.parametrize("size", [(96, 96), (60, 96), (31, 47), (1, 1)])
def test_a_picture_that_fits_is_predicted_as_in_an_evaluation(predictor, size):
    picture = noise(*size)
    prediction = predictor(picture)
    with torch.no_grad():
        output = predictor.student(evaluated(picture, 96, 96)[None])
    top, left = (96 - size[0]) // 2, (96 - size[1]) // 2
    inside = (..., slice(top, top + size[0]), slice(left, left + size[1]))
    raw = {task: maps[0][inside] for task, maps in output.predictions.items()}
    assert set(prediction) == set(raw)
    assert np.array_equal(prediction["semseg"], raw["semseg"].argmax(0))
    assert np.array_equal(prediction["human_parts"], raw["human_parts"].argmax(0))
    np.testing.assert_allclose(prediction["saliency"], raw["saliency"].softmax(0)[1], atol=1e-6)
    np.testing.assert_allclose(prediction["edge"], raw["edge"][0].sigmoid(), atol=1e-6)
    normals = raw["normals"] / raw["normals"].norm(dim=0)
    np.testing.assert_allclose(prediction["normals"], normals.permute(1, 2, 0), atol=1e-5)
    for task, levels in output.routing.items():
        np.testing.assert_allclose(prediction.routing[task], torch.cat(levels), atol=1e-6)


def test_a_large_picture_has_maps_of_its_size(predictor):
    picture = noise(150, 203)
    prediction = predictor(picture)
    assert {task: (maps.shape, maps.dtype) for task, maps in prediction.items()} == {
        "semseg": ((150, 203), np.uint8),
        "human_parts": ((150, 203), np.uint8),
        "saliency": ((150, 203), np.float32),
        "normals": ((150, 203, 3), np.float32),
        "edge": ((150, 203), np.float32),
    }
    # Beyond the reach of its neighbours, a window's map is its own.
    corner = predictor(picture[:96, :96])
    assert np.array_equal(prediction["semseg"][:50, :50], corner["semseg"][:50, :50])
    assert (prediction["edge"][:96, :96] != corner["edge"]).any()


def test_a_whole_picture_goes_through_at_once(trained):
    picture = noise(100, 130)
    prediction = sak.Predictor(trained, whole=True)(picture)
    student = sak.Student.from_pretrained(trained / "student").eval()
    with torch.no_grad():
        image = evaluated(picture, 112, 144)
        edge = student(image[None]).predictions["edge"][0, 0, 6:106, 7:137].sigmoid()
    np.testing.assert_allclose(prediction["edge"], edge, atol=1e-6)


def test_a_picture_that_is_shrunk_has_maps_of_its_own_size(trained):
    picture = noise(200, 300)
    prediction = sak.Predictor(trained, longest_edge=90)(picture)
    small = cv2.resize(picture, (90, 60), interpolation=cv2.INTER_AREA)
    student = sak.Student.from_pretrained(trained / "student").eval()
    with torch.no_grad():
        raw = student(evaluated(small, 96, 96)[None]).predictions
    raw = {task: maps[:, :, 18:78, 3:93] for task, maps in raw.items()}
    edge = torch.nn.functional.interpolate(raw["edge"], (200, 300), mode="bilinear")[0, 0].sigmoid()
    np.testing.assert_allclose(prediction["edge"], edge, atol=1e-5)
    assert prediction["semseg"].shape == (200, 300)


def test_pictures_share_passes_and_keep_their_order(trained, predictor):
    pictures = [noise(*size) for size in ((96, 96), (200, 100), (50, 60), (96, 96), (120, 300))]
    alone = [predictor(picture) for picture in pictures]
    student = predictor.student
    passes = []
    hook = student.register_forward_pre_hook(lambda _, arguments: passes.append(len(arguments[0])))
    together = list(sak.Predictor(student, batch_size=4).each(iter(pictures)))
    hook.remove()
    assert sum(passes) == 1 + 6 + 1 + 1 + 10
    assert len(passes) == 5
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.image, other.image)
        for task, values in one.items():
            np.testing.assert_allclose(values, other[task], atol=1e-4)
        for task, weights in one.routing.items():
            np.testing.assert_allclose(weights, other.routing[task], atol=1e-5)


def test_sources_are_knocked_out_and_tasks_chosen(trained):
    picture = noise(96, 96)
    prediction = sak.Predictor(trained, tasks=["edge", "semseg"], without=["dinov2"])(picture)
    student = sak.Student.from_pretrained(trained / "student").eval()
    with torch.no_grad():
        image = torch.from_numpy(picture.transpose(2, 0, 1)).float()[None] / 255
        edge = student(image, without=["dinov2"]).predictions["edge"].sigmoid()
    assert list(prediction) == ["edge", "semseg"]
    np.testing.assert_allclose(prediction["edge"], edge[0, 0], atol=1e-6)
    assert np.allclose(prediction.routing["edge"], [[1, 0]] * 4)


def test_a_prediction_knows_its_classes_and_draws_itself(predictor):
    prediction = predictor(noise(70, 120))
    assert prediction.classes["semseg"][15] == "person"
    assert set(prediction.classes) == {"semseg", "human_parts"}
    figure = prediction.panel()
    assert isinstance(figure, Figure)
    titles = [axis.get_title() for axis in figure.axes]
    assert [title for title in titles if title] == ["image", "semseg", "human_parts", "saliency", "normals", "edge"]
    bars = [axis for axis in figure.axes if len(axis.patches) == 2 * 4]  # of two sources at four levels
    heights = np.array([patch.get_height() for patch in bars[0].patches]).reshape(2, 4)
    np.testing.assert_allclose(heights.T, prediction.routing["semseg"], atol=1e-6)
    assert pixels(figure).std() > 10


def test_depth_is_stored_in_millimetres(tmp_path):
    metres = np.array([[[0, 1.2344, 65.5, 70, -1]]], np.float32)
    image = np.zeros((1, 5, 3), np.uint8)
    Prediction(image, {"depth": Depth("nyud")}, {"depth": metres}, {}, ("stem",), (0,)).save(
        tmp_path / "d.png", "depth"
    )
    stored = cv2.imread(str(tmp_path / "d.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert stored.tolist() == [[0, 1234, 65500, 65535, 0]]


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_picture_is_the_same_in_every_form(tmp_path):
    picture = noise(40, 50)
    image = Image.fromarray(picture)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.tiff")
    turned = Image.fromarray(np.rot90(picture))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    cv2.imwrite(str(tmp_path / "a.ras"), picture[..., ::-1])  # a Sun raster
    forms = [tmp_path / "a.png", str(tmp_path / "a.tiff"), tmp_path / "turned.png", tmp_path / "a.ras", image, picture]
    forms += [np.dstack([picture, np.full((40, 50), 255, np.uint8)]), image.convert("RGBA")]
    for form in forms:
        assert np.array_equal(pixels_of(form), picture), form
    for floats in (picture / 255, (picture / 255).astype(np.float16)):
        np.testing.assert_allclose(pixels_of(floats), picture / np.float32(255), atol=1e-3)


def test_grey_and_transparent_arrays():
    assert pixels_of(np.array([[0, 200]], np.uint8)).tolist() == [[[0] * 3, [200] * 3]]
    assert pixels_of(np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8)).tolist() == [[[255] * 3, [10, 20, 30]]]
    np.testing.assert_allclose(pixels_of(np.array([[[0, 0.5, 1, 0.5]]])), [[[0.5, 0.75, 1]]])


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 3), np.uint16), "but it holds uint16"),
        (np.zeros((3, 4, 4), np.uint8) + 0.5, None),
        (np.zeros((2, 4, 4, 3), np.uint8), r"its shape is \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"its shape is \(0, 4, 3\)"),
        (np.full((4, 4, 3), np.nan), "not finite"),
        (torch.zeros(3, 4, 4), "but it is a Tensor"),
        ("nowhere.jpg", "nowhere.jpg does not exist"),
    ],
)
def test_what_is_no_picture_is_told(picture, message):
    if message is None:  # (3, H, W) with four columns is an array with opacity: nobody can tell
        assert pixels_of(picture).shape == (3, 4, 3)
        return
    with pytest.raises(UserError, match=message):
        pixels_of(picture)


def test_the_student_warns_once_of_images_that_are_not_in_0_1(trained):
    student = sak.Student.from_pretrained(trained / "student").eval()
    images = torch.rand(1, 3, 96, 96)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student(images)
        student(1.2 * images - 0.1)  # an interpolation overshoots
        student.train()(255 * images)  # training has images of ours
        student.eval()
    with pytest.warns(UserWarning, match=r"values from .* to 25\d, but wants RGB in \[0, 1\]") as told:
        [student(255 * images) for _ in range(2)]
    assert len(told) == 1
    assert "\n" not in str(told[0].message)
    with pytest.warns(UserWarning, match="do not normalise"):
        sak.Predictor(sak.Student.from_pretrained(trained / "student"))(noise(96, 96) / 127.5 - 1)


@pytest.mark.parametrize("fast", [True, False])
def test_in_bf16_where_it_is_wished_or_faster(trained, monkeypatch, fast):
    monkeypatch.setattr("sak.deploy.predictor.bf16_is_fast", lambda device: fast)
    picture = noise(96, 96)
    exact, rounded, chosen = (
        sak.Predictor(trained, precision=how)(picture)["normals"] for how in ("fp32", "bf16", "auto")
    )
    assert rounded.dtype == np.float32
    assert 0 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 0.05
    assert np.array_equal(chosen, rounded if fast else exact)


def test_wrong_names_are_told(trained):
    with pytest.raises(UserError, match="one of fp32, bf16, auto, not in 'fp8'"):
        sak.Predictor(trained, precision="fp8")
    for options, message in (
        ({"tasks": ["depth"]}, "no task 'depth'; it has: semseg"),
        ({"without": ["sam"]}, "unknown source 'sam'"),
        ({"device": "abacus"}, "abacus"),
    ):
        with pytest.raises(UserError, match=message):
            sak.Predictor(trained, **options)


def test_loading_imports_no_teacher(trained):
    code = (
        "import sys, sak; sak.Predictor(sys.argv[1]); sak.Student.from_pretrained(sys.argv[1] + '/student');"
        "print([name for name in ('teachers', 'open_clip', 'segment_anything', 'mmseg') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(trained)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# --- what places stand for --------------------------------------------------------------------------------------------


def test_names_of_results(tmp_path):
    for name in ("a/x.jpg", "a/b/x.png", "a/y.jpg", "a/y.png", "a/z.jpg", "c/z.jpg", "a/note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8 + (name == "a/x.jpg"))).save(tmp_path / name, "PNG")
    shots, notes = find_shots([str(tmp_path / "a")])
    assert [shot.name for shot in shots] == ["b/x", "y_jpg", "y_png", "z", "x"]  # of one size together
    assert len(notes) == 1
    assert ".txt" in notes[0]
    assert len(find_shots([str(tmp_path / "a/x.jpg"), str(tmp_path / "*" / "x.jpg")])[0]) == 1
    with pytest.raises(UserError, match=r"would have results of one name \(z_jpg\)"):
        find_shots([str(tmp_path / "a"), str(tmp_path / "c")])


def test_knocking_out_keeps_all_else(trained):
    """Of a page whose visitors choose: precision, tasks and size stay, and the first predictor stays as it is."""
    picture = noise(40, 56)
    how = {"tasks": ["edge"], "longest_edge": 24, "precision": "bf16"}
    whole = sak.Predictor(trained, **how)
    other = whole.knocking_out(["dinov2"])
    expected = sak.Predictor(trained, without=["dinov2"], **how)(picture)
    assert (other.precision, other.longest_edge, list(other.tasks)) == ("bf16", 24, ["edge"])
    assert other.student is whole.student
    np.testing.assert_array_equal(other(picture)["edge"], expected["edge"])
    assert whole.without == ()
    for sources, problem in ((["sam"], "unknown source 'sam'"), (whole.student.sources, "leaves none|none left|all")):
        with pytest.raises(UserError, match=problem):
            whole.knocking_out(sources)
