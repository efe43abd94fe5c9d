"""Keeps the plan that was computed last for a short time, for whoever asks for its other pages."""

import threading

from app.registry.collection.plan import Plan

# The plan of 100,000 models takes some 60 MB.
_KEEP_S = 60.0


class KeptPlan:
    """The plan that this process has computed last: its pages belong together, whatever changes meanwhile."""

    def __init__(self, keep_s: float = _KEEP_S) -> None:
        self._keep_s = keep_s
        self._guard = threading.Lock()
        self._plan: Plan | None = None

    def find(self, digest: str | None) -> Plan | None:
        """The kept plan, if this is its digest."""
        kept = self._plan
        return kept if kept is not None and kept.digest == digest else None

    def keep(self, plan: Plan) -> Plan:
        """Keep this plan instead of the one before, until its time is over. Returns it."""
        with self._guard:
            self._plan = plan
        end = threading.Timer(self._keep_s, self._forget, [plan])
        end.daemon = True
        end.start()
        return plan

    def _forget(self, plan: Plan) -> None:
        with self._guard:
            if self._plan is plan:
                self._plan = None
