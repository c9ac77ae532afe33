"""Ask a model on this device for predictions, and tell it the truth afterwards.

Needs nothing but Python: `python3 ask.py ../digits/data/held_out.csv`. The agent must serve `digits`.
Over the unix socket (key `serve.unix`): `python3 ask.py --unix /run/flotilla/api.sock ../digits/data/held_out.csv`.
"""

import argparse
import csv
import http.client
import json
import socket
import struct


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def post(connection, path, body, headers):
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    content = response.read()
    if response.status == 503:
        raise SystemExit(f"overloaded, try again in {response.headers['Retry-After']} s")
    if response.status != 200:
        raise SystemExit(f"refused: {json.loads(content)['error']}")
    return response.headers, content


def infer(connection, pixels):
    """Sends the image and gets the scores in the protocol's binary form: no number is written as text."""
    data = struct.pack(f"<{len(pixels)}f", *pixels)
    request = {
        "inputs": [
            {
                "name": "image",
                "datatype": "FP32",
                "shape": [1, 1, 8, 8],
                "parameters": {"binary_data_size": len(data)},
            }
        ],
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(request).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    headers, content = post(connection, "/v2/models/digits/infer", head + data, length)
    head = int(headers["Inference-Header-Content-Length"])
    answer = json.loads(content[:head])
    return answer["id"], struct.unpack("<10f", content[head:])


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("images", help="CSV with a head: the true label, then 64 pixels of 0 to 16")
    args.add_argument("--address", default="127.0.0.1:8500")
    args.add_argument("--unix", help="path of the agent's unix socket")
    args = args.parse_args()
    connection = UnixConnection(args.unix) if args.unix else http.client.HTTPConnection(args.address)
    right = total = 0
    with open(args.images, newline="") as file:
        for row in list(csv.reader(file))[1:101]:
            inference, scores = infer(connection, [float(pixel) for pixel in row[1:]])
            best = scores.index(max(scores))
            right, total = right + (str(best) == row[0]), total + 1
            label = json.dumps({"id": inference, "label": row[0]})
            post(connection, "/v2/models/digits/feedback", label, {"Content-Type": "application/json"})
    print(f"{right} of {total} right")


main()
