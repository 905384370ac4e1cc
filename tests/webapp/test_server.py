"""Requests that no page would send, against the running server."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from tests.webapp.application import ROOT, start_app
from webapp.server import is_loopback


def request(address, path, data=None, **headers) -> tuple[int, bytes, dict]:
    """Status, body and headers of the answer."""
    asked = urllib.request.Request(address + path, data, headers)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def join(address, function, data, session="s") -> tuple[int, bytes]:
    body = {"fn_index": function, "data": data, "session_hash": session, "trigger_id": None}
    return request(
        address, "/gradio_api/queue/join", json.dumps(body).encode(), **{"Content-Type": "application/json"}
    )[:2]


def answers(address, session="s") -> list[dict]:
    """The messages of the queue until a work is complete."""
    messages = []
    with urllib.request.urlopen(f"{address}/gradio_api/queue/data?session_hash={session}", timeout=60) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                messages.append(json.loads(line[6:]))
                if messages[-1]["msg"] in ("process_completed", "close_stream"):
                    return messages
    return messages


def function_of(address, target: str, event: str) -> int:
    """The number of the event of the component with the id ``target`` that takes the most inputs."""
    config = json.loads(request(address, "/config")[1])
    (component,) = [c["id"] for c in config["components"] if c["props"].get("elem_id") == target]
    found = [d for d in config["dependencies"] if [component, event] in d["targets"] and d["backend_fn"]]
    return max(found, key=lambda d: len(d["inputs"]))["id"]


def upload(address, name: str, content: bytes) -> tuple[int, bytes]:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    return request(address, "/gradio_api/upload", body % (name.encode(), content), **kind)[:2]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        f"{ROOT}/app.py",
        f"{ROOT}/checkpoints/cpen455.pt",
        "README.md",
        "../../etc/passwd",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/proc/self/environ",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "https://example.com/",
    ],
)
def test_no_other_file_is_served(app_server, path):
    for prefix in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/static/", "/assets/"):
        status, body, _ = request(app_server, prefix + path)
        assert status in (400, 403, 404) or (status == 200 and body.startswith(b"<!doctype html>")), (prefix, status)
        assert b"root:" not in body and b"import os" not in body


def test_a_run_is_served_as_pictures_alone(app_server, run_folders):
    for name in ("first/confusion.png", "first/config.yaml"):
        assert request(app_server, f"/gradio_api/file={run_folders / name}")[0] == 403


def test_a_file_of_the_server_is_no_upload(app_server):
    picture = {"path": str(ROOT / "examples" / "pizza_0001.png"), "meta": {"_type": "gradio.FileData"}}
    assert join(app_server, function_of(app_server, "photo", "input"), [picture])[0] == 200
    last = answers(app_server)[-1]
    assert not last["success"] and "examples" not in json.dumps(last)


@pytest.mark.parametrize("target", ["photo", "photos", "start"])
def test_no_request_reads_or_removes_a_file_of_the_server(app_server, tmp_path, target):
    """In whatever form it names the file, and no address of another server is fetched."""
    event = "upload" if target == "photos" else "input"
    named = [tmp_path / f"{i}.png" for i in range(2)]
    for path in named:
        Image.new("RGB", (8, 8)).save(path)
    forms = [{"path": str(named[0])}, {"path": str(named[1]), "meta": {"_type": "gradio.FileData"}}]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/x.png"
        forms += [{"path": address, "meta": {"_type": "gradio.FileData"}}, {"path": address}]
        forms += [{"path": "http://example.com/x.png", "meta": {"_type": "gradio.FileData"}}]
        for number, form in enumerate(forms):
            session = f"{target}{number}"
            value = [form] if target == "photos" else form
            data = [value, None] if target == "start" else [value]
            assert join(app_server, function_of(app_server, target, event), data[:1], session)[0] == 200
            last = answers(app_server, session)[-1]
            assert not last["success"], last
            assert "readable" not in json.dumps(last) and "resolve" not in json.dumps(last)
        with pytest.raises(TimeoutError):
            listener.accept()
    time.sleep(0.5)
    assert all(path.exists() for path in named)


def test_uploads_stay_in_the_folder_of_the_application(app_server, app_files):
    status, body = upload(app_server, "../../../escaped.png", b"x")
    assert status == 200
    (path,) = map(Path, json.loads(body))
    assert path.resolve().is_relative_to(app_files) and path.read_bytes() == b"x"
    assert not list(app_files.parent.glob("escaped.png"))


def test_what_is_too_large_is_refused(app_server):
    host, port = app_server.removeprefix("http://").split(":")
    for path in ("/gradio_api/upload", "/gradio_api/queue/join"):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: 10000000000\r\n\r\n".encode())
            assert b" 413 " in connection.recv(100)
    status, body = upload(app_server, "large.png", b"x" * 101_000_000)
    assert status == 413 and body.count(b"\n") == 0


def test_the_queue_has_a_bound(app_server):
    draw = function_of(app_server, "draw", "click")
    statuses = [join(app_server, draw, [[0], 1, 1.0, 0], f"q{i}")[0] for i in range(40)]
    assert 200 in statuses and statuses[-1] == 503


def test_only_names_of_this_machine_are_answered(app_server):
    assert request(app_server, "/", Host="attacker.example")[0] == 400
    status, _, headers = request(app_server, "/")
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_the_page_names_no_other_server(app_server):
    config = json.loads(request(app_server, "/config")[1])
    assert config["analytics_enabled"] is False
    assert all(d["api_visibility"] == "private" for d in config["dependencies"])
    assert b"fonts.googleapis.com" not in request(app_server, "/theme.css")[1]


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.0.1", "::", "example.com")))


def test_a_signal_ends_it_and_removes_its_files(tmp_path):
    process, address = start_app(tmp_path)
    assert upload(address, "a.png", b"x")[0] == 200
    (folder,) = tmp_path.glob("pixelcnn_app_*")
    assert list(folder.rglob("a.png"))
    port = address.rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, ROOT / "app.py", "--port", port], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert second.returncode == 2
    assert second.stderr.strip() == f"error: cannot listen on 127.0.0.1:{port}; give another --port or --host"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert not folder.exists()
