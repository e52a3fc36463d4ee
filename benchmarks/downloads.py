"""How much do concurrent downloads save? Many small pictures from a server with 50 ms latency, side by side.

    python benchmarks/downloads.py [--images 2000] [--alone 200] [--latency 0.05] [--threads 8]

The server is a process of its own on loopback that waits before each answer. Both ways do all that a download is:
request, size, full decode, atomic write. One after the other would take minutes, so that part fetches only `--alone`
pictures and its time per picture is compared.
"""

import io
import multiprocessing
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click
import numpy as np
from PIL import Image

from tdsp_vision.data.sources import THREADS, fetch
from tdsp_vision.data.web import Client

SIDE, VARIANTS = 64, 16  # pixels; different pictures


@click.command()
@click.option("--images", default=2000)
@click.option("--alone", default=200, help="pictures of the run without concurrency")
@click.option("--latency", default=0.05, help="seconds before each answer")
@click.option("--threads", default=THREADS)
def main(images: int, alone: int, latency: float, threads: int) -> None:
    """Print both times per picture and their ratio."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, latency), daemon=True)
    server.start()
    port, sizes = ours.recv()
    try:
        with tempfile.TemporaryDirectory() as folder:
            one = seconds_each(Path(folder, "one"), port, sizes, alone, threads=1)
            many = seconds_each(Path(folder, "many"), port, sizes, images, threads)
    finally:
        server.kill()
    print(f"pictures of {SIDE} px, {np.mean(sizes) / 1000:.1f} kB, server latency {latency * 1000:.0f} ms")
    print(f"one after the other: {one * 1000:6.1f} ms a picture ({alone} fetched), {one * images:6.1f} s for {images}")
    print(f"{threads} threads:           {many * 1000:6.1f} ms a picture, {many * images:6.1f} s for {images}")
    print(f"ratio: {one / many:.1f}")


def seconds_each(folder: Path, port: int, sizes: list[int], count: int, threads: int) -> float:
    """Wall-clock seconds per picture."""
    urls = [f"http://127.0.0.1:{port}/{i}" for i in range(count)]
    candidates = [(f"p{i}", {"url": url, "archive_bytes": sizes[i % VARIANTS]}) for i, url in enumerate(urls)]
    start = time.perf_counter()
    lost = fetch(folder, {"any": candidates}, Client(), threads=threads)
    seconds = time.perf_counter() - start
    assert not lost, lost
    return seconds / count


def serve(pipe, latency: float) -> None:
    """Answer `/<number>` with one of the pictures; tell port and sizes through the pipe."""
    pictures = [picture(seed) for seed in range(VARIANTS)]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_):
            """Quiet."""

        def do_GET(self):
            time.sleep(latency)
            body = pictures[int(self.path[1:]) % VARIANTS]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send((server.server_port, [len(body) for body in pictures]))
    server.serve_forever()


def picture(seed: int) -> bytes:
    """A JPEG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG")
    return content.getvalue()


if __name__ == "__main__":
    main()
