"""A pool of worker processes whose deaths concern just the calls that they had received.

``executor``  what a program has: a ``concurrent.futures.Executor``
``slots``     calls, and the places for workers that they are given to
``receiving`` the thread that sends calls and receives what came of them
``keeping``   the thread that starts workers and collects dead ones
``worker``    what runs in a worker's process
``work``      calls and outcomes as messages
``errors``    what becomes of a call besides its result
"""
