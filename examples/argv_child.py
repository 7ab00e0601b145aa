"""Any program can be started with rights: here the sort of Python, in a process that holds one right and nothing else.

It finds what it was given by name.  What it starts inherits nothing, and the parent learns how it ended.
"""

import subprocess
import sys

import machport

PROGRAM = """
import os, machport

port = machport.inherited()["lines"]
request = port.receive()
request.reply("\\n".join(sorted(request.body.decode().split())).encode())
print("MACHPORT_INHERITED" in os.environ, flush=True)
port.receive()
"""


def main() -> None:
    with machport.Task() as task:
        lines, deaths = task.allocate(), task.allocate()
        sort = lines.make_send()
        sort.request_dead_name(deaths)
        command = [sys.executable, "-c", PROGRAM]
        with task.spawn(command, rights={"lines": lines.move()}, stdout=subprocess.PIPE) as child:
            said = child.stdout
            assert said is not None
            print(sort.call(b"pear fig apple", timeout=10).body.decode().split())
            print("grandchildren would inherit rights:", said.readline().decode().strip())
            child.terminate()
            print(type(deaths.receive(timeout=10)).__name__)
            child.join(10)
            print(str(child.death).partition(") ")[2])


if __name__ == "__main__":
    main()
