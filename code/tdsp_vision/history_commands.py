"""Command line: `python -m tdsp_vision history`, MLflow's own page on the runs of all datasets.

Exit codes: 1 no history yet, or the port is taken; else MLflow's own.
"""

import os
import socket
import sys
import time

import click

# A page to look at needs no second process that waits for jobs.
_NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
_STARTS = 60  # seconds that the server may take to answer


@click.command()
@click.option("--output-dir", default="outputs", show_default=True, help="OUTPUT_DIR of the notebooks.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port on this machine.")
def history(output_dir: str, port: int) -> None:
    """Open the run history in MLflow's page, on this machine only, until Ctrl-C."""
    from tdsp_vision.modeling.run_history import QUIET, artifact_folder, sqlite_file, tracking_uri
    from tdsp_vision.paths import shown

    uri = tracking_uri(output_dir)
    if uri.startswith("http"):
        click.echo(f"the run history is at {uri}")
        return
    file = sqlite_file(uri)
    if file and not file.exists():
        raise click.ClickException(f"There is no run history at {shown(file)}; run the modeling notebook first.")
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        raise click.ClickException(f"Port {port} is in use already; name another with --port.") from None
    click.echo(f"the run history is at http://127.0.0.1:{port} (choose 'Model training', top left); Ctrl-C ends it")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--no-serve-artifacts"]
    command += ["--default-artifact-root", artifact_folder(output_dir).as_uri()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    if _has_browser() and os.fork() == 0:
        open_page(port)
        os._exit(0)
    # This process becomes the server, so there is one thing to stop.
    os.execve(sys.executable, command, {**QUIET, **os.environ, **_NO_JOBS})


def _has_browser() -> bool:
    """Whether a person sits before a screen; without one the printed address has to do."""
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.stdout.isatty() and bool(screen)


def open_page(port: int, seconds: float = _STARTS) -> bool:
    """Open the page in the browser as soon as something listens on `port`; whether it did so within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
            continue
        click.launch(f"http://127.0.0.1:{port}")
        return True
    return False
