"""An OpenAI-compatible endpoint that sees pictures: a real HTTP server, which can be busy, broken or slow."""

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

SHORT = "In five words."


class Server(ThreadingHTTPServer):
    """Answers with the brightness of the first picture; fails first as told."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures, self.requests, self.keys = [], [], []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.hold_s = 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.requests.append(request)
            server.keys.append(self.headers.get("authorization"))
            failure = server.failures.pop(0) if server.failures else None
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        time.sleep(server.hold_s)
        with server.lock:
            server.at_once -= 1
        if failure == "cut":
            self.connection.close()
            return
        picture = picture_of(request["messages"][0]["content"][0])
        text = f"The video shows a wall of brightness {round(float(np.asarray(picture).mean()), -1):g}."
        if request["messages"][0]["content"][-1]["text"] == SHORT:
            text = "A wall."
        body = json.dumps(
            {"choices": [{"message": {"content": text}}]} if failure is None else {"error": "no"}
        ).encode()
        self.send_response(failure or 200)
        if failure == 429:
            self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def picture_of(part):
    """The picture in a part of a message."""
    return Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2])))
