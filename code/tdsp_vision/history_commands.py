"""Command line: `python -m tdsp_vision history`, MLflow's own page on the runs of all datasets.

Exit codes: 1 a run could not be logged; else MLflow's own.
"""

import os
import sys

import click

from tdsp_vision import paths


@click.command()
@click.option("--output-dir", default="outputs", show_default=True, help="OUTPUT_DIR of the notebooks.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port on this machine.")
@click.option("--log", "run_folder", metavar="FOLDER", help="Only add this finished run, OUTPUT_DIR/DATASET/runs/RUN.")
def history(output_dir: str, port: int, run_folder: str | None) -> None:
    """Open the run history in MLflow's page, on this machine only, until Ctrl-C."""
    from tdsp_vision.modeling.history import QUIET, artifact_folder, log_run, tracking_uri

    if run_folder:
        folder = paths.resolve(run_folder)
        if not (folder / "metrics.json").is_file():
            raise click.ClickException(f"{folder} is no run folder: it has no metrics.json.")
        said = log_run(paths.OutputPaths(str(folder.parents[2]), folder.parents[1].name), folder)
        click.echo(said)
        sys.exit(said.startswith("WARNING"))
    uri = tracking_uri(output_dir)
    if uri.startswith("http"):
        click.echo(f"the run history is at {uri}")
        return
    print(
        f"the run history is at http://127.0.0.1:{port} (choose 'Model training', top left); Ctrl-C ends it", flush=True
    )
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--no-serve-artifacts"]
    command += ["--default-artifact-root", artifact_folder(output_dir).as_uri()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # A page to look at needs no second process that waits for jobs. This process becomes the server: one to stop.
    os.execve(sys.executable, command, QUIET | os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
