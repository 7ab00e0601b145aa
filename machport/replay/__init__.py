"""Transcripts of a Mach kernel, read and played on an embedded kernel.

``transcript``  the file format, read strictly     ``player``  each operation as a call, each result as a line
"""
