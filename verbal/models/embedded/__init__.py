"""The embedded model: a small language model that ships with the project and runs on numpy alone."""
