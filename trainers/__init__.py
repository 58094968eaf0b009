"""Who learns: datasets from attempts, methods, and their adapters to TRL. The only room with torch."""
