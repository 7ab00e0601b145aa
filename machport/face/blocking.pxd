# C types for blocking.py: its classes are Python's, because they have two bases each.
