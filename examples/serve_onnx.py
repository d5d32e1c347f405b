"""A student in ONNX behind HTTP, without torch: needs onnxruntime, numpy and pillow.

python examples/serve_onnx.py student.onnx 8000
curl --data-binary @photo.jpg localhost:8000/semseg > semseg.png
"""

import io
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
notes = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
patch, longest = notes["patch_size"], max(notes["image_size"])


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        task = notes["tasks"][self.path.strip("/")]
        image = Image.open(io.BytesIO(self.rfile.read(int(self.headers["Content-Length"]))))
        image = ImageOps.exif_transpose(image).convert("RGB")
        sides = [max(2, round(side * longest / max(image.size) / patch)) * patch for side in image.size]
        pixels = np.asarray(image.resize(sides), np.float32).transpose(2, 0, 1)[None] / 255
        (maps,) = session.run([self.path.strip("/")], {"images": pixels})
        labels = Image.fromarray(maps[0].argmax(0).astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
        labels.putpalette(np.array(task["colours"], np.uint8).tobytes())
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        labels.save(self.wfile, "PNG")


HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
