"""Weights of the starter code, and checkpoints of either kind."""

import argparse

import pytest
import torch

from layers import FUSIONS
from model import load_any_checkpoint, load_starter_checkpoint
from tests.model.checkpoints import refuse
from utils.errors import CheckpointError


class TestStarterCode:
    @pytest.fixture
    def state(self, starter_path):
        return torch.load(starter_path, weights_only=True)

    def test_settings_are_read_off_the_shapes(self, starter_path):
        net = load_starter_checkpoint(starter_path, num_classes=5, fusion="film", dropout=0.25)
        assert net.settings == {
            "nr_resnet": 1,
            "nr_filters": 8,
            "nr_logistic_mix": 3,
            "image_channels": 3,
            "num_classes": 5,
            "fusion": "film",
            "dropout": 0.25,
        }
        assert not net.training

    @pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.", "net.model."])
    @pytest.mark.parametrize(
        "wrappers", [(), ("state_dict",), ("model_state_dict",), ("model",), ("model", "state_dict")]
    )
    def test_wrappers_and_prefixes_are_dropped(self, starter_path, state, write, prefix, wrappers):
        content = {prefix + name: value for name, value in state.items()}
        for key in wrappers:
            content = {"epoch": 3, key: content, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
        net = load_any_checkpoint(write(content), 3, "film")
        expected = load_starter_checkpoint(starter_path, 3, "film").state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())

    def test_a_prefix_of_some_names_alone_is_refused(self, state, write):
        state["module.u_init.conv.bias"] = state.pop("u_init.conv.bias")
        assert "it lacks u_init.conv.bias" in refuse(load_starter_checkpoint, write(state), 3)

    def test_a_checkpoint_that_contains_itself_is_refused(self, write):
        content = {}
        content["model"] = content
        refuse(load_starter_checkpoint, write(content), 3)

    def test_python_objects_are_named(self, state, write):
        message = refuse(load_any_checkpoint, write({"model": state, "args": argparse.Namespace(lr=1)}), 3, "film")
        assert "Python objects (argparse.Namespace)" in message and "save its weights alone" in message

    @pytest.mark.parametrize("fusion", [fusion for fusion in FUSIONS if fusion != "none"])
    def test_the_class_can_be_learnt_from_there(self, starter_path, fusion):
        """At zero effect it still has a gradient."""
        net = load_starter_checkpoint(starter_path, num_classes=3, fusion=fusion)
        net(torch.rand(2, 3, 8, 8), torch.tensor([0, 2])).square().sum().backward()
        parts = fusion.split("+")
        if "early" in parts:
            assert (net.u_init.conv.parametrizations.weight.original1.grad[:, 4:] != 0).any()
        if "middle" in parts:
            assert net.fusion.alpha.grad != 0
        if "film" in parts:
            assert (net.fusion.table.weight.grad != 0).any()
        if "late" in parts:
            assert (net.late.table.weight.grad != 0).any()

    @pytest.mark.parametrize(
        "name",
        [
            "u_init.conv.weight_v",
            "ul_init.1.conv.weight_g",
            "nin_out.lin_a.bias",
            "up_layers.0.ul_stream.0.nin_skip.lin_a.weight_v",
            "down_layers.2.u_stream.1.nin_skip.lin_a.weight_v",
            "down_layers.1.ul_stream.0.conv_out.conv.bias",
            "upsize_u_stream.0.deconv.weight_v",
        ],
    )
    def test_missing_weight(self, state, write, name):
        del state[name]
        refuse(load_starter_checkpoint, write(state), 3)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("u_init.conv.weight_v", torch.ones(8, 3, 2, 3)),
            ("u_init.conv.weight_v", torch.ones(8)),
            ("u_init.conv.weight_v", "weight"),
            ("ul_init.0.conv.weight_v", torch.ones(8, 9, 1, 3)),
            ("nin_out.lin_a.weight_v", torch.ones(30, 9)),
            ("nin_out.lin_a.bias", 3),
            ("downsize_u_stream.0.conv.bias", torch.ones(1)),
            ("downsize_u_stream.0.conv.weight_g", torch.ones(7, 1, 1, 1)),
            ("upsize_ul_stream.1.deconv.weight_v", torch.ones(8, 8, 3, 2)),
        ],
        ids=str,
    )
    def test_weight_of_a_wrong_shape(self, state, write, name, value):
        state[name] = value
        refuse(load_starter_checkpoint, write(state), 3)

    @pytest.mark.parametrize("way", ["expanded", "shared"])
    def test_weights_that_the_file_does_not_hold(self, state, write, monkeypatch, way):
        """A few bytes that would become a network of 20,000 filters: refused before one is built."""
        names = {name.rsplit(".", 1)[-1] for name in state}
        assert names == {"weight_v", "weight_g", "bias"}
        one = torch.zeros(max(value.numel() for value in state.values()))
        for name, value in state.items():
            if way == "expanded":
                state[name] = torch.zeros(()).expand([20000 if side == 8 else side for side in value.shape])
            else:
                state[name] = one[: value.numel()].view(value.shape)
        file = write(state)
        monkeypatch.setattr("model.checkpoint.PixelCNN", None)
        refuse(load_starter_checkpoint, file, 3)
        with pytest.raises(CheckpointError, match=r"larger than .* data in the file"):
            load_starter_checkpoint(file, 3)

    @pytest.mark.parametrize("fusion", ["film", "early"])
    def test_either_kind_is_told_apart(self, starter_path, contents, write, fusion):
        starter = load_any_checkpoint(starter_path, 5, fusion)
        assert (starter.settings["num_classes"], starter.settings["fusion"]) == (5, fusion)
        expected = load_starter_checkpoint(starter_path, 5).head.conv.weight
        assert torch.equal(starter.head.conv.weight, expected)
        ours = load_any_checkpoint(write(contents), 5, fusion)
        assert ours.settings == contents["model"]
        assert ours.class_names == ("ant", "bee", "cat")

    def test_own_checkpoint_is_no_starter_checkpoint(self, contents, write):
        refuse(load_starter_checkpoint, write(contents), 3)
