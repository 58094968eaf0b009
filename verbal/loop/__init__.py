"""The loop: LangGraph graphs over roles, critics and memory. LangGraph's own vocabulary stays behind this door.

State holds ids, never transcripts; what an id stands for is in the store. A node may run more than once, so every node
first looks whether the store already holds what it would make. Imported lazily (LangGraph takes seconds).
"""
