"""A history in which each rule is, at some moment, the only one that keeps some model, input or file.

Random histories find what nobody thought of, but few of them meet every rule. In this one, no rule can be
broken without being noticed.
"""

import itertools
from collections.abc import Mapping, Set
from uuid import UUID

from app.registry.keeping import marks
from app.registry.keeping.marks import MarkReason
from app.words import Stage, Verdict
from tests.integration.worker import collection_rules as rules
from tests.integration.worker.collection_history import A_MONTH, CONTENTS
from tests.integration.worker.collection_machine import A_WEEK, Collecting

ONE, TWO, THREE, FOUR = CONTENTS
NOTHING: Set[str] = frozenset()
NO_REASON = ""
GONE, RULED = "feature/gone", "feature/ruled"


class Told(Collecting):
    def tell(self) -> None:
        self.begin((None, None))
        # The prefixes of the models, by what they are called here.
        self.named: dict[str, str] = {}
        self._branches_and_decisions()
        self._stages()
        self._sweep_while_a_branch_appears()
        self._inputs_and_files()
        self._a_collected_model_is_made_again()
        self.teardown()

    def _branches_and_decisions(self) -> None:
        self._make_branches()
        for name in (
            "the newest that passed",
            "in development",
            "pinned",
            "restored",
            "reproduced",
            "in vain",
        ):
            self._commit(GONE)
            self._publish(name, passed=name == "the newest that passed")
        self._look()
        self.repository.delete(GONE)
        self._promote(self.named["in development"], Stage.DEVELOPMENT)
        self._decide(self.named["pinned"], "pin")
        self._month()
        self._mark_and_restore("restored")
        self._commit(GONE)
        self._publish("young")
        self._look()
        self.repository.delete(GONE)
        self._look()
        self._reproduce(self.named["reproduced"], uses=False)
        self._reproduce(self.named["in vain"], uses=False, end="fail")
        self._check(
            {
                "of a branch": "its branch exists",
                "held": "a branch has its commit",
                "seen": NO_REASON,
                "unseen": "its commit was never seen",
                "of main": "the main branch had the name of its branch",
                "the newest that passed": "new models are compared with it",
                "in development": "development runs it",
                "pinned": "it is pinned",
                "restored": "it is young, or was restored lately",
                "young": "it is young, or was restored lately",
                "reproduced": "a build of it is active",
                "in vain": "a build of it can be retried",
            }
        )
        rules.move_into_the_past(self.world.registry, A_WEEK)
        self._check(dict.fromkeys(("seen", "in vain"), "the branches are not known"))
        self._look()
        self._check({"in vain": NO_REASON})

    def _make_branches(self) -> None:
        self._commit(self.main)
        self._publish("of main")
        self._commit("feature/stays")
        self._publish("of a branch")
        # Its commit stays on a branch of another name, which was merged.
        self._commit("feature/left")
        self._publish("held")
        self._commit("feature/other", on=self._head("feature/left"))
        self._commit(self.main, self.repository.git("rev-parse", "feature/other"))
        self._commit("feature/seen")
        self._publish("seen")
        self._look()
        self._commit("feature/unseen")
        self._publish("unseen")
        # The branch stays, and its commit is replaced.
        self.repository.delete("feature/stays")
        self._commit("feature/stays")
        self.change_the_main_branch("rename")
        self.repository.delete("feature/left", "feature/seen", "feature/unseen")

    def _stages(self) -> None:
        for name in ("released too early", "retired", "a target", "superseded", "runs", "runs now"):
            self._commit(GONE)
            self._publish(name)
        self._commit(RULED)
        self._publish("of a rule")
        self._look()
        self.repository.delete(GONE, RULED)
        self._promote_in_turn(Stage.STAGING, "of a rule", "released too early", "retired")
        self._decide(self.named["released too early"], "release")
        self._promote_in_turn(Stage.STAGING, "released too early", "a target", "runs")
        self._promote_in_turn(Stage.PRODUCTION, "superseded")
        for name in ("retired", "a target", "superseded"):
            self._decide(self.named[name], "release")
        self._month()
        self._promote_in_turn(Stage.PRODUCTION, "runs", "runs now")
        self._check(
            {
                "released too early": "it was in staging, and nobody has released it",
                "retired": NO_REASON,
                "of a rule": "it was in staging, and nobody has released it",
                "a target": "staging can go back to it",
                "superseded": "production ran it lately",
                "the newest that passed": NO_REASON,
            }
        )

    def _promote_in_turn(self, stage: Stage, *names: str) -> None:
        for name in names:
            self._promote(self.named[name], stage)

    def _sweep_while_a_branch_appears(self) -> None:
        self.release_by_a_rule("*/ruled")
        self._check({"of a rule": NO_REASON})
        self._collect()
        assert rules.states(self.world.registry)[self.named["of a rule"]] == "marked"
        self.revoke_the_release_rules()
        assert rules.states(self.world.registry)[self.named["of a rule"]] == "kept"
        # While the branches are not known, what is marked stays so.
        rules.move_into_the_past(self.world.registry, A_WEEK)
        self._collect()
        self.collect_while_something_happens(0, "commit", 0, set(), A_WEEK)
        self._check({})

    def _inputs_and_files(self) -> None:
        """Each content that is not ONE is needed for one reason at a time."""
        self._commit(GONE)
        self._publish("to be made again", used={TWO})
        self._commit(GONE)
        self._build(self.commits[-1], passed=False, used={TWO}, end="later")
        self._commit(GONE)
        self._build(self.commits[-1], passed=False, used={THREE}, end="later")
        long_active = self._newest_build()
        self._commit(GONE)
        self._build(self.commits[-1], passed=False, used={FOUR}, end="fail")
        self.retry(0, passed=False, end="later")
        retry = self._newest_build()
        self._look()
        self.repository.delete(GONE)
        self._month()
        self._collect()
        assert self._contents() == {ONE, TWO, THREE, FOUR}
        # From now on, both can be retried. What the retry repeated cannot.
        self._end(long_active, Verdict.FAILED, "fail")
        self._end(retry, Verdict.FAILED, "cancel")
        self._collect()
        assert self._contents() == {ONE, TWO, THREE}
        assert self._unpublished() == {str(long_active), str(retry)}
        rules.move_into_the_past(self.world.registry, A_WEEK)
        self._look()
        for death in itertools.count():
            self._collect(death)
            self.the_bucket_has_what_it_must()
            if self.run is None:
                break
        assert rules.states(self.world.registry)[self.named["to be made again"]] == "collected"
        assert self._contents() == {ONE, TWO}

    def _a_collected_model_is_made_again(self) -> None:
        self._reproduce(self.named["to be made again"], uses=False)
        again = self._newest_build()
        for build in self.world.registry.values(
            "SELECT id FROM builds WHERE kind = 'train' AND finished_at IS NULL"
        ):
            self._end(build, Verdict.FAILED, "cancel")
        self._month()
        self._collect()
        assert self._contents() == {ONE, TWO}
        self._end(again, Verdict.UNKNOWN, "publish")
        self.end_what_is_active(Verdict.UNKNOWN, "publish")
        self._month()
        self._check({"reproduced": NO_REASON})
        self._collect()
        assert self._contents() == {ONE}

    # What the chapters have in common

    def _publish(self, name: str, *, passed: bool = False, used: Set[str] = NOTHING) -> None:
        """Build the model of the newest commit."""
        self._build(self.commits[-1], passed, set(used))
        self.named[name] = f"1.0.0-{self.commits[-1][1][:7]}"

    def _mark_and_restore(self, name: str) -> None:
        registry, prefix = self.world.registry, self.named[name]
        model = registry.value("SELECT id FROM models WHERE prefix = :prefix", prefix=prefix)
        with registry.database.transaction() as session:
            marks.mark(session, model, MarkReason("branch_gone", "its branch is gone"), None)
        self._decide(prefix, "restore")

    def _newest_build(self) -> UUID:
        build: UUID = self.world.registry.value("SELECT id FROM builds ORDER BY created_at DESC, id LIMIT 1")
        return build

    def _month(self) -> None:
        rules.move_into_the_past(self.world.registry, A_MONTH)
        self._look()

    def _contents(self) -> set[str]:
        return {key.rpartition("/")[2] for key, _ in self.world.bucket.list("inputs/")}

    def _check(self, expected: Mapping[str, str]) -> None:
        """What must hold does, and these models have one reason to stay, or none."""
        self.the_plan_says_what_the_rules_say()
        self.the_bucket_has_what_it_must()
        why = rules.reasons(self.world.registry, self.seen)
        assert {name: ", ".join(why[self.named[name]]) for name in expected} == expected
