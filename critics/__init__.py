"""Who judges: numbers and words about attempts, one critic a file."""
