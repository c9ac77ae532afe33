"""Makes the small models of the folder made/ and what ONNX Runtime answers to them.

    python3 make.py

For each case NAME.onnx, and NAME.f32: the rows that are fed, then the second input where there is one, then the answers,
raw little-endian f32. Rows of whole numbers are INT64 when they are fed, each "whole_from" more. models.json says the shapes, how far an answer may be off, and which operators are left to tract ("whole": all). Run it on a CPU with a
dot product (AVX-VNNI, AVX-512-VNNI, or ARM's): on older ones ONNX Runtime's sums of u8 x s8 products saturate.
"""

import json
import pathlib
import zlib

import numpy as np
import onnx
import onnxruntime as ort

from build import Graph
from cases import CASES

MADE = pathlib.Path(__file__).parent / "made"
BATCH = 3


def answers(model, rows, more, name):
    """Rows of a dynamically quantized model are asked one by one: each has a range of its own. Optimised, ONNX
    Runtime's sums wrap where a bias takes them beyond i32, and a pool divides by the whole of a window that reaches
    beyond the padding; as it is written, the graph saturates, and divides by what lies in the padding."""
    is_dynamic = name.startswith("dynamic")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if name.startswith("far_bias") or "as_written" in name:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    parts = [rows[i : i + 1] for i in range(BATCH)] if is_dynamic else [rows]
    return np.concatenate([session.run(["output"], {"input": part, **more})[0] for part in parts])


def main():
    MADE.mkdir(exist_ok=True)
    table = {}
    for name, (make, opset, arguments) in sorted(CASES.items()):
        graph = Graph(zlib.crc32(name.encode()), opset)  # another case changes no other's numbers
        shape, output, steps, left = make(graph, **arguments)
        model = graph.model(shape, output)
        if graph.whole_from is None:
            rows = fed = graph.random.uniform(-2.5, 2.5, (BATCH, *shape)).astype(np.float32)
        else:
            rows = graph.random.integers(0, 20, (BATCH, *shape))
            fed = rows + graph.whole_from
        more = {"more": graph.floats(*graph.more)} if graph.more else {}
        got = answers(model, fed, more, name).astype(np.float32)
        onnx.save(model, MADE / f"{name}.onnx")
        values = [rows, *more.values(), got]
        (MADE / f"{name}.f32").write_bytes(b"".join(part.astype("<f4").tobytes() for part in values))
        tract = "whole" if left is None else left
        table[name] = {"input": [BATCH, *shape], "output": list(got.shape), "step": steps, "tract": tract}
        if graph.more:
            table[name]["more"] = list(graph.more)
        if graph.whole_from is not None:
            table[name]["whole_from"] = graph.whole_from
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in table.items())
    (MADE / "models.json").write_text("{\n" + rows + "\n}\n")
    print(len(table), "models")


if __name__ == "__main__":
    main()
