"""Makes the models of `cargo xtask bench int8`: nothing of it is committed.

    python3 make.py FOLDER [--nets mlp,conv1d] [--all]

FOLDER gets NET.VARIANT.onnx, NET.input.f32 (rows of raw little-endian f32), for each variant NET.VARIANT.f32 with
what ONNX Runtime answers to these rows (and all of it as NET.VARIANT.npz), and models.json, which describes them, and
says how far from these answers the benchmark lets ours be. Without --all only f32 and int8 are made, which are what it
times; the answers of all that are there are compared.
"""

import argparse
import json
import logging
import pathlib

import numpy as np
import onnx
import onnxruntime as ort

import data
import nets
import variants

ROWS = 4
CALIBRATION = 16
BUILD_SEED, CALIBRATION_SEED, ROWS_SEED = 11, 12, 13


def answers(model, rows):
    """ONNX Runtime's outputs: as it optimises by default, and with the graph run node by node. On a CPU without a dot
    product of bytes its sums of bytes saturate unless it is told to be exact, which is slower: for the answers only."""
    made = []
    for level in (ort.GraphOptimizationLevel.ORT_ENABLE_ALL, ort.GraphOptimizationLevel.ORT_DISABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.x64quantprecision", "1")
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        made.append(np.concatenate([session.run(None, {"input": row[None]})[0] for row in rows]))
    return made


def step(model, values):
    """By how much one unit of the last quantization changes an answer; of f32, what another order of sums does."""
    last = next(node for node in model.graph.node if "output" in node.output)
    scales = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    if last.op_type == "DequantizeLinear":
        return float(scales[last.input[1]])
    return 1e-5 * float(np.abs(values).max())


def write(folder, name, model, rows):
    """One variant and what it answers; returns its line in models.json."""
    (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    optimised, plain = answers(model, rows)
    np.savez(folder / f"{name}.npz", input=rows, output=optimised, output_plain=plain)
    optimised.astype("<f4").tofile(folder / f"{name}.f32")
    # Where it rounds (a sum of two tensors, a layer that it leaves in f32) isn't fixed by the operators; how far that leads,
    # its own two ways of running the graph show.
    allowed = float(np.abs(optimised - plain).max()) + step(model, optimised)
    return {"file": f"{name}.onnx", "bytes": (folder / f"{name}.onnx").stat().st_size, "allowed": allowed}


def make(folder, net, all_variants):
    build, kind = nets.NETS[net]
    seed = int.from_bytes(net.encode(), "little") % 2**31
    builder = nets.Builder(net, data.batch(kind, BUILD_SEED, 8), seed)
    f32 = builder.model(build(builder))
    calibration, rows = data.batch(kind, CALIBRATION_SEED, CALIBRATION), data.batch(kind, ROWS_SEED, ROWS)
    rows.astype("<f4").tofile(folder / f"{net}.input.f32")
    made = {"f32": write(folder, f"{net}.f32", f32, rows)}
    for variant in variants.STATIC if all_variants else [variants.MEASURED]:
        made[variant] = write(folder, f"{net}.{variant}", variants.static(f32, variant, calibration), rows)
    if all_variants:
        made["dynamic"] = write(folder, f"{net}.dynamic", variants.dynamic(f32), rows)
        made["f16"] = write(folder, f"{net}.f16", variants.half(f32), rows)
    return {
        "input": "input", "input_shape": [1, *rows.shape[1:]], "output": "output",
        "output_shape": [1, *builder.values["output"].shape[1:]],
        "rows": ROWS, "rows_file": f"{net}.input.f32", "macs": builder.macs, "parameters": builder.parameters,
        "variants": made,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--nets", default=",".join(nets.NETS))
    parser.add_argument("--all", action="store_true", help="also the variants that are only compared")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # the quantizer advises steps that these graphs don't need
    args.folder.mkdir(parents=True, exist_ok=True)
    index = args.folder / "models.json"
    listed = json.loads(index.read_text()) if index.exists() else {}
    for net in args.nets.split(","):
        listed[net] = make(args.folder, net, args.all)
        print(net, f"{listed[net]['macs'] / 1e6:.1f} M MAC,", f"{listed[net]['parameters'] / 1e6:.2f} M parameters,", ", ".join(listed[net]["variants"]), flush=True)
        partial = index.with_suffix(".partial")
        partial.write_text(json.dumps(listed, indent=1))
        partial.replace(index)


if __name__ == "__main__":
    main()
