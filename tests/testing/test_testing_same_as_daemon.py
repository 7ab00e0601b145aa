"""What happens in a world is what happens with a daemon and real processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scenes import SCENES, Log

import machport
from machport import testing


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_scene_shows_the_same_with_a_daemon_and_in_a_world(task: machport.Task, scene: Callable[[Log], None]) -> None:
    """Names, order, counts, errors in full."""
    real = Log(task)
    scene(real)
    assert len(real.lines) > 0
    for seed in range(3):
        with testing.World(seed) as world:
            embedded = Log(world.task("test"))
            scene(embedded)
            world.check()
        assert embedded.lines == real.lines
