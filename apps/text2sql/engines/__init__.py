"""What runs inside a worker process: one file an engine. The parent (`worker.py`) imports none of it."""
