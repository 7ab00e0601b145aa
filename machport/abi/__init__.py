"""Ground: the numbers, layouts and errors that every other room speaks.

``constants``  the manuals' numbers           ``codes``   names of return codes
``message``    header, descriptors, trailers  ``errors``  one exception base, blame in the class
``traps``      the calls of a task on its kernel, as bytes

Imports nothing of machport outside this room.
"""
