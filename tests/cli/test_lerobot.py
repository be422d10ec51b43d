"""``ffenc lerobot`` where there is no LeRobot; inside it is tested by tests/lerobot."""

from __future__ import annotations

from tests.support.command_line import CommandLine


def test_without_lerobot_it_says_where_to_install(ffenc: CommandLine) -> None:
    outcome = ffenc.run("lerobot", "record", "--robot.type=so101_follower")
    assert outcome.status == 1
    assert "LeRobot is not installed in this environment" in outcome.err
    assert "install ffenc into LeRobot's environment, with its pip" in outcome.err


def test_help_is_ffencs(ffenc: CommandLine) -> None:
    assert "--ffenc.preset=NAME" in ffenc.done("lerobot", "--help").out
