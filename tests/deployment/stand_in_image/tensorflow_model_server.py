"""Stands in for TensorFlow Serving's binary: takes its flags, refuses any that it does not have, serves the same REST.

Behind it is the embedded server. Batching and monitoring are read, and not what TensorFlow Serving makes of them.
"""

import sys
from pathlib import Path

from tdsp_vision.deployment import server

# From `main.cc` of TensorFlow Serving; only those that this project passes.
FLAGS = {"port", "enable_profiler", "enable_grpc_healthcheck_service"}
FLAGS |= {f"rest_api_{name}" for name in ("port", "timeout_in_ms", "num_threads")} | {"grpc_max_threads"}
FLAGS |= {"model_config_file", "model_config_file_poll_wait_seconds", "file_system_poll_wait_seconds"}
FLAGS |= {"max_num_load_retries", "tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism"}
FLAGS |= {"enable_batching", "batching_parameters_file", "monitoring_config_file"}


def main(arguments: list[str]) -> None:
    """Check the flags and the files that they name, then serve."""
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    if unknown := set(flags) - FLAGS:
        sys.exit(f"unknown argument: {', '.join(sorted(unknown))}")
    for name in ("batching_parameters_file", "monitoring_config_file"):
        Path(flags[name]).read_text(encoding="utf-8")
    server.serve.callback(Path(flags["model_config_file"]), int(flags["rest_api_port"]), None, host="0.0.0.0")


if __name__ == "__main__":
    main(sys.argv[1:])
