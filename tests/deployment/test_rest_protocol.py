"""The embedded server over HTTP: a table of requests, good and bad, and that it goes on answering after each."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from tiny_run import MODEL, PREDICT, b64, json_body, send

B64 = {"b64": "bm90IGFuIGltYWdl"}  # "not an image"
INVALID = {"label": "", "scores": [0.0, 0.0], "valid": False}
PICTURE = np.full([32, 32, 3], 127.0).tolist()
EXAMPLES = {"signature_name": "classify", "examples": [{"image_bytes": B64}]}


# name: (method, path, body, status, pattern that the body must contain)
TABLE = {
    "status": ("GET", MODEL, None, 200, '"version":"1","state":"AVAILABLE","status":{"error_code":"OK"'),
    "status of a version": ("GET", f"{MODEL}/versions/1", None, 200, '"state":"AVAILABLE"'),
    "status, any case": ("GET", "/V1/models/tiny", None, 400, "Malformed request: GET /V1/models/tiny"),
    "status of a missing version": (
        "GET",
        f"{MODEL}/versions/7",
        None,
        404,
        "Could not find version 7 of model tiny",
    ),
    "status of a missing model": (
        "GET",
        "/v1/models/nope",
        None,
        404,
        "Could not find any versions of model nope",
    ),
    "status of an encoded name": ("GET", "/v1/models/%74iny", None, 200, "AVAILABLE"),
    "status without a model": ("GET", "/v1/models", None, 400, "Missing model name in request."),
    "status of an unknown label": (
        "GET",
        f"{MODEL}/labels/stable",
        None,
        400,
        "Unrecognized servable version label: stable",
    ),
    "version beyond 64 bits": (
        "GET",
        f"{MODEL}/versions/99999999999999999999",
        None,
        400,
        "Failed to convert version",
    ),
    "version with a word": ("GET", f"{MODEL}/versions/one", None, 400, "Malformed request: GET"),
    "metadata": ("GET", f"{MODEL}/metadata", None, 200, '"image_bytes":{.*"dtype":"DT_STRING"'),
    "metadata of a version": ("GET", f"{MODEL}/versions/1/metadata", None, 200, '"method_name":"tensorflow'),
    "metadata of a missing version": (
        "GET",
        f"{MODEL}/versions/2/metadata",
        None,
        404,
        r"Servable not found for request: Specific\(tiny, 2\)",
    ),
    "metadata of a missing model": (
        "GET",
        "/v1/models/x/metadata",
        None,
        404,
        r"Servable not found for request: Latest\(x\)",
    ),
    "outside the API": ("GET", "/", None, 404, "<h1>404 Not Found</h1>"),
    "health": ("GET", "/health", None, 200, '{"serving":true}'),
    "monitoring": (
        "GET",
        "/monitoring/prometheus/metrics",
        None,
        200,
        r'http_requests_total{code="200"} \d+\n(?s:.)*http_request_duration_seconds_count \d+\n',
    ),
    "predict by GET": ("GET", PREDICT, None, 400, "Malformed request: GET /v1/models/tiny:predict"),
    "status by POST": ("POST", MODEL, json_body({}), 400, "Malformed request: POST /v1/models/tiny"),
    "PUT": ("PUT", PREDICT, b"{}", 400, "Malformed request: PUT"),
    "DELETE": ("DELETE", MODEL, None, 400, "Malformed request: DELETE"),
    "PATCH": ("PATCH", PREDICT, b"{}", 501, "<h1>501 Not Implemented</h1>"),
    "unknown call": (
        "POST",
        f"{MODEL}:explain",
        b"{}",
        400,
        "Malformed request: POST /v1/models/tiny:explain",
    ),
    "a query": ("POST", f"{PREDICT}?a=1", b"{}", 400, r"Malformed request: POST .*:predict\?a=1"),
    "a path below": ("GET", f"{MODEL}/versions/1/files/../..", None, 400, "Malformed request"),
    "predict, missing model": (
        "POST",
        "/v1/models/nope:predict",
        json_body({"instances": [B64]}),
        404,
        r"Servable not found for request: Latest\(nope\)",
    ),
    "predict, missing version": (
        "POST",
        f"{MODEL}/versions/5:predict",
        json_body({"instances": [B64]}),
        404,
        r"Specific\(tiny, 5\)",
    ),
    "no body": ("POST", PREDICT, b"", 400, "JSON Parse error: The document is empty"),
    "not JSON": ("POST", PREDICT, b"{instances: [1]}", 400, "JSON Parse error: .* at offset:"),
    "cut JSON": ("POST", PREDICT, b'{"instances": [', 400, "JSON Parse error"),
    "NaN": ("POST", PREDICT, b'{"instances": [NaN]}', 400, "JSON Parse error"),
    "not UTF-8": ("POST", PREDICT, b'{"instances": ["\xff\xfe"]}', 400, "JSON Parse error"),
    "deep JSON": ("POST", PREDICT, b"[" * 100_000, 400, "JSON Parse error"),
    "not an object": ("POST", PREDICT, json_body([1, 2]), 400, "JSON Value: array Is not object"),
    "null": ("POST", PREDICT, b"null", 400, "JSON Value: null Is not object"),
    "both keys": (
        "POST",
        PREDICT,
        json_body({"instances": [B64], "inputs": [B64]}),
        400,
        "only one of 'inputs' or 'instances'",
    ),
    "neither key": ("POST", PREDICT, json_body({"x": 1}), 400, "Missing 'inputs' or 'instances' key"),
    "instances no list": ("POST", PREDICT, json_body({"instances": B64}), 400, "to be an list/array"),
    "empty batch, rows": ("POST", PREDICT, json_body({"instances": []}), 400, "No values in 'instances'"),
    "empty batch, columns": ("POST", PREDICT, json_body({"inputs": []}), 400, "empty batch"),
    "unknown signature": (
        "POST",
        PREDICT,
        json_body({"signature_name": "nope", "instances": [B64]}),
        400,
        r'Serving signature name: \\"nope\\" not found in signature def',
    ),
    "signature no string": (
        "POST",
        PREDICT,
        json_body({"signature_name": 3, "instances": [B64]}),
        400,
        "'signature_name' key must be a string value",
    ),
    "wrong input name": ("POST", PREDICT, json_body({"instances": [{"image": B64}]}), 400, "image_bytes"),
    "wrong input name, columns": (
        "POST",
        PREDICT,
        json_body({"inputs": {"image": [B64]}}),
        400,
        "Missing named input: image_bytes",
    ),
    "values and objects": (
        "POST",
        PREDICT,
        json_body({"instances": [B64, {"image_bytes": B64}]}),
        400,
        "Expecting value/list but got object at item 1",
    ),
    "objects and values": (
        "POST",
        PREDICT,
        json_body({"instances": [{"image_bytes": B64}, B64]}),
        400,
        "Expecting object but got value/list at item 1",
    ),
    "a number for bytes": (
        "POST",
        PREDICT,
        json_body({"instances": [7]}),
        400,
        "JSON Value: 7 is not of expected type: string",
    ),
    "null for bytes": ("POST", PREDICT, json_body({"instances": [None]}), 400, "expected type: string"),
    "bad base64": (
        "POST",
        PREDICT,
        json_body({"instances": [{"b64": "a"}]}),
        400,
        "Unable to base64 decode",
    ),
    "bad base64 letters": ("POST", PREDICT, json_body({"instances": [{"b64": "a*b!"}]}), 400, "base64"),
    "base64 no string": (
        "POST",
        PREDICT,
        json_body({"inputs": {"image_bytes": [{"b64": 5}]}}),
        400,
        "not formatted correctly for base64 data",
    ),
    "bytes too deep": ("POST", PREDICT, json_body({"inputs": [[B64]]}), 400, "expected type: string"),
    "one value for a batch": ("POST", PREDICT, json_body({"inputs": B64}), 400, r"shape \[\], expected \[-1\]"),
    "pictures of a wrong size": (
        "POST",
        PREDICT,
        json_body({"signature_name": "float_images", "instances": [[[[1, 2, 3]]]]}),
        400,
        r"shape \[1, 1, 1, 3\], expected \[-1, 32, 32, 3\]",
    ),
    "ragged pictures": (
        "POST",
        PREDICT,
        json_body({"signature_name": "float_images", "instances": [PICTURE, PICTURE[:5]]}),
        400,
        "the lists of one level differ",
    ),
    "text in pictures": (
        "POST",
        PREDICT,
        json_body({"signature_name": "float_images", "instances": [[[["1", "2", "3"]]]]}),
        400,
        "expected type: float32",
    ),
    "numbers beyond float32": (
        "POST",
        PREDICT,
        json_body({"signature_name": "float_images", "inputs": [[[[1e300, 0, 0]]]]}),
        400,
        "without loss of precision",
    ),
    "no Example": (
        "POST",
        PREDICT,
        json_body({"signature_name": "classify", "instances": ["x"]}),
        400,
        "Could not parse example",
    ),
    "a text is bytes": ("POST", PREDICT, json_body({"instances": ["hello"]}), 200, '"valid":false'),
    "classify": ("POST", f"{MODEL}:classify", json_body(EXAMPLES), 200, r'\[\["benign",0.0\],\["malignant",0.0\]\]'),
    "classify a version": ("POST", f"{MODEL}/versions/1:classify", json_body(EXAMPLES), 200, "results"),
    "classify, default signature": (
        "POST",
        f"{MODEL}:classify",
        json_body({"examples": [{}]}),
        400,
        "Expected one or two output Tensors, found 3",
    ),
    "classify, wrong signature": (
        "POST",
        f"{MODEL}:classify",
        json_body({"signature_name": "float_images", "examples": [{}]}),
        400,
        "No classification inputs found in SignatureDef",
    ),
    "classify, unknown signature": (
        "POST",
        f"{MODEL}:classify",
        json_body({"signature_name": "x", "examples": [{}]}),
        400,
        "No signature was found with the name: x",
    ),
    "classify, no examples": ("POST", f"{MODEL}:classify", json_body({"instances": []}), 400, "key 'examples'"),
    "classify, empty": ("POST", f"{MODEL}:classify", json_body({"examples": []}), 400, "is an empty array"),
    "classify, no list": ("POST", f"{MODEL}:classify", json_body({"examples": {}}), 400, "list/array"),
    "classify, no object": (
        "POST",
        f"{MODEL}:classify",
        json_body({"examples": [3]}),
        400,
        "Example must be JSON object",
    ),
    "classify, null feature": (
        "POST",
        f"{MODEL}:classify",
        json_body({"examples": [{"a": None}]}),
        400,
        "unexpected JSON type",
    ),
    "classify, mixed feature": (
        "POST",
        f"{MODEL}:classify",
        json_body({"examples": [{"a": [1, "b"]}]}),
        400,
        "Unexpected element type in feature: a",
    ),
    "classify, number for image": (
        "POST",
        f"{MODEL}:classify",
        json_body({"signature_name": "classify", "examples": [{"image_bytes": 5}]}),
        400,
        "image_bytes",
    ),
    "classify, huge integer": (
        "POST",
        f"{MODEL}:classify",
        json_body({"examples": [{"a": 2**63}]}),
        400,
        "Only int64 is supported",
    ),
    "classify, missing model": (
        "POST",
        "/v1/models/nope:classify",
        json_body(EXAMPLES),
        404,
        r"Latest\(nope\)",
    ),
    "regress": ("POST", f"{MODEL}:regress", json_body(EXAMPLES), 400, "Expected one output Tensor."),
    "regress, unknown signature": (
        "POST",
        f"{MODEL}:regress",
        json_body({"signature_name": "x", "examples": [{}]}),
        400,
        "No signature was found with the name: x",
    ),
}


def predict(service, content) -> dict:
    answer = send(service, "POST", PREDICT, json_body(content))
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def good(photos, two_classes):
    """A request and the scores it must get."""
    return {"instances": [b64(photos[0])]}, two_classes.scores(photos[:1])[0]


@pytest.mark.parametrize("name", TABLE)
def test_table(service, good, name):
    method, path, body, status, pattern = TABLE[name]
    answer = send(service, method, path, body)
    assert answer.status_code == status, answer.text
    assert re.search(pattern, answer.text, re.DOTALL), answer.text
    if path.lower().startswith("/v1/") and status != 501:
        assert answer.headers["content-type"] == "application/json"
        assert status == 200 or list(answer.json()) == ["error"]
    request, scores = good
    np.testing.assert_allclose(predict(service, request)["predictions"][0]["scores"], scores, atol=1e-6)


def test_row_and_column_format_and_the_single_input_shortcut(service, two_classes, photos):
    expected = two_classes.scores(photos[:3])
    encoded = [b64(photo) for photo in photos[:3]]
    for instances in (encoded, [{"image_bytes": item} for item in encoded]):
        rows = predict(service, {"instances": instances})["predictions"]
        assert [list(row) for row in rows] == [["label", "scores", "valid"]] * 3
        np.testing.assert_allclose([row["scores"] for row in rows], expected, atol=1e-6)
    for inputs in (encoded, {"image_bytes": encoded}):
        outputs = predict(service, {"inputs": inputs, "signature_name": "serving_default"})["outputs"]
        np.testing.assert_allclose(outputs["scores"], expected, atol=1e-6)
        assert outputs["valid"] == [True] * 3
        assert outputs["label"] == [row["label"] for row in rows]


def test_a_damaged_image_among_good_ones(service, two_classes, photos):
    batch = [b64(photos[0]), B64, b64(photos[1])]
    rows = predict(service, {"instances": batch})["predictions"]
    assert rows[1] == INVALID
    good_scores = [rows[0]["scores"], rows[2]["scores"]]
    np.testing.assert_allclose(good_scores, two_classes.scores(photos[:2]), atol=1e-6)


def test_float_images(service, two_classes):
    body = {"signature_name": "float_images", "instances": [PICTURE, PICTURE]}
    rows = predict(service, body)["predictions"]
    expected = np.asarray(two_classes.model(np.array([PICTURE], np.float32), training=False))
    np.testing.assert_allclose([row["scores"] for row in rows], np.repeat(expected, 2, axis=0), atol=1e-6)


def test_classify_gives_classes_with_scores(service, two_classes, photos):
    body = {"signature_name": "classify", "examples": [{"image_bytes": b64(photos[2])}, {}]}
    results = send(service, "POST", f"{MODEL}:classify", json_body(body)).json()["results"]
    assert [[name for name, _ in row] for row in results] == [["benign", "malignant"]] * 2
    np.testing.assert_allclose([score for _, score in results[0]], two_classes.scores(photos[2:3])[0], atol=1e-6)
    assert [score for _, score in results[1]] == [0.0, 0.0]


def test_too_long_a_request_is_refused_and_read_to_its_end(service, good):
    body = bytes(64 * 1024 * 1024 + 1)
    answer = send(service, "POST", PREDICT, body)
    assert (answer.status_code, list(answer.json())) == (413, ["error"])
    request, scores = good
    np.testing.assert_allclose(predict(service, request)["predictions"][0]["scores"], scores, atol=1e-6)


def test_a_request_that_breaks_off_does_not_stop_the_server(service, good):
    port = int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"\x00\x01\x02 nonsense\r\n\r\n")
        assert b" 400 " in connection.recv(1000).partition(b"\r\n")[0]
    request, scores = good
    np.testing.assert_allclose(predict(service, request)["predictions"][0]["scores"], scores, atol=1e-6)


def test_eight_clients_at_once_each_get_their_own_answers(service, two_classes, photos):
    expected = two_classes.scores(photos)

    def client(number: int) -> float:
        worst = 0.0
        with requests.Session() as http:
            http.trust_env = False
            for step in range(20):
                chosen = (number * 20 + step) % len(photos)
                body = {"instances": [b64(photos[chosen])]}
                answer = http.post(service.url + PREDICT, json=body, timeout=60)
                assert answer.status_code == 200
                difference = np.abs(np.array(answer.json()["predictions"][0]["scores"]) - expected[chosen])
                worst = max(worst, float(difference.max()))
        return worst

    with ThreadPoolExecutor(8) as clients:
        assert max(clients.map(client, range(8))) < 1e-6


def test_only_the_loopback_address_is_bound(service):
    port = int(service.url.rpartition(":")[2])
    assert service.url.startswith("http://127.0.0.1:")
    with pytest.raises(ConnectionRefusedError):  # a server on every address would answer here as well
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_the_log_has_no_errors_of_the_servers_own(service):
    assert "Traceback" not in service.logs()
