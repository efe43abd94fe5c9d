"""Which commits are a branch's own."""

from hypothesis import given
from hypothesis import strategies as st

from worker.branches.history import History


def history(graph: str, **heads: str) -> History:
    """A graph such as `a; b<a; c<a,b`, with `main` among the heads."""
    parents = {}
    for each in graph.split("; "):
        commit, _, of = each.partition("<")
        parents[commit] = tuple(of.split(",")) if of else ()
    return History(parents, heads, "main")


def own(graph: History, branch: str) -> set[str]:
    return set(graph.own(branch))


def test_a_branch_owns_what_it_has_added() -> None:
    graph = history("m1; m2<m1; m3<m2; f1<m2; f2<f1", main="m3", feature="f2", new="m3")
    assert own(graph, "feature") == {"f1", "f2"}
    # A branch without a commit of its own keeps nothing of the main branch's.
    assert own(graph, "new") == set()


def test_a_branch_that_was_merged_owns_its_commits_until_it_is_deleted() -> None:
    graph = history("m1; f1<m1; m2<m1,f1; g1<m2", main="m2", feature="f1", later="g1")
    assert own(graph, "feature") == {"f1"}
    # It was made after the merge, so it has them from the main branch.
    assert own(graph, "later") == {"g1"}


def test_a_branch_owns_what_it_has_from_another_branch_and_not_what_it_merged_from_main() -> None:
    graph = history("m1; m2<m1; f1<m1; g1<f1; g2<g1,m2; m3<m2", main="m3", feature="f1", stacked="g2")
    assert own(graph, "stacked") == {"f1", "g1", "g2"}


def test_a_branch_without_a_common_commit_owns_all_of_its_own() -> None:
    graph = history("m1; p1; p2<p1", main="m1", pages="p2")
    assert own(graph, "pages") == {"p1", "p2"}
    assert graph.holders(["main", "pages"], {"p1", "m1"}) == {"p1": ["pages"]}


def test_digits_name_every_commit_that_begins_with_them() -> None:
    one, two = "a" * 40, "a" * 7 + "b" * 33
    graph = History({one: (), two: (one,)}, {"main": two}, "main")
    assert graph.named({"aaaaaaa", "aaaaaaab", one, "ccccccc", "c" * 40}) == {
        "aaaaaaa": [one, two],
        "aaaaaaab": [two],
        one: [one],
    }


@st.composite
def graphs(draw: st.DrawFn) -> History:
    count = draw(st.integers(1, 12))
    parents: dict[str, tuple[str, ...]] = {}
    for number in range(count):
        earlier = [f"c{other}" for other in range(number)]
        of = draw(st.lists(st.sampled_from(earlier), max_size=2, unique=True)) if earlier else []
        parents[f"c{number}"] = tuple(of)
    heads = {name: draw(st.sampled_from(sorted(parents))) for name in ("main", "feature")}
    return History(parents, heads, "main")


def ancestors(graph: History, commit: str) -> set[str]:
    found = {commit}
    for parent in graph.parents[commit]:
        found |= ancestors(graph, parent)
    return found


@given(graphs())
def test_in_any_graph_a_branch_owns_what_it_did_not_have_when_it_left(graph: History) -> None:
    line = [graph.heads["main"]]
    while graph.parents[line[-1]]:
        line.append(graph.parents[line[-1]][0])
    has = ancestors(graph, graph.heads["feature"])
    left = next((commit for commit in line if commit in has), None)
    assert own(graph, "feature") == has - (set() if left is None else ancestors(graph, left))
