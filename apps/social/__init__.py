"""Conversations to practise in: scenarios with a simulated user, judged utterance by utterance."""
