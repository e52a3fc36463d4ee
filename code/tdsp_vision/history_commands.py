"""Command line: `python -m tdsp_vision history`, MLflow's own page on the runs of all datasets.

Exit codes: 1 no history yet, or the port is taken; else MLflow's own.
"""

import os
import socket
import sys

import click

# A page to look at needs no second process that waits for jobs.
_NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@click.command()
@click.option("--output-dir", default="outputs", show_default=True, help="OUTPUT_DIR of the notebooks.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port on this machine.")
def history(output_dir: str, port: int) -> None:
    """Show the run history in MLflow's page, on this machine only, until Ctrl-C."""
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
    # This process becomes the server, so there is one thing to stop.
    os.execve(sys.executable, command, {**QUIET, **os.environ, **_NO_JOBS})
