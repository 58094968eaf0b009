"""The synthetic corpus of the embedded model: random databases, questions, hints, critiques and reflections."""
