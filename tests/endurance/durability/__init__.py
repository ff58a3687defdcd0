"""What kill_training.py and fail_writes.py share: a small training, and what has to hold of its folder."""
