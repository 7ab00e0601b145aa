"""The main job on real input: digests of files by a server that is killed, and nothing is lost.

``supervisor``  makes the ports, starts and kills servers, hands their rights to successors
``server``      digests what comes through the data queue        ``client``  asks for every file
``protocol``    what they say to each other                      ``report``  what a person sees
"""
