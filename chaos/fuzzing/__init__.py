"""What may be fed any bytes, each as a function of bytes: it returns, or something is broken.

``target``    what a target is, and all of them   ``kernel``    traps and messages, on embedded kernels
``layouts``   bytes without a kernel              ``shared``    rings in memory that somebody else writes
``sockets``   what comes with descriptors         ``files``     what is read from files
``snapshots`` kernels that come back changed
``feeding``   inputs made by a seed               ``runner``    one target in a process of its own
"""
