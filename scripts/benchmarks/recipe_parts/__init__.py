"""The parts of recipes.py: the command that it calls, what is recorded, the comparison, the page."""
