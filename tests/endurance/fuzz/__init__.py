"""Damaged and hostile files for every reader: success or one of our own errors, within a bound on memory.

``damage`` and ``formats`` spoil valid files, ``corpus`` has the valid files, ``targets`` says who reads them
and how much memory that may take, ``run`` tries them in a process of its own, ``memory`` measures it.
"""
