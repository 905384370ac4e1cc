"""Connections to other processes that are lost."""

import os
import socket

import pytest
import torch

from utils.distributed import SILENCE, is_loss, loss_message, watch_connections

GLOO = (
    "[/__w/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error [10.77.0.1]:42386: No route to host. "
    "This is typically caused by a remote worker hanging or bugs in the application. Check the logs of the remote "
    "worker before reporting an error. GLHF!"
)
TIMEOUT = "[../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1000ms for recv operation to complete"


def test_the_kernel_watches_connections_and_leaves_the_rest_alone(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as connection,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as local,
        open(tmp_path / "file", "w") as file,
    ):
        watch_connections()
        for watched in (server, connection):
            assert watched.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for option, seconds in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 6)):
            assert connection.getsockopt(socket.IPPROTO_TCP, option) == seconds
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * SILENCE
        assert not datagrams.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not local.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for opened in (server, connection, datagrams, local, file):
            os.fstat(opened.fileno())  # raises where it was closed


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (RuntimeError(GLOO), "Read error [10.77.0.1]:42386: No route to host"),
        (RuntimeError(TIMEOUT), "Timed out waiting 1000ms for recv operation to complete"),
        (
            torch.distributed.DistBackendError("connectFullMesh failed with [/gloo/pair.cc:152] timed out connecting"),
            "connectFullMesh failed with timed out connecting",
        ),
        (torch.distributed.DistNetworkError("Broken pipe"), "Broken pipe"),
    ],
)
def test_a_loss_is_told_without_guesses(error, why):
    told = f"another process has ended or cannot be reached ({why}); its own messages may say why"
    assert is_loss(error) and loss_message(error) == told


def test_other_errors_are_no_loss():
    for error in (RuntimeError("shape mismatch"), ValueError(GLOO), torch.OutOfMemoryError("CUDA out of memory")):
        assert not is_loss(error)
