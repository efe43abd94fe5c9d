"""A training that takes seconds: it keeps the contract of docs/training-machine.md and learns nothing.

For tests and benchmarks of everything around the training. It is a git repository of its own, which the
simulated instances clone, so the worker brings and starts it exactly as it does the real one. `program.py`
says how a test steers it.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = Path(__file__).with_name("program.py")
_IDENTITY = ("-c", "user.name=fake", "-c", "user.email=fake@example.org", "-c", "init.defaultBranch=main")


@dataclass(frozen=True)
class Repository:
    """A git repository whose `training` package is the fake."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Repository":
        """Make it, without a commit."""
        package = folder / "training"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_bytes(_PROGRAM.read_bytes())
        made = cls(folder)
        made._git("init", "--quiet")
        return made

    def commit(self, search_config: str) -> str:
        """Commit the configuration together with the fake; returns all 40 digits of the commit."""
        (self.folder / "search-config.toml").write_text(search_config, encoding="utf-8")
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "--message", "A configuration")
        return self._git("rev-parse", "HEAD")

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *_IDENTITY, *arguments], cwd=self.folder, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()


@dataclass(frozen=True)
class Control:
    """Steers the fakes of a simulated cloud, and knows which of them were started."""

    folder: Path

    def environment(self, *, seconds: float = 1.0) -> dict[str, str]:
        """What the simulated machines need in their environment. `seconds` is how long each job takes."""
        return {"FAKE_TRAINING_CONTROL": str(self.folder), "FAKE_TRAINING_S": str(seconds)}

    def hold(self, command: str) -> None:
        """Let the jobs of this command go on until they are released."""
        (self.folder / f"hold-{command}").touch()

    def release(self, command: str) -> None:
        (self.folder / f"hold-{command}").unlink(missing_ok=True)

    def starts(self, command: str) -> list[str]:
        """The builds that a job of this command was started for, once for each start."""
        try:
            lines = (self.folder / "started").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [build for said, _, build in (line.partition(" ") for line in lines) if said == command]

    def clear(self) -> None:
        """Forget every hold and every start."""
        for file in self.folder.iterdir():
            file.unlink()
