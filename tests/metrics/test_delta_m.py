import pytest

from sak import tasks
from sak.errors import UserError
from sak.metrics.delta_m import delta_m

# SAK, Tables 1 and 2: single-task baselines and SAK, both ViT-B.
PASCAL = ("semseg", "human_parts", "saliency", "normals", "edge")
HEADLINES = tasks.headlines(tasks.TASKS)
NYUD = ("semseg", "depth", "normals", "edge")


def table(names, values):
    return {task: {HEADLINES[task][0]: value} for task, value in zip(names, values, strict=True)}


@pytest.mark.parametrize(
    ("names", "baseline", "results", "published"),
    [
        (PASCAL, (80.25, 70.54, 84.54, 13.57, 74.22), (81.88, 74.30, 84.79, 14.02, 74.09), 0.83),
        (PASCAL, (80.25, 70.54, 84.54, 13.57, 74.22), (76.76, 65.26, 84.39, 13.98, 70.37), -4.04),
        (NYUD, (51.15, 0.5792, 19.77, 77.35), (59.93, 0.4942, 17.60, 78.60), 11.11),
    ],
)
def test_published_figures(names, baseline, results, published):
    assert delta_m(table(names, results), table(names, baseline), HEADLINES) == pytest.approx(published, abs=0.01)


def test_other_metrics_and_further_baselines_do_not_count():
    results = {"saliency": {"max_f": 50.0, "miou": 1.0}}
    baseline = {"saliency": {"max_f": 40.0, "miou": 99.0}, "edge": {"ods_f": 70.0}}
    assert delta_m(results, baseline, HEADLINES) == pytest.approx(25)


@pytest.mark.parametrize(
    ("results", "baseline", "message"),
    [
        ({}, {}, "no results"),
        ({"flow": {"epe": 1.0}}, {"flow": {"epe": 1.0}}, "'flow'.*known are semseg"),
        ({"edge": {"ap": 1.0}}, {"edge": {"ods_f": 1.0}}, r"results lack edge\.ods_f"),
        ({"edge": {"ods_f": 1.0}}, {}, r"baseline lacks edge\.ods_f"),
        ({"edge": {"ods_f": 1.0}}, {"edge": {"ods_f": 0.0}}, r"edge\.ods_f is 0"),
    ],
)
def test_what_cannot_be_compared(results, baseline, message):
    with pytest.raises(UserError, match=message):
        delta_m(results, baseline, HEADLINES)
