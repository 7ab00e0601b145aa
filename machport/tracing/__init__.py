"""What is done with a trace of a daemon: doing the same again, and looking at it.

``replaying``  the same calls on a kernel of one's own
``chrome``     as JSON for viewers of traces
"""
