"""Mistakes at pcnn_train.py's command line: one line each."""

import subprocess
import sys
from pathlib import Path

import pytest

from model import PixelCNN, save_checkpoint


def bad_cases(tmp_path):
    """(flags, what the line must say)"""
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "key.yaml").write_text("nr_filter: 3\n")
    (tmp_path / "type.yaml").write_text("nr_filters: many\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    other = tmp_path / "other.pt"
    net = PixelCNN(1, 8, 2, 3, 3)
    save_checkpoint(other, net, image_size=(8, 8), class_names=("a", "b", "c"), dataset="folder")
    return [
        ("--nr_filter 3", "unrecognized arguments: --nr_filter 3"),
        ("--nr_filters many", "--nr_filters many: should be a valid integer"),
        ("--nr_filters 0", "--nr_filters 0: should be greater than 0"),
        ("--dropout 1", "--dropout 1: should be less than 1"),
        (
            "--fusion later",
            "--fusion later: should be 'early+middle', 'early', 'middle', 'film', 'late', 'early+film', 'early+late', "
            "'middle+late', 'film+late', 'early+middle+late', 'early+film+late' or 'none'",
        ),
        ("--en_wandb maybe", "--en_wandb maybe: should be true or false"),
        (
            f"--config {tmp_path}/none.yaml",
            f"{tmp_path}/none.yaml cannot be read (No such file or directory); give a YAML file",
        ),
        (f"--config {tmp_path}/list.yaml", f"{tmp_path}/list.yaml holds no settings; give one in each line"),
        (f"--config {tmp_path}/key.yaml", f"{tmp_path}/key.yaml: unknown setting nr_filter; did you mean nr_filters?"),
        (f"--config {tmp_path}/type.yaml", f"{tmp_path}/type.yaml: nr_filters many: should be a valid integer"),
        (f"--config {tmp_path}/broken.yaml", "is not valid YAML: while parsing a flow sequence"),
        ("--dataset digits --image_size 10", "image_size 10 is not a multiple of 4 from 4 on"),
        ("--dataset digits --image_size 516", "--image_size 516: should be less than or equal to 512"),
        ("--dataset digits --device cuda:77", "--device cuda:77: there is no such device here; use --device cpu"),
        ("--dataset digits --device cpu --cuda_graph true", "--cuda_graph true needs a CUDA GPU"),
        ("--dataset digits --device meta", "--device meta: there is no such device here"),
        (
            "--dataset digits --seed 99999999999999999999999",
            "--seed 99999999999999999999999: should be less than 4294",
        ),
        ("--dataset digits --negatives 10", "--negatives 10: an image has only 9 wrong classes here"),
        (
            f"--dataset digits --sample_dir {tmp_path}/junk.pt --run_dir {tmp_path}/runs",
            f"cannot write the samples to {tmp_path}/junk.pt: Not a directory",
        ),
        ("--dataset digits --run_dir=", "--run_dir is empty; give a value, or leave it out"),
        (f"--dataset digits --sample_dir {tmp_path}/junk.pt/x", f"cannot write the samples to {tmp_path}/junk.pt/x"),
        (f"--dataset digits --tag {'a' * 300}", "--tag is too long for a folder's name; give one of at most 150 bytes"),
        ("--dataset digits --tag a/b", "--tag a/b cannot be part of a folder's name; give one without /"),
        ("--dataset folder --data_dir ~nosuchuser/x", "~nosuchuser/x: no such folder"),
        (
            f"--dataset digits --run_dir {tmp_path}/junk.pt/run",
            f"cannot write the run to {tmp_path}/junk.pt/run: Not a directory",
        ),
        (f"--dataset folder --data_dir {tmp_path}/nowhere", f"{tmp_path}/nowhere: no such folder, set data_dir"),
        (f"--dataset digits --run_dir {tmp_path}/full", f"{tmp_path}/full is not empty; give a new folder"),
        (f"--dataset digits --load_params {tmp_path}/none.pt", f"no checkpoint at {tmp_path}/none.pt"),
        (f"--dataset digits --load_params {tmp_path}/junk.pt", f"{tmp_path}/junk.pt cannot be read as a checkpoint"),
        (f"--dataset digits --load_params {other}", f"--load_params {other} has nr_resnet 1, this run has 2"),
        (
            f"--dataset digits --nr_resnet 1 --nr_filters 8 --nr_logistic_mix 2 --load_params {other}",
            f"--load_params {other} is of RGB images, those of --dataset digits are gray",
        ),
        (
            "--dataset digits --fusion none --discriminative_weight 0.1",
            "--discriminative_weight: with --fusion none the network does not see the class; give another --fusion",
        ),
        (
            "--dataset digits --discriminative_weight 0.1 --cutmix_prob 0.5",
            "--cutmix_prob: it changes only images that count in the cross-entropy alone; give --discriminative_share",
        ),
    ]


def test_a_mistake_gets_one_line_and_no_traceback(tmp_path, capsys):
    import pcnn_train
    from utils.script import run_script

    for flags, message in bad_cases(tmp_path):
        argv = [*flags.split(), "--save_dir", str(tmp_path / "runs")]
        with pytest.raises(SystemExit) as stop:
            run_script(lambda argv=argv: pcnn_train.main(argv))
        _, err = capsys.readouterr()
        assert stop.value.code == 2, flags
        lines = err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), (flags, err)
        assert message in lines[0], (flags, err)
    assert not (tmp_path / "runs").exists()  # nothing is left of a run that could not start


def test_what_is_wrong_at_the_start_is_told_before_the_images_are_read(tmp_path, monkeypatch, capsys):
    import evaluation.splits
    import pcnn_train
    from utils.script import run_script

    def no_images(*_):
        raise AssertionError("the images were read")

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    monkeypatch.setattr(evaluation.splits, "load_split", no_images)
    shipped = Path(pcnn_train.__file__).parent / "checkpoints" / "cpen455.pt"
    for flags, word in (
        (["--run_dir", str(tmp_path / "full")], "not empty"),
        (["--load_params", str(tmp_path / "none.pt")], "none.pt"),
        (["--load_params", str(shipped), "--nr_filters", "7"], "nr_filters"),
    ):
        with pytest.raises(SystemExit) as stop:
            run_script(lambda flags=flags: pcnn_train.main(["--dataset", "digits", *flags]))
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.startswith("error: ") and word in error


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_network_that_does_not_fit_in_memory_is_one_line(tmp_path):
    import resource

    limit = 40 * 2**30  # of addresses, which CUDA's libraries take many of; the first convolution wants 77 GB
    result = subprocess.run(
        [
            sys.executable,
            "pcnn_train.py",
            "--dataset",
            "digits",
            "--nr_filters",
            "40000",
            "--run_dir",
            tmp_path / "run",
        ],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.splitlines() == [result.stderr.strip()] and "not enough memory" in result.stderr


def test_a_mistake_in_a_real_process(script):
    result = script("pcnn_train.py", "--lr", "-1")
    assert result.returncode == 2 and result.stderr.startswith("error: ") and "lr" in result.stderr
    assert len(result.stderr.splitlines()) == 1
