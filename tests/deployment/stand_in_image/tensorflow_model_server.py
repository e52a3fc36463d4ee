"""Stands in for TensorFlow Serving's binary: takes its flags, refuses any that it does not have, serves the same REST.

Behind it is the embedded server. Batching and monitoring are read, and not what TensorFlow Serving makes of them.
"""

import sys
from pathlib import Path

from tdsp_vision.deployment import server

# From `tensorflow_model_server --help`, release 2.20; only those that this project passes.
FLAGS = {
    "port",
    "rest_api_port",
    "model_name",
    "model_base_path",
    "max_num_load_retries",
    "file_system_poll_wait_seconds",
    "rest_api_timeout_in_ms",
    "enable_grpc_healthcheck_service",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
}


def main(arguments: list[str]) -> None:
    """Check the flags and the files that they name, then serve."""
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    if unknown := set(flags) - FLAGS:
        sys.exit(f"unknown argument: {', '.join(sorted(unknown))}")
    for name in ("batching_parameters_file", "monitoring_config_file"):
        Path(flags[name]).read_text(encoding="utf-8")
    sys.argv = ["tensorflow_model_server", "--host", "0.0.0.0", "--poll-seconds", "0"]
    sys.argv += ["--model-name", flags["model_name"], "--model-base-path", flags["model_base_path"]]
    sys.argv += ["--port", flags["rest_api_port"], "--grpc-port", flags["port"]]
    server.main()


if __name__ == "__main__":
    main(sys.argv[1:])
