"""The unmodified tritonclient[http] against a running agent that serves digits 1.0.0.

Usage: check.py HOST:PORT HELD_OUT.csv. `cargo xtask test --only client` runs it with the packages of requirements.txt.
"""

import csv
import sys

import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException


def images(path, count):
    with open(path, newline="") as file:
        rows = list(csv.reader(file))[1 : count + 1]
    pixels = np.array([row[1:] for row in rows], dtype=np.float32).reshape(-1, 1, 8, 8)
    return [row[0] for row in rows], pixels


def infer(client, pixels, binary_in, binary_out, **more):
    image = http.InferInput("image", list(pixels.shape), "FP32")
    image.set_data_from_numpy(pixels, binary_data=binary_in)
    outputs = [http.InferRequestedOutput("scores", binary_data=binary_out)]
    return client.infer("digits", [image], outputs=outputs, **more)


def refused(words, call):
    try:
        call()
    except InferenceServerException as error:
        assert words in error.message(), f"{words!r} is not in {error.message()!r}"
        return
    raise AssertionError(f"not refused, expected {words!r}")


def check_descriptions(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("digits") and client.is_model_ready("digits", "1.0.0")
    assert not client.is_model_ready("other") and not client.is_model_ready("digits", "9.9.9")
    server = client.get_server_metadata()
    assert server["name"] == "flotilla-agent" and "binary_tensor_data" in server["extensions"], server
    metadata = client.get_model_metadata("digits")
    assert metadata["versions"] == ["1.0.0"], metadata
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}], metadata
    config = client.get_model_config("digits", "1.0.0")
    assert config["max_batch_size"] == 256 and config["input"][0]["dims"] == [1, 8, 8], config
    index = client.get_model_repository_index()
    assert index == [{"name": "digits", "version": "1.0.0", "state": "READY", "reason": ""}], index
    client.load_model("digits")
    refused("decided by the fleet", lambda: client.unload_model("digits"))
    refused("decided by the fleet", lambda: client.load_model("other"))


def check_inference(client, labels, pixels):
    binary = infer(client, pixels, True, True).as_numpy("scores")
    assert binary.shape == (len(labels), 10) and binary.dtype == np.float32
    for binary_in, binary_out in [(True, False), (False, True), (False, False)]:
        other = infer(client, pixels, binary_in, binary_out).as_numpy("scores")
        assert np.array_equal(other, binary), f"binary in {binary_in}, out {binary_out}"
    right = np.mean(binary.argmax(axis=1) == np.array(labels, dtype=int))
    assert right > 0.9, f"{right} right"
    alone = infer(client, pixels[:1], True, True, request_id="mine", model_version="1.0.0")
    assert alone.get_response()["id"] == "mine"
    assert np.array_equal(alone.as_numpy("scores")[0], binary[0])
    image = http.InferInput("image", list(pixels.shape), "FP32")
    image.set_data_from_numpy(pixels)
    every = client.infer("digits", [image]).as_numpy("scores")
    assert np.array_equal(every, binary), "without naming outputs"
    wanted = [http.InferRequestedOutput("scores", class_count=3)]
    classes = client.infer("digits", [image], outputs=wanted).as_numpy("scores")
    assert classes.shape == (len(labels), 3), classes.shape
    assert [int(row[0].split(b":")[1]) for row in classes] == list(binary.argmax(axis=1))
    waiting = [client.async_infer("digits", [image]) for _ in range(8)]
    assert all(np.array_equal(one.get_result().as_numpy("scores"), binary) for one in waiting)


def check_refusals(client, pixels):
    wrong = np.zeros((1, 1, 9, 9), dtype=np.float32)
    refused("must have shape", lambda: infer(client, wrong, True, True))
    refused("is not served here", lambda: client.infer("other", []))
    refused("serves version 1.0.0", lambda: infer(client, pixels, True, True, model_version="2"))
    squeezed = {"request_compression_algorithm": "gzip"}
    refused("content encoding", lambda: infer(client, pixels, True, True, **squeezed))


def check_statistics(client):
    stats = client.get_inference_statistics("digits", "1.0.0")["model_stats"]
    assert len(stats) == 1 and stats[0]["name"] == "digits", stats
    assert stats[0]["inference_count"] > stats[0]["execution_count"] > 8, stats
    parts = stats[0]["inference_stats"]
    assert parts["success"]["count"] == parts["compute_infer"]["count"], parts
    assert parts["success"]["ns"] >= parts["compute_infer"]["ns"] > 0, parts
    assert client.get_inference_statistics()["model_stats"][0]["name"] == "digits"


def main():
    address, held_out = sys.argv[1:]
    labels, pixels = images(held_out, 100)
    with http.InferenceServerClient(address, concurrency=4) as client:
        check_descriptions(client)
        check_inference(client, labels, pixels)
        check_refusals(client, pixels)
        check_statistics(client)
    print("tritonclient: descriptions, inference in all forms, refusals and statistics are right")


main()
