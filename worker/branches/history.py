"""The commits of a git repository as a graph, and which of them are a branch's own.

A branch that leaves the main one has all of the main branch's commits up to there. They are not its own:
otherwise any branch at all would keep the model of every commit that was ever merged. What the branch did not
have when it left is its own, even after the branch was merged, as long as it still exists.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

# So many branches are named for a commit. One is enough to keep its model.
_NAMED = 3
# How many digits a whole commit has.
_WHOLE = 40


@dataclass(frozen=True)
class History:
    """Every commit with its parents, the commit of each branch, and the name of the main branch."""

    parents: Mapping[str, tuple[str, ...]]
    heads: Mapping[str, str]
    main: str

    @cached_property
    def _merged_at(self) -> Mapping[str, int]:
        """Each commit of the main branch, with the position on it at which it arrived there.

        The positions count the first parents from the oldest on.
        """
        line = []
        commit: str | None = self.heads[self.main]
        while commit is not None:
            line.append(commit)
            commit = next(iter(self.parents.get(commit, ())), None)
        found: dict[str, int] = {}
        for position, start in enumerate(reversed(line)):
            waiting = [start]
            while waiting:
                each = waiting.pop()
                if each not in found:
                    found[each] = position
                    waiting += self.parents.get(each, ())
        return found

    @cached_property
    def _line(self) -> frozenset[str]:
        """The first parents of the main branch."""
        by_position: dict[int, str] = {}
        for commit, position in self._merged_at.items():
            # The first one that is found at a position is the one that is on the line.
            by_position.setdefault(position, commit)
        return frozenset(by_position.values())

    def own(self, branch: str) -> Iterator[str]:
        """The commits that the branch did not have from the main branch when it left it."""
        left_at = self._left_at(branch)
        waiting, seen = [self.heads[branch]], set[str]()
        while waiting:
            commit = waiting.pop()
            if commit in seen or self._merged_at.get(commit, left_at + 1) <= left_at:
                continue
            seen.add(commit)
            yield commit
            waiting += self.parents.get(commit, ())

    def _left_at(self, branch: str) -> int:
        """The newest position of the main branch that the branch has, or -1 if it has none."""
        newest = -1
        waiting, seen = [self.heads[branch]], set[str]()
        while waiting:
            commit = waiting.pop()
            position = self._merged_at.get(commit)
            if commit in seen or (position is not None and position <= newest):
                continue
            seen.add(commit)
            if position is not None and commit in self._line:
                newest = position
            else:
                waiting += self.parents.get(commit, ())
        return newest

    def holders(self, branches: Collection[str], wanted: Collection[str]) -> dict[str, list[str]]:
        """Of the wanted commits, those that are the branches' own, each with some of the branches."""
        found: dict[str, list[str]] = {}
        for branch in sorted(branches):
            if branch == self.main:
                continue
            for commit in self.own(branch):
                if commit in wanted and len(found.setdefault(commit, [])) < _NAMED:
                    found[commit].append(branch)
        return found

    def named(self, shas: Collection[str]) -> dict[str, list[str]]:
        """The commits that begin with these digits, for all that some commit begins with."""
        found = {sha: [sha] for sha in shas if sha in self.parents}
        short = {sha for sha in shas if len(sha) < _WHOLE}
        lengths = sorted({len(sha) for sha in short})
        for commit in self.parents:
            for length in lengths:
                if (sha := commit[:length]) in short:
                    found.setdefault(sha, []).append(commit)
        return found
