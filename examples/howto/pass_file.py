"""An open file goes to another process as a right; the file needs no name, and the other process no permission."""

import os
import tempfile

import machport


def append(port: machport.ReceiveRight) -> None:
    for request in port:
        (file,) = request.rights
        assert isinstance(file, machport.SendRight)
        with request, os.fdopen(file.open_file(), "ab") as log:
            log.write(b"written by process %d\n" % os.getpid())
            log.flush()
            request.reply()


def main() -> None:
    with machport.Task() as task, tempfile.TemporaryFile("w+b") as log:
        port = task.allocate()
        writer = port.make_send()
        child = task.spawn(append, port.move())

        with task.fileport(log) as right:
            writer.call(rights=[right.copy()])
        log.seek(0)
        print(log.read() == b"written by process %d\n" % child.pid)


if __name__ == "__main__":
    main()
