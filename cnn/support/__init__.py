"""What all of the packages use: checked arguments, errors, files, text, terminals, random numbers."""
