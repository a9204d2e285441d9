"""The composite action of `examples/github-action`: its steps are run as the runner of GitHub does it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.sim.images import build_image

from ..support.labs import EXAMPLES

pytestmark = [
    pytest.mark.skipif(find_spec("yaml") is None, reason="could not import yaml"),
    pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash"),
    pytest.mark.timeout(60),
]

FOLDER = EXAMPLES / "github-action"
_EXPRESSION = re.compile(r"\$\{\{ *([\w.-]+) *\}\}")


@dataclass
class Done:
    """What a run of the action leaves."""

    code: int
    output: str
    outputs: dict[str, str]
    summary: str


class Runner:
    """As much of GitHub's as a composite action needs, without what has to be installed."""

    def __init__(self, folder: Path) -> None:
        import yaml

        self.folder = folder
        self.action: dict[str, Any] = yaml.safe_load((FOLDER / "action.yml").read_text(encoding="utf-8"))
        self.device = f"sim:board,state={folder / 'board.json'},erase=0.1,boot=0.05,reset_delay=0.02,watchdog=0.1"

    def image(self, version: str) -> str:
        path = self.folder / f"app {version}.bin"
        path.write_bytes(build_image(version, payload_size=4000))
        return str(path)

    def run(self, **given: str) -> Done:
        known = {"github.action_path": str(FOLDER)}
        for name, declared in self.action["inputs"].items():
            assert name in given or not declared.get("required"), f"{name} is required"
            known[f"inputs.{name}"] = given.get(name, declared.get("default", ""))
        (step,) = [one for one in self.action["runs"]["steps"] if one.get("id") == "dfu"]
        files = {name: self.folder / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("", encoding="utf-8")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]],
            env={
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                "RUNNER_TEMP": str(self.folder),
                **{name: str(file) for name, file in files.items()},
                **{name: _EXPRESSION.sub(lambda found: known[found[1]], text) for name, text in step["env"].items()},
            },
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        lines = files["GITHUB_OUTPUT"].read_text(encoding="utf-8").splitlines()
        outputs = dict(line.split("=", 1) for line in lines)
        return Done(done.returncode, done.stdout, outputs, files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8"))


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_an_update_is_told_in_the_summary(runner: Runner) -> None:
    done = runner.run(
        image=runner.image("1.1.0"),
        device=runner.device,
        options="--soak 0.1 --health-check \"test -e 'app 1.1.0.bin'\"",
    )
    assert done.code == 0, done.output
    assert done.outputs["exit-code"] == "0"
    assert done.outputs["result"].startswith("done: 1.1.0 is running and confirmed")
    head, _, rest = done.summary.partition("``````````text\n")
    assert head.startswith("### Device updated\n")
    assert f"| `{runner.device}` | `{runner.image('1.1.0')}` | done: 1.1.0 is running and confirmed" in head
    assert "check that it is healthy: test -e 'app 1.1.0.bin'" in rest
    log = Path(done.outputs["log"]).read_text(encoding="utf-8")
    assert "exit code 0 (done)" in log


def test_the_outputs_are_those_that_it_declares(runner: Runner) -> None:
    done = runner.run(image=runner.image("1.1.0"), device=runner.device, options="--dry-run")
    assert done.code == 0
    assert {f"${{{{ steps.dfu.outputs.{name} }}}}" for name in done.outputs} == {
        output["value"] for output in runner.action["outputs"].values()
    }
    assert set(done.outputs) == set(runner.action["outputs"])


def test_a_device_that_goes_back_fails_the_step_and_says_why(runner: Runner) -> None:
    done = runner.run(image=runner.image("1.9.9"), device=runner.device + ",unhealthy=1.9.9")
    assert done.code == 7
    assert done.outputs["exit-code"] == "7"
    assert done.outputs["result"].startswith("error: ")
    assert done.summary.startswith("### Device not updated (exit code 7)\n")
    assert done.output.rstrip().splitlines()[-1].startswith("::error title=mcumgrx::error: ")


@pytest.mark.parametrize("name", ["no such file.bin", "$(touch made).bin", "`touch made`; touch made"])
def test_inputs_are_words_and_never_run(runner: Runner, name: str) -> None:
    done = runner.run(image=name, device=runner.device, options="--soak '$(touch made)'")
    assert done.code == 2
    assert not (runner.folder / "made").exists()


def test_options_that_are_not_quoted_well_are_refused(runner: Runner) -> None:
    done = runner.run(image=runner.image("1.1.0"), device=runner.device, options="--health-check 'never closed")
    assert done.code == 2
    assert done.output.startswith("::error title=mcumgrx::the options are not quoted as in a shell")


def test_what_is_printed_on_the_way_commands_nothing(runner: Runner) -> None:
    done = runner.run(
        image=runner.image("1.1.0"), device=runner.device, options="--health-check 'echo ::error::not really; false'"
    )
    assert done.code == 10
    found = re.match(r"::stop-commands::(\S+)\n(.*)\n::\1::\n", done.output, re.DOTALL)
    assert found is not None
    assert "::error title=mcumgrx::error: " not in found[2]


def test_every_input_is_used_and_every_step_has_a_shell(runner: Runner) -> None:
    steps = runner.action["runs"]["steps"]
    assert runner.action["runs"]["using"] == "composite"
    assert all(step["shell"] == "bash" for step in steps)
    # Not in the text of a command, where a value could end the word that it stands in.
    assert not any("${{" in step["run"] for step in steps)
    used = {found for step in steps for text in step["env"].values() for found in _EXPRESSION.findall(text)}
    assert {f"inputs.{name}" for name in runner.action["inputs"]} <= used
