"""Writes attributes.json: which attributes ONNX's operators and ONNX Runtime's own have, in any version of theirs.

    python3 attributes.py

For each operator (those of com.microsoft with that before their name) and each attribute its type, what stands for it
where it is left out, if something does, and the last version of the operator that has it.
"""

import json
import pathlib

import onnx
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema


def plain(value):
    return value.decode() if isinstance(value, bytes) else value


def default_of_runtime(attribute):
    made = onnx.AttributeProto()
    made.ParseFromString(attribute._default_value or b"")
    return onnx.helper.get_attribute_value(made) if made.type else None


def default(attribute):
    return onnx.helper.get_attribute_value(attribute.default_value) if attribute.default_value.type else None


def main():
    own = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain in ("", "ai.onnx.ml")]
    more = [s for s in get_all_operator_schema() if s.domain == "com.microsoft"]
    known = {}
    for schemas, value_of in ((own, default), (more, default_of_runtime)):
        for schema in sorted(schemas, key=lambda schema: schema.since_version):
            prefix = "com.microsoft." if schema.domain == "com.microsoft" else ""
            attributes = known.setdefault(prefix + schema.name, {})
            for name, attribute in schema.attributes.items():
                value = value_of(attribute)
                value = [plain(part) for part in value] if isinstance(value, list) else plain(value)
                kind = str(attribute.type).split(".")[-1]
                left_out = {} if value is None else {"default": value}
                attributes[name] = {"type": kind, **left_out, "until": schema.since_version}
    lines = [f"  {json.dumps(op)}: {json.dumps(known[op], sort_keys=True)}" for op in sorted(known) if known[op]]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    pathlib.Path(__file__).with_name("attributes.json").write_text(text)


if __name__ == "__main__":
    main()
