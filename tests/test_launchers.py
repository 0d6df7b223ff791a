"""Under every launcher the same experiment, with two processes. What a launcher cannot do is an error."""

import json
from types import SimpleNamespace

import pytest
from accelerate import DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import load_file

from align.commands.train import launch_command
from align.config.compose import compose, compose_run
from align.errors import UserError
from align.methods.distributed import FSDP_LAYERS, name_layers, refuse_other_launch, spare_workers
from align.models.loading import load_checkpoint
from align.run_folder import RunFolder
from align.settings import LaunchConfig
from align.training.run import train
from tests.support.launch import ROOT, call, train_command
from tests.support.shards import falsify
from tests.support.small_run import arguments
from tests.support.trajectories import METHODS, SEVERAL, same_trajectory, train_every_method
from tests.support.zero import launcher_file

CONFIGS = ROOT / "accelerate_configs"
PROJECTOR = "trainable=multi_modal_projector"
METHODS_WITH_REFERENCE = ("dpo", "safe_unlearning")
FULL = ["lora=null", "train.learning_rate=1e-4"]


@pytest.fixture(scope="module")
def one_process(tiny, family_name, tmp_path_factory):
    """A function: settings -> folder of the runs of every method in one process on padded rows, made once."""
    made = {}

    def folder(*settings):
        if settings not in made:
            made[settings] = tmp_path_factory.mktemp("one") / "runs"
            train_every_method(tiny(family_name), made[settings], 1, 8, "layout=padded", *settings)
        return made[settings]

    return folder


LONG = [("ddp", [PROJECTOR]), ("zero2", []), ("zero2", [PROJECTOR]), ("zero3", []), ("zero3", [PROJECTOR])]
CASES = [
    pytest.param("zero3", FULL, marks=pytest.mark.long),
    *(pytest.param(*case, marks=pytest.mark.long) for case in LONG),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("launcher", "settings"), CASES)
def test_two_processes_take_the_trajectory_of_one(launcher, settings, one_process, tiny, family_name, tmp_path):
    if launcher == "ddp":
        config, more, kind = CONFIGS / "cpu.yaml", ["train.ddp_find_unused_parameters=false"], "MULTI_CPU"
    else:
        config, more, kind = launcher_file(launcher, tmp_path), [], "DEEPSPEED"
    train_every_method(tiny(family_name), tmp_path / "two", 2, 2, "layout=packed", *settings, *more, config=config)
    for method in METHODS:
        one, two = one_process(*settings) / method, tmp_path / "two" / method
        same_trajectory(one, two)
        assert RunFolder(two).manifest()["distributed_type"] == kind
        assert RunFolder(two).manifest()["parameters"] == RunFolder(one).manifest()["parameters"]
        load_checkpoint(str(two / "checkpoint"))
    # Of the two, one often has no image in a pass in which the other has some.
    assert {(False, True), (True, False)} <= images_in_passes(two)


def images_in_passes(folder):
    """Whether the first and the second process have an image, in each pass of two rows, over all passes."""
    shown = {row["id"]: bool(row["images"]) for row in map(json.loads, RunFolder(folder).rows_file.open())}
    steps = [[shown[row] for row in json.loads(line)["rows"]] for line in RunFolder(folder).steps_file.open()]
    return {(any(step[i : i + 2]), any(step[i + 2 : i + 4])) for step in steps for i in (0, 4)}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("launcher", ["ddp", "zero3"])
def test_two_processes_store_what_the_reference_says_and_find_it_again(launcher, tiny, tmp_path):
    config = CONFIGS / "cpu.yaml" if launcher == "ddp" else launcher_file(launcher, tmp_path)

    def train_both(*runs):
        """Each a folder and its settings, one after the other in one launch."""
        commands = [
            word
            for name, *settings in runs
            for method in METHODS_WITH_REFERENCE
            for word in (
                *arguments(tiny("llava"), tmp_path / name / method, f"method={method}", "train.learning_rate=1e-3"),
                *("train.max_steps=3", "train.per_device_train_batch_size=2", "data.benign.rows=22", *settings, "--"),
            )
        ]
        command = train_command(*commands, processes=2, script=SEVERAL, config=config)
        done = call(command, tmp_path, 400, XDG_CACHE_HOME=str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        return done

    train_both(["asked"], ["first", "stored_reference=true"])
    shards = {shard: shard.stat().st_mtime_ns for shard in tmp_path.glob("cache/vsil-align/reference/*/*.safetensors")}
    assert len(shards) >= 4  # both methods, and each process has its own answers
    again = train_both(["second", "stored_reference=true"])
    assert "computed again" not in again.stderr
    assert shards == {shard: shard.stat().st_mtime_ns for shard in shards}
    falsify(shards)
    damaged = train_both(["damaged", "stored_reference=true"])
    assert "computed again" in damaged.stderr
    for method in METHODS_WITH_REFERENCE:
        for name in ("first", "second", "damaged"):
            same_trajectory(tmp_path / "asked" / method, tmp_path / name / method)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("launcher", "what"), [("ddp", []), ("zero3", []), ("zero3", ["lora=null"])])
def test_two_processes_keep_one_curve_and_one_of_them_evaluates_it(launcher, what, tiny, tmp_path):
    evaluation = "evaluate={benchmark: [mini_vsil], settings: {mini_vsil: {limit: 4}}, generation: {max_new_tokens: 4}}"
    more = [evaluation, "evaluate.every_steps=2", "train.learning_rate=1e-4", "train.save_steps=4", *what]
    config = CONFIGS / "cpu.yaml" if launcher == "ddp" else launcher_file(launcher, tmp_path)
    done = call(train_command(*arguments(tiny("llava"), "two", *more), processes=2, config=config), tmp_path, 500)
    assert done.returncode == 0, done.stderr
    one, two = train(compose_run(arguments(tiny("llava"), tmp_path / "one", *more))), RunFolder(tmp_path / "two")
    assert two.manifest()["world_size"] == 2
    assert sorted(path.name for path in two.curve.iterdir()) == ["step-2", "step-4"]
    for step, point in two.curve_points().items():
        weights = [load_file(*run.weights.glob("*.safetensors")) for run in (one.curve_points()[step], point)]
        assert weights[0].keys() == weights[1].keys()
        assert all((weights[0][key] - weights[1][key]).abs().max() < 1e-4 for key in weights[0])
        rows = [json.loads(line)["id"] for line in (point.evaluation / "mini_vsil" / "responses.jsonl").open()]
        assert len(rows) == len(set(rows)) == 4
    assert [point["step"] for point in json.loads(two.curve_file.read_text())["points"]] == [2, 4, 6]
    assert done.stdout.count("Evaluation of") == 1
    assert done.stdout.count("step 2 mini_vsil: 4 done") == 1


@pytest.mark.parametrize(
    ("usable", "here", "workers"), [(16, 1, 4), (16, 8, 1), (2, 2, 0), (2, 1, 1), (1, 1, 0), (64, 8, 4)]
)
def test_beside_a_gpu_rows_are_prepared_on_the_processors_that_are_left(usable, here, workers, monkeypatch):
    monkeypatch.setattr("align.methods.distributed.usable_processors", lambda: usable)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
    assert spare_workers() == workers


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_accelerate_would_turn_into_something_else_in_silence_is_an_error(tiny, tmp_path):
    small = arguments(tiny("llava"), "run")
    fsdp = call(train_command(*small, processes=2, config=CONFIGS / "fsdp2.yaml"), tmp_path)
    assert (
        "the launcher asks for FSDP, but accelerate runs MULTI_CPU: there is no GPU, or none is to be used"
        in fsdp.stderr
    )
    zero = train_command(*small, processes=2, config=CONFIGS / "zero2.yaml")
    refused = call(["env", "ACCELERATE_USE_CPU=true", *zero], tmp_path)
    assert (
        "the launcher asks for DEEPSPEED, but accelerate runs MULTI_CPU: there is no GPU, or none is to be"
        in refused.stderr
    )
    alone = [*train_command()[:2], "--cpu", "--num_processes", "2", str(ROOT / "align" / "train.py")]
    refused = call([*alone, *small, "num_processes=2"], tmp_path)
    assert "num_processes=2, but 1 processes are running" in refused.stderr


@pytest.mark.parametrize(
    ("then", "now"),
    [(("DEEPSPEED", 2), ("MULTI_GPU", 2)), (("NO", 1), ("DEEPSPEED", 1)), (("DEEPSPEED", 2), ("DEEPSPEED", 4))],
)
def test_a_checkpoint_is_resumed_under_the_launcher_that_saved_it(then, now):
    with pytest.raises(UserError, match="its optimizer cannot be read.* resume=false"):
        refuse_other_launch(*launches(then, now))
    refuse_other_launch(*launches(then, then))
    refuse_other_launch(*launches(("NO", 1), ("MULTI_CPU", 2)))  # each holds the whole model


def launches(then, now):
    manifest = {"distributed_type": then[0], "world_size": then[1]}
    return manifest, SimpleNamespace(distributed_type=DistributedType(now[0]), num_processes=now[1])


def test_fsdp_divides_layers_that_the_model_has(loaded, family_name, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv(FSDP_LAYERS, "")  # so that what is set here is undone
    model = loaded(family_name).model
    name_layers(model)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", reshard_after_forward=True
    )
    plugin.set_auto_wrap_policy(model)  # raises for a class that is not there
    layers = {"llava": "LlamaDecoderLayer", "qwen2_vl": "Qwen2VLDecoderLayer"}[family_name]
    assert layers in plugin.transformer_cls_names_to_wrap


def test_the_launch_is_accelerates_own_command():
    command = launch_command(compose(LaunchConfig, ["config=zero2", "num_machines=2", "machine_rank=1"]).config, 16)
    assert command[1:3] == ["-m", "align.commands.launcher"]
    assert command[-1] == str(ROOT / "align" / "train.py")
    options = dict(zip(command[3:-1:2], command[4:-1:2], strict=True))
    assert options == {
        "--config_file": str(CONFIGS / "zero2.yaml"),
        "--num_processes": "16",
        "--num_machines": "2",
        "--machine_rank": "1",
    }


def test_what_is_not_given_is_what_a_file_of_ones_own_says(tmp_path):
    (tmp_path / "mine.yaml").write_text("num_machines: 2")
    launch = compose(LaunchConfig, [f"config={tmp_path / 'mine.yaml'}"]).config
    assert launch_command(launch, None)[3:-1] == ["--config_file", str(tmp_path / "mine.yaml")]
    shipped = launch_command(compose(LaunchConfig, ["config=cpu"]).config, None)
    assert shipped[5:-1] == ["--num_processes", "1"]


def test_an_unknown_launcher_configuration_names_the_nearest():
    with pytest.raises(UserError, match="launch.config=zero1: no such file .did you mean 'zero"):
        launch_command(compose(LaunchConfig, ["config=zero1"]).config, 1)
