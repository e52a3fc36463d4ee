"""What a container is built from, as a folder that a person can read and `docker build` takes as it is.

Out, below `outputs/<dataset>/deployment/services/<model>/v<version>/`: `Dockerfile`; `batching.config` and
`monitoring.config` (protocol buffers as text, TensorFlow Serving's own format); `model/<version>/`, the SavedModel with
warmup requests in `assets.extra/tf_serving_warmup_requests` (TFRecord of PredictionLog). The embedded server serves
the same folder.
Source: https://www.tensorflow.org/tfx/serving/serving_config, https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tdsp_vision import paths
from tdsp_vision.deployment.backends import SERVING_IMAGE, Backend, Release
from tdsp_vision.files import whole_folder

WARMUP = "assets.extra/tf_serving_warmup_requests"
MAX_WARMUP = 16  # TensorFlow Serving takes 1000; a few open every code path
USER = 10001  # any number but root's
DOCKERFILE = """\
# {model_name}, version {version}: TensorFlow Serving with the model inside.
#   docker build -t {model_name}:{version} . && docker run --rm --init -p 127.0.0.1:8501:8501 {model_name}:{version}
ARG SERVING_IMAGE={image}
FROM $SERVING_IMAGE

COPY batching.config monitoring.config /config/
COPY model /models/{model_name}

USER {user}:{user}
EXPOSE 8500 8501

# The image has no curl, but bash can speak HTTP. A server of any other model is not healthy.
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s CMD {check}

# The image's own entrypoint takes the name from its environment variable MODEL_NAME; this one names it.
ENTRYPOINT ["tensorflow_model_server"]
CMD [ \\
{flags} \\
]
"""
CHECK = (
    "exec 3<>/dev/tcp/127.0.0.1/8501 && printf 'GET /v1/models/{model_name} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' "
    ">&3 && grep -q '\"AVAILABLE\"' <&3"
)
FLAGS = [
    "--port=8500",
    "--rest_api_port=8501",
    "--model_name={model_name}",
    "--model_base_path=/models/{model_name}",
    "--max_num_load_retries=0",  # a model that does not load now never will
    "--file_system_poll_wait_seconds=0",  # no other version will appear in an image
    "--rest_api_timeout_in_ms=30000",
    "--enable_grpc_healthcheck_service=true",
    "--enable_batching=true",
    "--batching_parameters_file=/config/batching.config",
    "--monitoring_config_file=/config/monitoring.config",
]
BATCHING = """\
# Requests that arrive together are scored together; one that is alone never waits for others.
max_batch_size { value: 64 }
batch_timeout_micros { value: 0 }
num_batch_threads { value: 2 }
# More than this many waiting batches are refused, so that a flood costs answers and not memory.
max_enqueued_batches { value: 100 }
"""
MONITORING = """\
prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
"""


def write_build_context(release: Release, version_folder: Path, warmup: Sequence[Path] | Path = ()) -> None:
    """Write `release.context`; it appears whole or not at all.

    Args:
        release: what is to be served.
        version_folder: the exported version.
        warmup: image files that a server scores before it counts as loaded, the first 16 of them; or a file of warmup
            requests from an earlier version of the same model.

    Raises:
        FileExistsError: if the context is already there.
        FileNotFoundError: if a file is missing.
    """
    name = release.model_name
    with whole_folder(release.context) as draft:
        model = draft / "model" / str(release.version)
        shutil.copytree(version_folder, model)
        (model / WARMUP).parent.mkdir(exist_ok=True)
        if isinstance(warmup, Path):
            shutil.copyfile(warmup, model / WARMUP)
        elif warmup:
            write_warmup(model / WARMUP, name, [path.read_bytes() for path in warmup[:MAX_WARMUP]])
        (draft / "Dockerfile").write_text(_dockerfile(release), encoding="utf-8")
        (draft / "batching.config").write_text(BATCHING, encoding="utf-8")
        (draft / "monitoring.config").write_text(MONITORING, encoding="utf-8")
        for path in draft.rglob("*"):  # the server is another user than the one who builds
            path.chmod(0o755 if path.is_dir() else 0o644)


def prepare(backend: Backend, release: Release, version_folder: Path, warmup: Sequence[Path] | Path = ()) -> str:
    """Write a release's build context, unless it is there, and build it; what the result is called."""
    if not release.context.exists():
        write_build_context(release, version_folder, warmup)
    return backend.build(release)


def version_number(version_folder: Path) -> int:
    """Number of an exported version.

    Raises:
        FileNotFoundError: if it is none.
    """
    if not (version_folder.name.isdigit() and (version_folder / "saved_model.pb").is_file()):
        raise FileNotFoundError(f"{paths.shown(version_folder)} is no exported version; export a model first.")
    return int(version_folder.name)


def write_warmup(file: Path, model_name: str, images: Sequence[bytes]) -> None:
    """Write one prediction per encoded image as TFRecord of PredictionLog; any version of the model can take them."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    with tf.io.TFRecordWriter(str(file)) as writer:
        for encoded in images:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = "serving_default"
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([encoded], shape=[1]))
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def _dockerfile(release: Release) -> str:
    """The Dockerfile; a model's name holds nothing that needs quoting."""
    name = release.model_name
    flags = ", \\\n".join(f'  "{flag.format(model_name=name)}"' for flag in FLAGS)
    check = json.dumps(["bash", "-c", CHECK.format(model_name=name)])
    values = {"model_name": name, "version": release.version, "user": USER, "check": check, "flags": flags}
    return DOCKERFILE.format(image=SERVING_IMAGE, **values)
