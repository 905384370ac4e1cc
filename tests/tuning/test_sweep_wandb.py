"""The commands `wandb sweep` and `wandb agent` with trials of pcnn_train.py.

openwandb has no sweeps, so a proxy answers the client's four calls about sweeps and forwards all others to openwandb,
which records the trials.
"""

import gzip
import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


class SweepServer(ThreadingHTTPServer):
    """A sweep with predefined trials, a dict of parameters each, handed out one at a time."""

    def __init__(self, upstream: str, trials: list[dict]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.upstream = upstream
        self.trials = trials
        self.given = 0
        self.config = ""
        self.exit_codes: dict[str, int] = {}  # run id -> exit code that its client reported
        self.agent_ended = False

    def answer(self, call: str, variables: dict) -> dict | None:
        """The response to a call about sweeps; None for any other call."""
        project = {"id": "p", "name": "sweeps", "entity": {"id": "e", "name": "default"}}
        if call == "UpsertSweep":
            self.config = variables["config"]
            return {"upsertSweep": {"sweep": {"name": "swp", "project": project}, "configValidationWarnings": []}}
        if call == "SweepWithRuns":
            sweep = {"id": "s", "name": "swp", "state": "RUNNING", "config": self.config, "runs": {"edges": []}}
            return {"project": {"sweep": sweep}}
        if call == "CreateAgent":
            return {"createAgent": {"agent": {"id": "a"}}}
        if call == "Heartbeat":
            running = json.loads(variables["runState"])
            return {"agentHeartbeat": {"agent": {"id": "a"}, "commands": json.dumps(self.commands(running))}}
        return None

    def commands(self, running: dict) -> list[dict]:
        if running:
            return []
        if self.given == len(self.trials):
            self.agent_ended = True
            return [{"type": "exit"}]
        arguments = {name: {"value": value} for name, value in self.trials[self.given].items()}
        self.given += 1
        program = yaml.safe_load(self.config)["program"]
        return [{"type": "run", "run_id": f"trial{self.given}", "program": program, "args": arguments}]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        plain = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        if self.path == "/graphql":
            request = json.loads(plain)
            call = re.match(r"\s*(?:query|mutation)\s+(\w+)", request["query"])
            data = self.server.answer(call[1] if call else "", request.get("variables") or {})
            if data is not None:
                return self.reply(200, json.dumps({"data": data}).encode())
        elif self.path.endswith("/file_stream"):
            stream = json.loads(plain)
            if "exitcode" in stream:
                self.server.exit_codes[self.path.split("/")[-2]] = stream["exitcode"]
        return self.forward(body)

    def do_PUT(self):
        self.forward(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_GET(self):
        self.forward(None)

    def forward(self, body: bytes | None) -> None:
        headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
        request = urllib.request.Request(self.server.upstream + self.path, body, headers, method=self.command)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                self.reply(response.status, response.read())
        except urllib.error.HTTPError as error:
            self.reply(error.code, error.read())

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def sweep_server(openwandb):
    tiny = {"dataset": "digits", "nr_resnet": 1, "nr_logistic_mix": 1, "batch_size": 256, "sampling_interval": 0}
    tiny |= {"max_epochs": 1, "en_wandb": True}
    failing = {**tiny, "nr_filters": 0}  # before it has a run folder
    server = SweepServer(openwandb.url, [failing, {**tiny, "nr_filters": 4}])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_sweep_and_agent(sweep_server, openwandb, wandb_env, tmp_path):
    env = wandb_env | openwandb.env | {"WANDB_BASE_URL": sweep_server.url}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"  # the agent starts `python`

    def wandb(*arguments):
        command = [sys.executable, "-m", "wandb", *arguments]
        result = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=400)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    output = wandb("sweep", "--project", "sweeps", "sweep.yaml")
    assert "wandb agent default/sweeps/swp" in output
    assert yaml.safe_load(sweep_server.config) == yaml.safe_load((ROOT / "sweep.yaml").read_text())

    for number, trial in enumerate(sweep_server.trials, 1):
        trial["run_dir"] = str(tmp_path / f"trial{number}")
    output = wandb("agent", "default/sweeps/swp")
    assert sweep_server.agent_ended, output  # the agent continued after the failed trial
    rows = dict(openwandb.rows("select run_id, summary_json from runs where run_id like 'trial%'"))
    first, second = (json.loads(rows[f"trial{number}"]) for number in (1, 2))
    assert "nr_filters" in first["failure"] and not (tmp_path / "trial1").exists()
    report = json.loads((tmp_path / "trial2" / "metrics.jsonl").read_text())
    assert second["accuracy"] == report["accuracy"] and "failure" not in second
    assert sweep_server.exit_codes == {"trial1": 1, "trial2": 0}


def test_sweep_file_is_the_published_one():
    sweep = yaml.safe_load((ROOT / "sweep.yaml").read_text())
    assert sweep == {
        "program": "pcnn_train.py",
        "method": "bayes",
        "metric": {"name": "accuracy", "goal": "maximize"},
        "parameters": {
            "batch_size": {"values": [16, 32, 64]},
            "lr_decay": {"value": 0.99995},
            "max_epochs": {"value": 200},
            "nr_filters": {"values": [40, 60, 80, 100]},
            "nr_logistic_mix": {"values": [5, 10, 15, 20, 25]},
            "nr_resnet": {"values": [1, 2, 3]},
            "sample_batch_size": {"values": [8, 16, 24]},
            "en_wandb": {"value": True},
        },
    }


def test_every_value_of_the_sweep_is_a_flag():
    """In the format of the agent: --name=value, with True for true."""
    from training.settings import TrainSettings
    from utils.arguments import parse_settings

    parameters = yaml.safe_load((ROOT / "sweep.yaml").read_text())["parameters"]
    for name, parameter in parameters.items():
        for value in parameter.get("values", [parameter.get("value")]):
            assert getattr(parse_settings(TrainSettings, "", [f"--{name}={value}"]), name) == value
