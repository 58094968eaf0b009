"""Conversations to practise in: scenarios with a simulated user, judged utterance by utterance."""

from .app import Proposal, Social
from .conversation import Conversation, Transcript
from .scenarios import Scenario, read_scenarios
from .speaker import by_rules

__all__ = ["Social", "Conversation", "Proposal", "Scenario", "Transcript", "by_rules", "read_scenarios"]  # noqa: RUF022
