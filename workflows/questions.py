"""A deployment asks a person, and goes on without one when the time is up."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.deployment import Decision, Question


class Desk:
    """At most one question lies open; the first valid answer closes it."""

    def __init__(self) -> None:
        self.open: Question | None = None
        self._answer: Decision | None = None

    async def ask(self, question: Question) -> Decision:
        """Wait for an answer until the question's deadline; then its own `otherwise` is it."""
        self.open, self._answer = question, None
        try:
            await workflow.wait_condition(
                lambda: self._answer is not None,
                timeout=question.deadline - workflow.now(),
                timeout_summary=f"waits for an answer about {question.about}",
            )
        except TimeoutError:
            pass  # an answer may still have come in the same moment
        finally:
            self.open = None
        return self._answer or Decision(
            choice=question.otherwise, by="nobody", why="no answer in time"
        )

    def answer(self, decision: Decision) -> None:
        """Close the open question."""
        self._answer = decision

    def check(self, decision: Decision) -> None:
        """Refuse an answer that fits no open question.

        Raises:
            ValueError: why it does not fit.
        """
        if self.open is None:
            raise ValueError("the deployment does not wait for an answer")
        if self._answer is not None:
            raise ValueError(f"{self._answer.by} has answered already: {self._answer.choice}")
        if decision.choice not in self.open.choices:
            expected = ", ".join(self.open.choices)
            raise ValueError(f"«{decision.choice}» is no answer here; expected {expected}")
        if self.open.may_answer and decision.by not in self.open.may_answer:
            raise ValueError(f"{decision.by} may not answer; {', '.join(self.open.may_answer)} may")
