"""What machport costs, measured beside other ways of talking between Python processes.

``python -m bench`` measures every figure, ``python -m bench NAME`` one; ``make bench`` installs what can be compared
with first.

``harness``  processes, where they run, how long they may take   ``peers``     what is measured, one file a family
``loops``    what is timed, in the measured processes            ``figures``   what is asked, and what is to be reached
``results``  rounds, medians, ratios, targets                    ``report``    tables
"""
