"""Runs one model under ONNX Runtime or OpenVINO for the benchmark, told by lines on standard input.

    python3 engine.py onnxruntime|openvino FOLDER NET VARIANT

FOLDER is what make.py made. `load` answers {"load_ms", "load_cpu_ms", "loaded_mib"}, `run N` runs once to warm the
caches and then
N times and answers {"ms": [..], "cpu_ms": [..]}, `repeat N` does the same without figures (for counting instructions),
`outputs` answers what the rows give, `about` names the version. One thread; the end of input ends it.
crates/inference/examples/bench-engine speaks the same for our runtime and tract.
"""

import json
import os
import pathlib
import sys
import time


class OnnxRuntime:
    def __init__(self):
        import onnxruntime

        self.ort, self.version = onnxruntime, onnxruntime.__version__

    def load(self, path):
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = self.ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def run(self, row):
        return self.session.run(None, {self.input: row})[0]


class OpenVino:
    def __init__(self):
        import openvino

        self.core, self.version = openvino.Core(), openvino.__version__

    def load(self, path):
        settings = {
            "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False,
        }
        self.request = self.core.compile_model(path, "CPU", settings).create_infer_request()

    def run(self, row):
        self.request.set_input_tensor(0, self._tensor(row))
        self.request.infer()
        return self.request.get_output_tensor(0).data

    def _tensor(self, row):
        import openvino

        return openvino.Tensor(row, shared_memory=True)


def pss_mib():
    with open("/proc/self/smaps_rollup") as rollup:
        for line in rollup:
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/smaps_rollup has no Pss")


class Commands:
    def __init__(self, engine, folder, net, variant):
        import numpy

        folder = pathlib.Path(folder)
        listed = json.loads((folder / "models.json").read_text())[net]
        self.engine, self.path = engine, folder / listed["variants"][variant]["file"]
        self.rows = list(numpy.fromfile(folder / listed["rows_file"], "<f4").reshape(-1, *listed["input_shape"]))

    def load(self):
        before, cpu, start = pss_mib(), time.process_time(), time.perf_counter()
        self.engine.load(str(self.path))
        load_ms, load_cpu_ms = (time.perf_counter() - start) * 1e3, (time.process_time() - cpu) * 1e3
        self.engine.run(self.rows[0])
        return {"load_ms": load_ms, "load_cpu_ms": load_cpu_ms, "loaded_mib": pss_mib() - before}

    def run(self, times):
        row, wall, cpu = self.rows[0], [], []
        self.engine.run(row)
        for _ in range(int(times)):
            cpu_start, start = time.process_time_ns(), time.perf_counter_ns()
            self.engine.run(row)
            end, cpu_end = time.perf_counter_ns(), time.process_time_ns()
            wall.append((end - start) / 1e6)
            cpu.append((cpu_end - cpu_start) / 1e6)
        return {"ms": wall, "cpu_ms": cpu}

    def repeat(self, times):
        for _ in range(int(times)):
            self.engine.run(self.rows[0])
        return {}

    def outputs(self):
        return {"outputs": [self.engine.run(row).reshape(-1).tolist() for row in self.rows]}

    def about(self):
        return {"version": self.engine.version, "pinned": sorted(os.sched_getaffinity(0))}


def main():
    name, folder, net, variant = sys.argv[1:5]
    commands = Commands({"onnxruntime": OnnxRuntime, "openvino": OpenVino}[name](), folder, net, variant)
    for line in sys.stdin:
        verb, *arguments = line.split()
        if verb not in ("load", "run", "repeat", "outputs", "about"):
            raise SystemExit(f"unknown command {verb!r}")
        sys.stdout.write(json.dumps(getattr(commands, verb)(*arguments)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
