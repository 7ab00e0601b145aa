"""The examples run, and print what they are said to print."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from actors import PATIENCE, DaemonProcess

import machport

EXAMPLES = Path(__file__).parents[2] / "examples"
#: What each prints; of the README's program, what the README says.
PRINTED = {
    "killed_server.py": """\
b'HELLO'
ServerDied, and no waiting
DeadNameNotification and the process ended with -9
""",
    "hand_over.py": """\
b'hello, by server 1'
waiting: 2
b'one, by server 2'
b'two, by server 2'
""",
    "coroutines.py": """\
[b'cba', b'ABC', b'zyx']
told of a death
nobody had received it: True
""",
    "calculator.py": """\
0.25 and the watcher heard: 1 / 4, asked of server 1
ZeroDivisionError float division by zero
OutOfRange -4 is out of range
3.0 and the watcher heard: 9 / 3, asked of server 2
""",
    "data_queue.py": "True\n",
    "stream.py": "4000000 bytes\n",
    "manual_data_queue.py": "10000 entries, in order\n",
    "argv_child.py": """\
['apple', 'fig', 'pear']
grandchildren would inherit rights: False
DeadNameNotification
was killed by SIGTERM
""",
    "worker_pool.py": """\
lost, and how: was killed by SIGKILL
0 1 4 9 16 25 36 49 64 81
and the pool goes on: 144
""",
    "fan_in.py": "killed True ['done', 'done', 'done'] [2000, 2000, 2000]\n",
    "camera.py": """\
viewer: no frame comes any more; its process was killed by SIGKILL
viewer: from frame to frame the ball moved by {7}
camera: nobody looks any more; its process was killed by SIGKILL
""",
}
#: The one that is run by pytest.
TESTS = "test_your_protocol.py"
#: Those of the pages have a file beside them with what they print, which the pages show, too.
OF_PAGES = sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob("*/*.py"))


def printed_by(name: str) -> str:
    return PRINTED[name] if name in PRINTED else (EXAMPLES / name).with_suffix(".txt").read_text()


def test_what_every_example_prints_is_written_down() -> None:
    assert {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py")} - {TESTS} == {
        *PRINTED,
        *OF_PAGES,
    }
    assert {path.stem for path in EXAMPLES.rglob("*.txt")} == {Path(name).stem for name in OF_PAGES}


@pytest.mark.parametrize("name", [*PRINTED, *OF_PAGES])
def test_the_example_prints_what_it_should(daemon: DaemonProcess, name: str) -> None:
    """In development mode, which would warn of rights that it makes and forgets."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    # Of steps that take long, as on a busy machine, asyncio tells in this mode, too.
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (said, done.returncode) == ([], 0)
    assert done.stdout == printed_by(name)


def test_the_example_of_tests_passes(tmp_path: Path) -> None:
    """As a user's own: copied, with a configuration that lets no warning through."""
    (tmp_path / TESTS).write_text((EXAMPLES / TESTS).read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "machport.testing.plugin", "-q", TESTS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_the_readme_shows_the_example_and_its_output() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    program = (EXAMPLES / "killed_server.py").read_text()
    assert program[program.index("import machport") :] in readme
    assert PRINTED["killed_server.py"] in readme


def program(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_loops_that_ask_again_end_when_nobody_can_ever_serve(task: machport.Task) -> None:
    """Although the request was not received, and may be asked again, a dead port never answers."""
    with task.allocate() as port, task.allocate() as news:
        dead = port.make_send()
        port.close()
        with dead, news.make_send() as said:
            with pytest.raises(machport.ServerDied) as order:
                program("howto/survive_kills.py").order(dead, b"order")
            with pytest.raises(machport.ServerDied):
                program("tutorial/07_hand_over.py").ask(dead, said)
    assert order.value.retry_safe
    assert order.value.code == machport.mach.MACH_SEND_INVALID_DEST
