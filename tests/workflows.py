"""Runs the jobs of a workflow of GitHub Actions: their shell steps in a real bash, as a runner does.

Of the expression language, this knows what the project's workflows use. Actions of others are replaced:
checking out is a clone, uploading an artifact is a copy, and installing Python and the command line is what
the tests' environment has already.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_INSTALL = "Install the command line"


@dataclass
class Ran:
    """What became of a step."""

    name: str
    outcome: str
    output: str = ""


@dataclass
class Runner:
    """A runner for one job. `environment` is what GitHub sets beside the usual."""

    remote: Path
    folder: Path
    environment: Mapping[str, str]
    contexts: dict[str, Any]
    ran: list[Ran] = field(default_factory=list)
    _paths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.workspace, self.temp = self.folder / "workspace", self.folder / "temp"
        for folder in (self.workspace, self.temp, self.temp / "home"):
            folder.mkdir(parents=True)
        self.contexts["runner"] = {"temp": str(self.temp)}

    @property
    def succeeded(self) -> bool:
        return all(step.outcome != "failure" for step in self.ran)

    @property
    def output(self) -> str:
        return "\n".join(f"--- {step.name}: {step.outcome}\n{step.output}" for step in self.ran)

    @property
    def summary(self) -> str:
        file = self.temp / "summary"
        return file.read_text("utf-8") if file.exists() else ""

    def run(self, workflow: Path, job: str) -> None:
        """Run the job, unless its condition does not hold."""
        definition = yaml.safe_load(workflow.read_text("utf-8"))["jobs"][job]
        if "if" in definition and not self._holds(definition["if"], steps={}):
            return
        self._run_steps(definition["steps"], definition.get("env", {}), self.contexts)

    def _run_steps(
        self, steps: list[dict[str, Any]], env: Mapping[str, Any], contexts: dict[str, Any]
    ) -> dict[str, Any]:
        known: dict[str, Any] = {}
        inside = contexts | {"steps": known}
        for step in steps:
            name = step.get("name") or step["uses"]
            outputs: dict[str, str] = {}
            if not self._holds(step.get("if", "success()"), **inside):
                ran = Ran(name, "skipped")
            elif "uses" in step:
                ran, outputs = self._use(name, step, inside)
            else:
                ran, outputs = self._shell(name, step["run"], dict(env) | step.get("env", {}), inside)
            self.ran.append(ran)
            if "id" in step:
                known[step["id"]] = {"outputs": outputs, "outcome": ran.outcome}
        return known

    def _use(self, name: str, step: dict[str, Any], contexts: dict[str, Any]) -> tuple[Ran, dict[str, str]]:
        given = {key: self._filled(value, contexts) for key, value in step.get("with", {}).items()}
        uses = step["uses"]
        # The example for another repository names the action by its repository.
        if uses == "./" or uses.startswith("your-organisation/tariff-model-registry@"):
            return self._action(name, given, contexts)
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", uses), f"{uses} is not pinned by its commit"
        match uses.partition("@")[0]:
            case "actions/checkout":
                subprocess.run(["git", "clone", "-q", self.remote, self.workspace], check=True)
                where = given.get("ref", "HEAD")
                self._git("switch", "-q", "--detach", where if len(where) == 40 else f"origin/{where}")
            case "actions/setup-python" | "hashicorp/setup-packer":
                pass
            case "aws-actions/configure-aws-credentials":
                self.environment = {**self.environment, "AWS_REGION": given["aws-region"]}
            case "actions/upload-artifact":
                shutil.copytree(self.workspace / given["path"], self.folder / given["name"])
            case other:
                raise AssertionError(other)
        return Ran(name, "success"), {}

    def _action(
        self, name: str, given: Mapping[str, str], contexts: dict[str, Any]
    ) -> tuple[Ran, dict[str, str]]:
        """The action of this repository."""
        action = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
        assert given.keys() <= action["inputs"].keys()
        inputs = {
            key: given.get(key, self._filled(str(of.get("default", "")), contexts))
            for key, of in action["inputs"].items()
        }
        inside = {**contexts, "inputs": inputs, "github": contexts["github"] | {"action_path": str(ROOT)}}
        before = len(self.ran)
        steps = self._run_steps(action["runs"]["steps"], {}, inside)
        own = self.ran[before:]
        del self.ran[before:]
        outputs = {
            key: self._filled(of["value"], inside | {"steps": steps}) for key, of in action["outputs"].items()
        }
        outcome = "failure" if any(step.outcome == "failure" for step in own) else "success"
        return Ran(name, outcome, "\n".join(step.output for step in own)), outputs

    def _shell(
        self, name: str, script: str, env: Mapping[str, Any], contexts: dict[str, Any]
    ) -> tuple[Ran, dict[str, str]]:
        # Text of others in a script would be run. It belongs into the environment.
        assert "${{" not in script, f"{name} has an expression in its script"
        if name == _INSTALL:
            command = self.temp / "tariff-registry" / "bin" / "tariff-registry"
            command.parent.mkdir(parents=True)
            command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cli "$@"\n')
            command.chmod(0o755)
            self._paths.append(str(command.parent))
            return Ran(name, "success"), {}
        output, script_file = self.temp / "output", self.temp / "script.sh"
        output.write_text("")
        script_file.write_text(script)
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script_file],
            cwd=self.workspace,
            env={
                "PATH": ":".join([str(self.folder / "bin"), *self._paths, os.environ["PATH"]]),
                "HOME": str(self.temp / "home"),
                "PYTHONPATH": str(ROOT),
                "RUNNER_TEMP": str(self.temp),
                "GITHUB_OUTPUT": str(output),
                "GITHUB_STEP_SUMMARY": str(self.temp / "summary"),
                **self.environment,
                **{key: self._filled(str(value), contexts) for key, value in env.items()},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )
        pairs = (line.partition("=") for line in output.read_text("utf-8").splitlines())
        outcome = "success" if done.returncode == 0 else "failure"
        return Ran(name, outcome, done.stdout), {key: value for key, _, value in pairs}

    def _filled(self, text: object, contexts: Mapping[str, Any]) -> str:
        return _EXPRESSION.sub(lambda found: str(self._value(found[1], contexts)), str(text))

    def _holds(self, condition: str, **contexts: Any) -> bool:
        found = _EXPRESSION.fullmatch(condition.strip())
        expression = found[1] if found else condition
        # Without a word about the state of the job, a step runs only while nothing has failed.
        if not re.search(r"(always|cancelled|failure|success)\(\)", expression) and not self.succeeded:
            return False
        return self._value(expression, {**self.contexts, **contexts}) not in ("", False, None)

    def _value(self, expression: str, contexts: Mapping[str, Any]) -> Any:
        """The expression's value. `&&` and `||` are read from the right, as precedence is not needed."""
        for operator in (" || ", " && "):
            left, found, right = expression.partition(operator)
            if found:
                value = self._value(left, contexts)
                wanted = bool(value) if operator == " || " else not value
                return value if wanted else self._value(right, contexts)
        for operator in (" == ", " != "):
            left, found, right = expression.partition(operator)
            if found:
                same = self._value(left, contexts) == self._value(right, contexts)
                return same is (operator == " == ")
        expression = expression.strip()
        match expression:
            case "always()" | "!cancelled()":
                return True
            case "success()":
                return self.succeeded
        if expression.startswith("'"):
            return expression.strip("'")
        found_so_far: Any = contexts
        for part in expression.split("."):
            found_so_far = found_so_far.get(part, "") if isinstance(found_so_far, Mapping) else ""
        return found_so_far

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", "-C", self.workspace, *arguments], check=True)
