"""What a Python programmer uses: tasks, rights, messages and queues as objects.  ``machport`` exports it.

``rights``   kinds of right, and how one leaves its task        ``task``    a task and what it can make
``message``  messages and the notifications, one class each     ``spawn``   child processes with just their rights
``closing``  what a ``with`` statement closes                   ``deaths``  what errors say of the other end
"""
