import socket

import pytest

import app
from utils.errors import UserError


def test_without_gradio_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs Gradio: pip install -r requirements-app\.txt, or make app"):
        app.main([])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "0"], "--port 0: should be"),
        (["--port", "70000"], "--port 70000: should be"),
        (["--checkpoint", "gone.pt"], "gone.pt"),
        (["--device", "tpu"], "--device tpu: there is no such device here"),
    ],
)
def test_mistakes_are_one_sentence(flags, message):
    pytest.importorskip("gradio")
    with pytest.raises(UserError, match=message) as error:
        app.main(flags)
    assert "\n" not in str(error.value)


def test_a_port_that_is_taken():
    pytest.importorskip("gradio")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on 127\.0\.0\.1:{port}; give another --port or --host"):
            app.main(["--port", str(port), "--device", "cpu"])
