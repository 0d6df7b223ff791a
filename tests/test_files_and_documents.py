"""What pages say of the shipped recipes, models and launch configurations is what these files give."""

import json
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from trl import DPOConfig

from align.config.compose import compose_run
from align.config.files import available
from align.config.fingerprint import NOT_TRAINED, NOT_TRAINED_ARGUMENTS
from align.config.rates import RATES, Rate
from align.planning.estimate import estimate
from align.planning.memory import LAUNCHES
from align.planning.skeleton import NAMED
from align.settings import PlanSettings
from align.training.row_checks import DESCRIBED

ROOT = Path(__file__).parents[1]
METHODS = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
HEAD = "| `model=` | `train.loss_type` | `train.loss_weights` | `train.beta` |"
OWN = "a folder or hub id"
RECIPES = [["recipe=t_dpo"], ["recipe=mm_dpo"]]
RECIPES += [[f"recipe={name}", "method=dpo"] for name in available() if name.startswith("controlled/")]


def told():
    """{model: [losses, weights, beta]} as docs/methods.md has it."""
    found = {}
    lines = METHODS[METHODS.index(HEAD) :].splitlines()[2:]
    for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]:
        models, losses, weights, beta, _ = (cell.strip() for cell in line.split("|")[1:-1])
        values = [
            losses.split(", "),
            None if weights == "none" else [float(it) for it in weights.split(", ")],
            float(beta),
        ]
        found |= dict.fromkeys(re.findall(r"`(\w+)`", models) or [models], values)
    return found


def test_the_page_speaks_of_every_shipped_model_and_of_others():
    assert sorted(told()) == sorted([*available("models"), OWN])


@pytest.mark.parametrize("recipe", RECIPES, ids=" ".join)
def test_losses_of_dpo_are_those_of_the_page(recipe, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for model, values in told().items():
        path = tmp_path if model == OWN else model
        train = compose_run([*recipe, f"model={path}"]).config.train
        given = [train["loss_type"], train["loss_weights"], train.get("beta", DPOConfig.beta)]
        assert given == values, model


CONSTANTS = {
    "safe_unlearning": {"alpha": 0.3, "gamma": 0.3, "logp": "mean"},
    "unlearning": {"harmful_weight": -0.5, "safe_weight": 1, "kl_weight": 1},
}


@pytest.mark.parametrize(("method", "constants"), CONSTANTS.items())
def test_constants_of_unlearning_are_those_of_the_page(method, constants):
    assert "alpha = gamma = 0.3" in METHODS
    assert "Weights -0.5, 1, 1;" in METHODS
    assert re.search(r"`train.proportion` is\s+\[1, 1\], in the model files of full size \[2, 1\]", METHODS)
    for model in available("models"):
        for recipe in (f"t_{method}", f"mm_{method}"):
            train = compose_run([f"recipe={recipe}", f"model={model}"]).config.train
            assert {key: train[key] for key in constants} == constants
            assert train.get("proportion", [1, 1]) == ([1, 1] if model.startswith("mini_") else [2, 1])


RECIPES_PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_rates_of_a_model_of_ones_own_are_those_of_the_page():
    line = r"^\| ((?:`\w+`(?:, )?)+) \| (\S+e-\d) \| (\S+e-\d) \| (\d) \|$"
    shown = {
        method: Rate(float(lora), float(full), float(epochs))
        for methods, lora, full, epochs in re.findall(line, RECIPES_PAGE, re.MULTILINE)
        for method in re.findall(r"\w+", methods)
    }
    assert shown == RATES


def test_kinds_of_rows_that_cannot_be_used_are_those_of_the_page():
    section = RECIPES_PAGE.partition("## Rows are checked first")[2].partition("\n## ")[0]
    heads = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    assert {kind for head in heads for kind in re.findall(r"\w+", head)} == set(DESCRIBED)


def test_settings_that_leave_a_run_the_same_are_those_of_the_page():
    section = RECIPES_PAGE.partition("## One folder, one run")[2].partition("\n## ")[0]
    shown = set(re.findall(r"`([\w.]+)`", section.partition("These settings may change")[2].partition("\n\n")[0]))
    free = {f"train.{name}" for name in NOT_TRAINED_ARGUMENTS} | set(NOT_TRAINED)
    assert shown == free - {"output_dir", "dry_run"}  # another folder is another run; a dry run is none


def launched():
    """(file, recipe, model, launch configuration, GPUs) of every command that launches a run of a
    shipped model on several GPUs.
    """
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "recipes" / "models").glob("*.yaml")]
    files += [*(ROOT / "slurm").glob("*.sh"), *(ROOT / "accelerate_configs").glob("*.yaml")]
    for file in sorted(files):
        text = re.sub(r" \\\n#?\s*", " ", file.read_text(encoding="utf-8"))
        for line in re.findall(r"^(?:#  |  )\s+((?:align|accelerate launch|sbatch) .*)$", text, re.MULTILINE):
            words = shlex.split(re.sub(r"<[^>]*>", "yours", line), comments=True)
            values = dict(word.split("=", 1) for word in words if "=" in word)
            config = values.get("launch.config") or (re.findall(r"accelerate_configs/(\w+)\.yaml", line) or [None])[0]
            models = [name for name in values.get("model", "").split(",") if name in available("models")]
            recipes = [name for name in values.get("recipe", "").split(",") if name in available() and "/" not in name]
            given = re.findall(r"--num_processes (\d+)|num_processes=(\d+)", line)
            gpus = int("".join(given[0])) if given else 8 * int(values.get("--nodes", 1))
            if config in LAUNCHES:
                yield from ((file.name, recipe, model, config, gpus) for recipe in recipes for model in models)


def path_of(model):
    return compose_run(["recipe=mm_sft", f"model={model}"]).config.model.path


@cache
def first_that_fits(recipe, model, gpus):
    (on,) = estimate(compose_run([f"recipe={recipe}", f"model={model}"]), PlanSettings(gpus=[gpus])).launched
    return on.fits


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("pages", [True, False], ids=["pages", "files"])
def test_commands_launch_with_the_first_configuration_that_fits(pages):
    # The package has the configurations of these models; those of others are on the hub.
    named = {model for model in available("models") if path_of(model) in NAMED}
    found = {one for one in launched() if one[0].endswith(".md") == pages and one[2] in named}
    expected = {"README.md", "recipes.md", "cluster.md"} if pages else {"llava_7b.yaml", "train.sh", "zero3.yaml"}
    assert expected <= {one[0] for one in found}
    for file, recipe, model, config, gpus in sorted(found):
        assert config == first_that_fits(recipe, model, gpus), (file, recipe, model, gpus)


def test_the_papers_numbers_of_released_checkpoints_are_those_of_its_table():
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8").partition("### Released checkpoints")[2]
    table = json.loads((ROOT / "align" / "report" / "paper.json").read_text(encoding="utf-8"))["tables"]["table 16"]
    totals = [[model, arm, total] for model, arm, _, _, total in table["rows"]]
    models = {"Qwen2-VL-7B": "qwen2_vl_7b", "LLaVA-7B": "llava_7b", "LLaVA-13B": "llava_13b"}
    lines = re.findall(r"^\| (\S+) (\S+-\S+) \|.*\| ([\d.]+) \|$", page.partition("###")[0], re.MULTILINE)
    assert len(lines) == 6
    for model, arm, number in lines:
        assert [models[model], arm.lower().replace("-", "_"), float(number)] in totals
