"""Paths on the training machine, as docs/training-machine.md defines them."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class Machine:
    """The files that the image provides, below the login user's home folder."""

    home: str

    @property
    def clone(self) -> str:
        return f"{self.home}/training/repository"

    @property
    def python(self) -> str:
        return f"{self.home}/training/environment/bin/python"

    def build(self, build_id: UUID) -> "BuildFolder":
        return BuildFolder(f"{self.home}/builds/{build_id}")


@dataclass(frozen=True)
class BuildFolder:
    """The folder of one build on the machine."""

    path: str

    @property
    def repository(self) -> str:
        return f"{self.path}/repository"

    @property
    def config(self) -> str:
        return f"{self.path}/search-config.toml"

    @property
    def output(self) -> str:
        return f"{self.path}/output"

    def input(self, name: str) -> str:
        return f"{self.path}/inputs/{name}"

    @property
    def snapshots(self) -> str:
        """Where a reproduction finds the answers of additional sources, instead of at their URLs."""
        return f"{self.path}/inputs/snapshots"

    @property
    def checkpoints(self) -> str:
        """Where the training keeps its checkpoints, and finds those of an earlier instance."""
        return f"{self.path}/checkpoints"

    def job(self, command: str) -> str:
        return f"{self.path}/{command}"
