"""Ground: the numbers, layouts and errors that every other room speaks.

``constants``  the manuals' numbers               ``codes``   names of return codes
``message``    header, descriptors, trailers      ``errors``  one exception base, blame in the class
``traps``      the calls of a task on its kernel  ``status``  the words of a port's state
``bootstrap``  messages of the service of names

Imports nothing of machport outside this room.
"""
