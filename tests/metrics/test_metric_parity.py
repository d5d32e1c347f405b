"""The metrics equal those of the published code on its own outputs."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sak.metrics.angular_error import AngularError
from sak.metrics.max_f import MaxF
from sak.metrics.miou import MeanIoU
from sak.metrics.rmse import DepthRMSE

PARITY = Path(__file__).parents[1] / "fixtures/parity"


@pytest.fixture(params=["pascal_a", "nyud_a"])
def case(request):
    expected = json.loads((PARITY / f"{request.param}.json").read_text())["metrics"]
    return expected, load_file(PARITY / f"{request.param}.safetensors")


def test_parity(case):
    expected, tensors = case
    for task, values in expected.items():
        output, label = (tensors[f"{kind}/{task}"].double() for kind in ("output/task", "label"))
        if task in ("semseg", "human_parts"):
            metric = MeanIoU(output.shape[1])
            metric.update(output.argmax(1), label[:, 0])
            assert float(metric.compute()) == pytest.approx(values["mIoU"], rel=1e-9)
        elif task == "sal":
            metric = MaxF()
            metric.update(output.softmax(1)[:, 1], label[:, 0])
            result = metric.compute()
            assert float(result["max_f"]) == pytest.approx(values["maxF"], rel=1e-6)
            assert float(result["miou"]) == pytest.approx(values["mIoU"], rel=1e-6)
        elif task == "normals":
            metric = AngularError()
            metric.update(output, label)
            assert float(metric.compute()) == pytest.approx(values["mErr"], rel=1e-6)
        elif task == "depth":
            metric = DepthRMSE()
            metric.update(output, label)
            assert float(metric.compute()) == pytest.approx(values["RMSE"], rel=1e-6)
