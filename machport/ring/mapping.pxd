# C names for mapping.py.

cimport machport.ring.memory as memory
